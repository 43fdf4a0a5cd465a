//! Nodes that begin again: restarts at one address, flapping, two at one address, clocks that are wrong.

use std::time::Duration;

use lbproxy::internals::gossip::Role;

use super::super::address_of;
use super::{
    NodeId, Simulation, agents, agrees, any_agent, counted, downs, known_by, role_of, sent,
    settled, until_agreed,
};

const DAY: u64 = 24 * 3_600 * 1_000;
const AGREED_WITHIN: Duration = Duration::from_secs(300);

/// A member that began again many times.
#[derive(Debug)]
pub struct Restarts {
    /// From the last start until all agree, seconds.
    pub agreed: Option<f64>,
    /// Members that a node knew at the most, down ones and itself included.
    pub members: usize,
    /// Announcements that a node knew at the most.
    pub records: usize,
    /// Times that another node was thought down and came back.
    pub rejoins: u64,
    /// Bytes that a node sent in a second.
    pub bytes: f64,
}

/// One agent is killed and started again at its address: it is away and there for a random time between `pause`.
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
                let epoch = simulation.world();
                simulation.restart(agent, Role::Agent, &[0, 1], epoch);
            } else {
                simulation.kill(agent);
            }
            let more = simulation.random_below((most - least).as_millis() as usize + 1);
            simulation.run_for(least + Duration::from_millis(more as u64));
        }
        look(&simulation, &mut result);
    }
    let seconds = (simulation.now() - start).as_secs_f64();
    result.bytes = (sent(&simulation) - before) as f64 / seconds / nodes as f64;
    result.agreed = until_agreed(&mut simulation, AGREED_WITHIN);
    let own = simulation.node(agent).map(|node| node.counters().rejoins);
    result.rejoins = counted(&simulation, |counters| counters.rejoins) - own.unwrap_or_default();
    look(&simulation, &mut result);
    result
}

fn look(simulation: &Simulation, result: &mut Restarts) {
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

/// Two nodes at one address.
#[derive(Debug)]
pub struct Conflict {
    /// From the start of the second one until one of both gave way, seconds.
    pub settled: Option<f64>,
    /// Whether that was the second one.
    pub younger: bool,
    /// Whether all others then have the first one as a member.
    pub known: bool,
    /// Times that one of the others was thought down and came back.
    pub rejoins: u64,
}

/// Somebody is started at the address of an agent that is there; a datagram to it reaches either of both.
pub fn conflict(nodes: usize, seed: u64) -> Conflict {
    let mut simulation = settled(nodes, seed, false);
    // The first one is no newcomer any more.
    simulation.run_for(Duration::from_secs(90));
    let older = any_agent(&mut simulation);
    let others: Vec<NodeId> = simulation.running();
    let (address, epoch) = (simulation.address(older), simulation.world());
    let younger = simulation.start_at(address, Role::Agent, &[0, 1], epoch);
    let silent = |simulation: &Simulation, id| {
        let node = simulation.node(id);
        node.is_some_and(|node| node.in_conflict())
    };
    let step = Duration::from_millis(100);
    let settled = simulation.run_until_so(Duration::from_secs(120), step, |simulation| {
        silent(simulation, younger) || silent(simulation, older)
    });
    let gave_way = silent(&simulation, younger);
    // What is sent to the address still reaches either: the first one must stand that.
    let known = simulation.run_until_so(Duration::from_secs(60), step, |simulation| {
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

/// Clocks of the world that are wrong.
#[derive(Debug)]
pub struct Clocks {
    /// Times that a node was thought down while all were healthy.
    pub false_downs: u64,
    /// Whether all agreed after that.
    pub agreed: bool,
    /// From a restart with a clock that was set back a day until all know the new run, seconds.
    pub taken_over: Option<f64>,
    /// The same with a clock that was set ahead a day.
    pub ahead: Option<f64>,
}

/// Every third node's clock is a day ahead, every third one's a day behind; then one is restarted with its clock set
/// back, and one with its clock set ahead.
pub fn clocks(nodes: usize, seed: u64) -> Clocks {
    let mut simulation = Simulation::new(seed);
    for id in 0..nodes {
        let seeds: Vec<NodeId> = (0..id.min(3)).collect();
        let epoch = simulation.world() + DAY - DAY * (id as u64 % 3);
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
    let world = simulation.world();
    result.taken_over = restart(&mut simulation, agents[0], world - 2 * DAY);
    let world = simulation.world();
    result.ahead = restart(&mut simulation, agents[1], world + 2 * DAY);
    result
}

/// Until all know the new run, and none has the old one: seconds.
fn restart(simulation: &mut Simulation, agent: NodeId, epoch: u64) -> Option<f64> {
    simulation.restart(agent, Role::Agent, &[0, 1], epoch);
    until_agreed(simulation, Duration::from_secs(60))
}
