//! Scenarios: runs of the simulator, each of which returns what it has measured. The tests and the benchmark compare
//! the figures with the demands in [`report`].
//!
//! A scenario takes the number of nodes and a seed, and returns the same result for the same two.

pub mod faults;
pub mod hostile;
pub mod life;
pub mod report;
pub mod runs;
pub mod starts;

use std::time::Duration;

use foca::State;
use lbproxy::internals::gossip::{
    GossipCounters, Node, RecordKey, Role, ServiceState, cluster_hash, pack_address,
};

use super::{NodeId, Simulation};

/// Most nodes that are asked what they see.
const MAX_OBSERVERS: usize = 100;

/// How many of `nodes` are proxies: a tenth, but 2 to 20.
pub fn proxies_of(nodes: usize) -> usize {
    (nodes / 10).clamp(2, 20)
}

/// Role of the node with this number.
fn role_of(number: usize, nodes: usize) -> Role {
    if number < proxies_of(nodes) {
        Role::Proxy
    } else {
        Role::Agent
    }
}

/// A set of `nodes` that have been together for some time, proxies first. With `contacts` each has heard every other.
pub fn settled(nodes: usize, seed: u64, contacts: bool) -> Simulation {
    let mut simulation = Simulation::new(seed);
    populate(&mut simulation, nodes);
    simulation.acquaint(contacts);
    simulation
}

/// Starts `nodes` that do not know each other yet.
fn populate(simulation: &mut Simulation, nodes: usize) {
    for id in 0..nodes {
        // Some seeds, so that nothing depends on a single one.
        let seeds: Vec<NodeId> = (0..id.min(3)).collect();
        simulation.start(role_of(id, nodes), &seeds);
    }
}

/// How often running nodes have thought others down.
pub fn downs(simulation: &Simulation) -> u64 {
    counted(simulation, |counters| counters.downs)
}

/// The sum of a counter over all running nodes.
fn counted(simulation: &Simulation, of: impl Fn(&GossipCounters) -> u64) -> u64 {
    let nodes = simulation.running().into_iter();
    nodes
        .filter_map(|id| simulation.node(id))
        .map(|node| of(node.counters()))
        .sum()
}

/// Bytes that all running nodes have sent.
fn sent(simulation: &Simulation) -> u64 {
    let running = simulation.running().into_iter();
    running.map(|id| simulation.traffic(id).sent).sum()
}

/// Whether every running node knows exactly the running ones as active, each in its current run, and every proxy knows
/// the announcement of each agent's current run. O(nodes²) if so.
pub fn agrees(simulation: &Simulation) -> bool {
    all_agree(simulation, &simulation.running())
}

/// The same for a part of the running nodes.
fn all_agree(simulation: &Simulation, among: &[NodeId]) -> bool {
    let nodes = || among.iter().filter_map(|&id| simulation.node(id));
    if nodes().any(|node| node.active() != among.len()) {
        return false;
    }
    let mut runs: Vec<_> = nodes().map(|node| node.identity()).collect();
    runs.sort_unstable();
    let knows_all = |node: &Node| {
        let own = node.identity();
        node.members()
            .filter(|member| member.state() != State::Down && *member.id() != own)
            .all(|member| runs.binary_search(member.id()).is_ok())
    };
    let has_records = |node: &Node| {
        let mut agents = runs.iter().filter(|run| run.role() == Role::Agent);
        node.identity().role() == Role::Agent
            || agents.all(|run| {
                let known = node.records().edition(&record_key(run.address()));
                known.is_some_and(|known| known.epoch == run.epoch())
            })
    };
    nodes().all(|node| knows_all(node) && has_records(node))
}

/// Seconds until [`agrees`]; `None` if it takes longer than `most`.
fn until_agreed(simulation: &mut Simulation, most: Duration) -> Option<f64> {
    let step = Duration::from_millis(100);
    let time = simulation.run_until_condition(most, step, |simulation| agrees(simulation));
    time.map(|time| time.as_secs_f64())
}

/// Whether all of `who` know a node as active in its current run.
fn known_by(simulation: &Simulation, who: &[NodeId], node: NodeId) -> bool {
    let Some(run) = simulation.node(node).map(|node| node.identity()) else {
        return false;
    };
    who.iter().all(|&id| {
        let state = simulation
            .node(id)
            .and_then(|node| node.state_of(run.address()));
        id == node
            || matches!(state, Some((epoch, state)) if epoch == run.epoch() && state != State::Down)
    })
}

fn agents(simulation: &Simulation) -> Vec<NodeId> {
    with_role(simulation, Role::Agent)
}

fn with_role(simulation: &Simulation, role: Role) -> Vec<NodeId> {
    let mut all = simulation.running();
    all.retain(|&id| {
        simulation
            .node(id)
            .is_some_and(|node| node.identity().role() == role)
    });
    all
}

fn any_agent(simulation: &mut Simulation) -> NodeId {
    let agents = agents(simulation);
    let index = simulation.random_below(agents.len());
    agents[index]
}

/// Some of the running nodes except `but`.
fn observers(simulation: &mut Simulation, but: NodeId) -> Vec<NodeId> {
    let mut running = simulation.running();
    running.retain(|&id| id != but);
    while running.len() > MAX_OBSERVERS {
        let index = simulation.random_below(running.len());
        running.swap_remove(index);
    }
    running
}

/// When `condition` first holds for each of `who`, in seconds from now; it is checked every `step`. Those for which it
/// does not hold within `most` are counted as missed.
fn times(
    simulation: &mut Simulation,
    who: &[NodeId],
    (most, step): (Duration, Duration),
    condition: impl Fn(&Simulation, NodeId) -> bool,
    missed: &mut usize,
) -> Vec<f64> {
    let start = simulation.now();
    let mut waiting = who.to_vec();
    let mut found = Vec::new();
    simulation.run_until_condition(most, step, |simulation| {
        waiting.retain(|&id| {
            let so = simulation.node(id).is_some() && condition(simulation, id);
            if so {
                found.push((simulation.now() - start).as_secs_f64());
            }
            !so
        });
        waiting.is_empty()
    });
    *missed += waiting.len();
    found
}

fn record_key(address: std::net::SocketAddr) -> RecordKey {
    RecordKey {
        member: pack_address(address),
        cluster: cluster_hash("web"),
    }
}

/// What a proxy knows of an agent's service.
fn state_at(simulation: &Simulation, proxy: NodeId, agent: NodeId) -> Option<(ServiceState, u16)> {
    let key = record_key(simulation.address(agent));
    let stored = simulation.node(proxy)?.records().get(&key)?;
    let record = &stored.announced.record;
    Some((record.state, record.weight))
}
