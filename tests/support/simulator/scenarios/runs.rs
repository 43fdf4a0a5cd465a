//! Runs of nodes: restarts at one address, flapping, two nodes at one address, wrong clocks.

use std::time::Duration;

use lbproxy::internals::gossip::Role;

use super::super::address_of;
use super::{
    NodeId, Simulation, agents, agrees, any_agent, counted, downs, known_by, role_of, sent,
    settled, until_agreed,
};

const DAY: u64 = 24 * 3_600 * 1_000;
const AGREED_WITHIN: Duration = Duration::from_secs(300);

/// Results of a member that is restarted many times.
#[derive(Debug)]
pub struct Restarts {
    /// Time from the last start until all agree, seconds.
    pub agreed: Option<f64>,
    /// Most members that a node knew, itself and those that are down included.
    pub members: usize,
    /// Most announcements that a node knew.
    pub records: usize,
    /// How often another node was thought down and came back.
    pub rejoins: u64,
    /// Bytes that a node sent per second.
    pub bytes: f64,
}

/// One agent is killed and started again at its address; it is away, and then there, for a random time within `pause`.
pub fn restarts(nodes: usize, seed: u64, times: usize, pause: (Duration, Duration)) -> Restarts {
    let mut simulation = settled(nodes, seed, false);
    simulation.run_for(Duration::from_secs(5));
    let agent = any_agent(&mut simulation);
    let (least, most) = pause;
    let mut result = Restarts {
        agreed: None,
        members: 0,
        records: 0,
        rejoins: 0,
        bytes: 0.0,
    };
    let (start, before) = (simulation.now(), sent(&simulation));
    for _ in 0..times {
        for alive in [false, true] {
            if alive {
                let epoch = simulation.wall_clock();
                simulation.restart(agent, Role::Agent, &[0, 1], epoch);
            } else {
                simulation.kill(agent);
            }
            let more = simulation.random_below((most - least).as_millis() as usize + 1);
            simulation.run_for(least + Duration::from_millis(more as u64));
        }
        measure(&simulation, &mut result);
    }
    let seconds = (simulation.now() - start).as_secs_f64();
    result.bytes = (sent(&simulation) - before) as f64 / seconds / nodes as f64;
    result.agreed = until_agreed(&mut simulation, AGREED_WITHIN);
    let own = simulation.node(agent).map(|node| node.counters().rejoins);
    result.rejoins = counted(&simulation, |counters| counters.rejoins) - own.unwrap_or_default();
    measure(&simulation, &mut result);
    result
}

fn measure(simulation: &Simulation, result: &mut Restarts) {
    for node in simulation
        .running()
        .iter()
        .filter_map(|&id| simulation.node(id))
    {
        let own = node.identity().key();
        let others = node.members().filter(|m| m.id().key() != own).count();
        result.members = result.members.max(others + 1);
        result.records = result.records.max(node.records().len());
    }
}

/// Results of two nodes at one address.
#[derive(Debug)]
pub struct Conflict {
    /// Time from the start of the second one until one of them gave way, seconds.
    pub settled: Option<f64>,
    /// Whether the second one gave way.
    pub younger: bool,
    /// Whether all others then know the first one.
    pub known: bool,
    /// How often one of the others was thought down and came back.
    pub rejoins: u64,
}

/// A node is started at the address of a running agent; a datagram to that address reaches either of them.
pub fn conflict(nodes: usize, seed: u64) -> Conflict {
    let mut simulation = settled(nodes, seed, false);
    // The first one no longer counts as new.
    simulation.run_for(Duration::from_secs(90));
    let older = any_agent(&mut simulation);
    let others: Vec<NodeId> = simulation.running();
    let (address, epoch) = (simulation.address(older), simulation.wall_clock());
    let younger = simulation.start_at(address, Role::Agent, &[0, 1], epoch);
    let silent = |simulation: &Simulation, id| {
        let node = simulation.node(id);
        node.is_some_and(|node| node.in_conflict())
    };
    let step = Duration::from_millis(100);
    let settled = simulation.run_until_condition(Duration::from_secs(120), step, |simulation| {
        silent(simulation, younger) || silent(simulation, older)
    });
    let gave_way = silent(&simulation, younger);
    // What is sent to the address still reaches either of them; the first one must cope with that.
    let known = simulation.run_until_condition(Duration::from_secs(60), step, |simulation| {
        known_by(simulation, &others, older)
    });
    let rejoins = |id| {
        simulation
            .node(id)
            .map_or(0, |node| node.counters().rejoins)
    };
    Conflict {
        settled: settled.map(|time| time.as_secs_f64()),
        younger: gave_way && !silent(&simulation, older),
        known: known.is_some(),
        rejoins: counted(&simulation, |c| c.rejoins) - rejoins(older) - rejoins(younger),
    }
}

/// Results of wrong wall clocks.
#[derive(Debug)]
pub struct Clocks {
    /// How often a node was thought down while all were healthy.
    pub false_downs: u64,
    /// Whether all agreed afterwards.
    pub agreed: bool,
    /// Time from a restart with a clock that was set back by a day until all know the new run, seconds.
    pub taken_over: Option<f64>,
    /// The same for a clock that was set ahead by a day.
    pub ahead: Option<f64>,
}

/// A third of the clocks is a day ahead and a third a day behind. Then one node is restarted with its clock set back,
/// and one with its clock set ahead.
pub fn clocks(nodes: usize, seed: u64) -> Clocks {
    let mut simulation = Simulation::new(seed);
    for id in 0..nodes {
        let seeds: Vec<NodeId> = (0..id.min(3)).collect();
        let epoch = simulation.wall_clock() + DAY - DAY * (id as u64 % 3);
        simulation.start_at(address_of(id), role_of(id, nodes), &seeds, epoch);
    }
    simulation.acquaint(false);
    simulation.run_for(Duration::from_secs(60));
    let mut result = Clocks {
        false_downs: downs(&simulation),
        agreed: agrees(&simulation),
        taken_over: None,
        ahead: None,
    };
    let agents = agents(&simulation);
    let world = simulation.wall_clock();
    result.taken_over = restart(&mut simulation, agents[0], world - 2 * DAY);
    let world = simulation.wall_clock();
    result.ahead = restart(&mut simulation, agents[1], world + 2 * DAY);
    result
}

/// Time until all know the new run and none the old one, seconds.
fn restart(simulation: &mut Simulation, agent: NodeId, epoch: u64) -> Option<f64> {
    simulation.restart(agent, Role::Agent, &[0, 1], epoch);
    until_agreed(simulation, Duration::from_secs(60))
}
