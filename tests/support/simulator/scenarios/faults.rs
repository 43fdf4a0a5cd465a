//! Faults of networks and hosts: partitions, loss, one-way links, frozen processes.

use std::time::Duration;

use foca::State;

use super::super::Simulation;
use super::{NodeId, agents, agrees, any_agent, counted, downs, settled, until_agreed};

/// How long a set is watched after a fault.
const WATCHED: Duration = Duration::from_secs(300);

/// Results of a partition into two halves.
#[derive(Debug)]
pub struct Partition {
    /// Time from the end of the partition until all agree again, seconds.
    pub healed: Option<f64>,
}

/// Half of the nodes do not reach the other half for some time. Both halves have seeds and proxies.
pub fn partition(nodes: usize, seed: u64, time: Duration) -> Partition {
    let mut simulation = settled(nodes, seed, false);
    simulation.run_for(Duration::from_secs(5));
    simulation.network.parts = (0..nodes).map(|id| (id, (id % 2) as u8)).collect();
    simulation.run_for(time);
    simulation.network.parts.clear();
    Partition {
        healed: until_agreed(&mut simulation, WATCHED),
    }
}

/// Results of a network that loses datagrams.
#[derive(Debug)]
pub struct PacketLoss {
    /// How often a node was thought down by another, although all were healthy.
    pub false_downs: u64,
    /// Hours, summed over all nodes.
    pub node_hours: f64,
    /// Time from the end of the loss until all agree, seconds.
    pub healed: Option<f64>,
}

/// A fraction of the datagrams is lost for some time.
pub fn loss(nodes: usize, seed: u64, share: f64, time: Duration) -> PacketLoss {
    let mut simulation = settled(nodes, seed, false);
    simulation.network.loss = share;
    simulation.run_for(time);
    let false_downs = downs(&simulation);
    simulation.network.loss = 0.0;
    PacketLoss {
        false_downs,
        node_hours: nodes as f64 * time.as_secs_f64() / 3_600.0,
        healed: until_agreed(&mut simulation, WATCHED),
    }
}

/// Results of a link that carries nothing in one direction.
#[derive(Debug)]
pub struct OneWay {
    /// How often a node was thought down by another.
    pub false_downs: u64,
    /// Time until all agree while the link is still broken, seconds.
    pub agreed: Option<f64>,
}

/// What one node sends to another does not arrive for some time.
pub fn one_way(nodes: usize, seed: u64, time: Duration) -> OneWay {
    let mut simulation = settled(nodes, seed, false);
    let (from, to) = (any_agent(&mut simulation), 0);
    simulation.network.blocked.insert((from, to));
    simulation.run_for(time);
    OneWay {
        false_downs: downs(&simulation),
        agreed: until_agreed(&mut simulation, WATCHED),
    }
}

/// Results of nodes that are stopped for some time again and again.
#[derive(Debug, Default)]
pub struct Frozen {
    /// How often a node that was not frozen came back in another run because it was thought down.
    pub healthy_downs: u64,
    /// How often a node was thought down, frozen ones included.
    pub downs: u64,
    /// For each node that was suspected when it woke: time until nobody suspected it any more, seconds.
    pub refuted: Vec<f64>,
    /// Nodes that were still suspected when a round ended.
    pub missed: usize,
    /// Hours, summed over all nodes.
    pub node_hours: f64,
}

const ROUND: Duration = Duration::from_secs(20);

/// In each round of 20 s another twentieth of the nodes is frozen for `time`.
pub fn frozen(nodes: usize, seed: u64, rounds: u32, time: Duration) -> Frozen {
    let mut simulation = settled(nodes, seed, false);
    simulation.run_for(Duration::from_secs(5));
    let mut result = Frozen {
        node_hours: nodes as f64 * (ROUND * rounds).as_secs_f64() / 3_600.0,
        ..Frozen::default()
    };
    for _ in 0..rounds {
        let round = simulation.now() + ROUND;
        let mut frozen = agents(&simulation);
        while frozen.len() > (nodes / 20).max(1) {
            let index = simulation.random_below(frozen.len());
            frozen.swap_remove(index);
        }
        for &id in &frozen {
            simulation.freeze(id, time);
        }
        let rejoins = |simulation: &Simulation, healthy: bool| -> u64 {
            let mut nodes = simulation.running();
            nodes.retain(|id| frozen.contains(id) != healthy);
            let nodes = nodes.iter().filter_map(|&id| simulation.node(id));
            nodes.map(|node| node.counters().rejoins).sum()
        };
        let before = rejoins(&simulation, true);
        simulation.run_for(time);
        let woken = simulation.now();
        let mut suspected = frozen.clone();
        suspected.retain(|&id| is_suspected(&simulation, id));
        simulation.run_until_condition(ROUND - time, Duration::from_millis(20), |simulation| {
            suspected.retain(|&id| {
                let still = is_suspected(simulation, id);
                if !still {
                    let time = simulation.now() - woken;
                    result.refuted.push(time.as_secs_f64());
                }
                still
            });
            suspected.is_empty()
        });
        result.missed += suspected.len();
        simulation.run_until(round);
        result.healthy_downs += rejoins(&simulation, true) - before;
    }
    result.downs = downs(&simulation);
    result
}

/// Whether any node considers a node suspect or down.
fn is_suspected(simulation: &Simulation, suspect: NodeId) -> bool {
    let address = simulation.address(suspect);
    let mut nodes = simulation.running().into_iter();
    nodes.any(|id| {
        let node = simulation.node(id);
        let state = node.and_then(|node| node.state_of(address));
        id != suspect && state.is_none_or(|(_, state)| state != State::Alive)
    })
}

/// Results of a set whose seeds are gone.
#[derive(Debug)]
pub struct SeedLoss {
    /// How often one of the others came back in another run.
    pub rejoins: u64,
    /// Time from the end of the seeds until the others agree, seconds.
    pub agreed: Option<f64>,
    /// Time from the start of a newcomer, whose seeds are one live node and the dead ones, until all agree.
    pub newcomer: Option<f64>,
    /// Whether all still agree some minutes later.
    pub stays: bool,
}

/// All seeds are killed; minutes later a node joins.
pub fn seed_loss(nodes: usize, seed: u64) -> SeedLoss {
    let mut simulation = settled(nodes, seed, false);
    simulation.run_for(Duration::from_secs(5));
    let live = any_live(&mut simulation);
    for id in 0..3 {
        simulation.kill(id);
    }
    let agreed = until_agreed(&mut simulation, WATCHED);
    simulation.run_for(Duration::from_secs(120));
    let role = super::role_of(0, nodes);
    simulation.start(role, &[0, 1, 2, live]);
    let newcomer = until_agreed(&mut simulation, WATCHED);
    simulation.run_for(Duration::from_secs(120));
    SeedLoss {
        rejoins: counted(&simulation, |counters| counters.rejoins),
        agreed,
        newcomer,
        stays: agrees(&simulation),
    }
}

/// A node that is not a seed.
fn any_live(simulation: &mut Simulation) -> NodeId {
    let mut others = simulation.running();
    others.retain(|&id| id > 2);
    others[simulation.random_below(others.len())]
}
