//! What the peer set is asked to do, as runs of the simulator, and what is measured. The tests judge the figures.

use std::time::Duration;

use foca::State;

use super::{NodeId, Simulation, record};
use crate::gossip::identity::{Role, pack_address};
use crate::gossip::record::ServiceState;
use crate::gossip::records::{RecordKey, cluster_hash};

/// Nodes that are asked what they see, at the most.
const OBSERVERS: usize = 100;

/// How many of `nodes` are proxies: a tenth, 2 to 20.
pub fn proxies_of(nodes: usize) -> usize {
    (nodes / 10).clamp(2, 20)
}

/// A set of `nodes` that have been together for long: proxies first, then agents.
pub fn settled(nodes: usize, seed: u64) -> Simulation {
    let mut simulation = Simulation::new(seed);
    for id in 0..nodes {
        let role = if id < proxies_of(nodes) {
            Role::Proxy
        } else {
            Role::Agent
        };
        // Some seeds, so that nothing hangs on one.
        let seeds: Vec<NodeId> = (0..id.min(3)).collect();
        simulation.start(role, &seeds);
    }
    simulation.acquaint();
    simulation
}

/// What one life of a set was like; times in seconds.
#[derive(Debug, Default)]
pub struct Life {
    /// Bytes that a node sends in a second when nothing happens.
    pub idle: f64,
    /// From a kill to each observer's Down.
    pub detection: Vec<f64>,
    /// From a change of a record to each proxy.
    pub change: Vec<f64>,
    /// From an order to drain, and one to leave, to each proxy.
    pub drain: Vec<f64>,
    /// From the start of a newcomer until it has all members and, a proxy, all records.
    pub join: Vec<f64>,
    /// From the start of a newcomer until each observer knows it.
    pub known: Vec<f64>,
    /// Observers or proxies that had not seen something in time.
    pub missed: usize,
    /// Times that a healthy node was thought down by another.
    pub false_downs: u64,
    /// Hours, of all nodes together, in which that could have happened.
    pub node_hours: f64,
}

impl Life {
    /// Adds another life.
    pub fn merge(&mut self, other: Self) {
        self.idle = if self.idle == 0.0 {
            other.idle
        } else {
            self.idle.max(other.idle)
        };
        self.detection.extend(other.detection);
        self.change.extend(other.change);
        self.drain.extend(other.drain);
        self.join.extend(other.join);
        self.known.extend(other.known);
        self.missed += other.missed;
        self.false_downs += other.false_downs;
        self.node_hours += other.node_hours;
    }
}

/// The value under which a share of the samples lies; 0 without samples.
pub fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let place = (share * sorted.len() as f64).ceil() as usize;
    sorted
        .get(place.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// One life: rest, a changed record, a drain, a newcomer of each role, an agent that leaves, one that is killed.
pub fn life(nodes: usize, seed: u64, rest: Duration) -> Life {
    let mut simulation = settled(nodes, seed);
    simulation.run_for(Duration::from_secs(5));
    let mut life = Life::default();
    idle(&mut simulation, rest, &mut life);
    change_record(&mut simulation, &mut life);
    drain(&mut simulation, &mut life);
    for role in [Role::Agent, Role::Proxy] {
        join(&mut simulation, role, &mut life);
    }
    leave(&mut simulation, &mut life);
    kill(&mut simulation, &mut life);
    life
}

/// Times that running nodes have thought others down.
pub fn downs(simulation: &Simulation) -> u64 {
    let nodes = simulation.running().into_iter();
    nodes
        .filter_map(|id| simulation.node(id))
        .map(|node| node.counters().downs)
        .sum()
}

fn idle(simulation: &mut Simulation, rest: Duration, life: &mut Life) {
    let running = simulation.running();
    let sent = |simulation: &Simulation| -> u64 {
        running.iter().map(|&id| simulation.traffic(id).sent).sum()
    };
    let (sent_before, downs_before) = (sent(simulation), downs(simulation));
    simulation.run_for(rest);
    let seconds = rest.as_secs_f64();
    let nodes = running.len() as f64;
    life.idle = (sent(simulation) - sent_before) as f64 / seconds / nodes;
    life.false_downs += downs(simulation) - downs_before;
    life.node_hours += nodes * seconds / 3_600.0;
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
    let place = simulation.random_below(agents.len());
    agents[place]
}

/// Some of the running nodes.
fn observers(simulation: &mut Simulation, but: NodeId) -> Vec<NodeId> {
    let mut running = simulation.running();
    running.retain(|&id| id != but);
    while running.len() > OBSERVERS {
        let place = simulation.random_below(running.len());
        running.swap_remove(place);
    }
    running
}

/// When each of `who` first finds that it `is_so`: seconds from now; those that do not within `most` are missed.
fn times(
    simulation: &mut Simulation,
    who: &[NodeId],
    most: Duration,
    is_so: impl Fn(&Simulation, NodeId) -> bool,
    missed: &mut usize,
) -> Vec<f64> {
    let start = simulation.now();
    let mut waiting = who.to_vec();
    let mut found = Vec::new();
    simulation.run_until_so(most, Duration::from_millis(20), |simulation| {
        waiting.retain(|&id| {
            let so = simulation.node(id).is_some() && is_so(simulation, id);
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

fn state_at(simulation: &Simulation, proxy: NodeId, agent: NodeId) -> Option<(ServiceState, u16)> {
    let key = RecordKey {
        member: pack_address(simulation.address(agent)),
        cluster: cluster_hash("web"),
    };
    let stored = simulation.node(proxy)?.records().get(&key)?;
    let record = &stored.announced.record;
    Some((record.state, record.weight))
}

/// Until every proxy has heard the agent announce this; 35 s at the most.
fn announce(
    simulation: &mut Simulation,
    agent: NodeId,
    weight: u16,
    state: ServiceState,
    missed: &mut usize,
) -> Vec<f64> {
    let address = simulation.address(agent);
    simulation.with(agent, |node, now| {
        node.announce(record(address, weight, state), now)
            .expect("the simulator's record is within the limits");
    });
    let proxies = with_role(simulation, Role::Proxy);
    times(
        simulation,
        &proxies,
        Duration::from_secs(35),
        |simulation, proxy| state_at(simulation, proxy, agent) == Some((state, weight)),
        missed,
    )
}

fn change_record(simulation: &mut Simulation, life: &mut Life) {
    let agent = any_agent(simulation);
    let weight = 2 + simulation.random_below(900) as u16;
    let times = announce(
        simulation,
        agent,
        weight,
        ServiceState::Ready,
        &mut life.missed,
    );
    life.change.extend(times);
}

fn drain(simulation: &mut Simulation, life: &mut Life) {
    let agent = any_agent(simulation);
    let times = announce(
        simulation,
        agent,
        1,
        ServiceState::Draining,
        &mut life.missed,
    );
    life.drain.extend(times);
}

fn join(simulation: &mut Simulation, role: Role, life: &mut Life) {
    let known = simulation.running().len();
    let newcomer = simulation.start(role, &[0, 1]);
    let records = agents(simulation).len();
    let started = simulation.now();
    let has_all = simulation.run_until_so(
        Duration::from_secs(120),
        Duration::from_millis(20),
        |simulation| {
            simulation.node(newcomer).is_some_and(|node| {
                node.active() > known && (role == Role::Agent || node.records().len() >= records)
            })
        },
    );
    match has_all {
        Some(time) => life.join.push(time.as_secs_f64()),
        None => life.missed += 1,
    }
    let passed = (simulation.now() - started).as_secs_f64();
    let observers = observers(simulation, newcomer);
    let address = simulation.address(newcomer);
    let times = times(
        simulation,
        &observers,
        Duration::from_secs(60),
        |simulation, id| {
            let node = simulation.node(id);
            node.is_some_and(|node| node.state_of(address).is_some())
        },
        &mut life.missed,
    );
    life.known.extend(times.iter().map(|time| time + passed));
}

fn leave(simulation: &mut Simulation, life: &mut Life) {
    let agent = any_agent(simulation);
    simulation.with(agent, |node, now| node.leave(now));
    let start = simulation.now();
    let proxies = with_role(simulation, Role::Proxy);
    let times = times(
        simulation,
        &proxies,
        Duration::from_secs(35),
        |simulation, proxy| {
            // The driver stops a second after the word.
            matches!(
                state_at(simulation, proxy, agent),
                Some((ServiceState::Left, _))
            )
        },
        &mut life.missed,
    );
    life.drain.extend(times);
    simulation.run_until(start + Duration::from_secs(1).max(simulation.now() - start));
    simulation.kill(agent);
    simulation.run_for(Duration::from_secs(2));
}

fn kill(simulation: &mut Simulation, life: &mut Life) {
    let victim = any_agent(simulation);
    let address = simulation.address(victim);
    simulation.kill(victim);
    let observers = observers(simulation, victim);
    let times = times(
        simulation,
        &observers,
        Duration::from_secs(60),
        |simulation, id| {
            let node = simulation.node(id);
            let state = node.and_then(|node| node.state_of(address));
            state.is_none_or(|(_, state)| state == State::Down)
        },
        &mut life.missed,
    );
    life.detection.extend(times);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn try_it() {
        for nodes in [10, 100, 1000] {
            let start = std::time::Instant::now();
            let mut whole = Life::default();
            let seeds = if nodes == 10 {
                20
            } else if nodes == 100 {
                4
            } else {
                1
            };
            for seed in 0..seeds {
                whole.merge(life(nodes, seed, Duration::from_secs(20)));
            }
            println!(
                "{nodes}: idle {:.0} detect {:.2} {:.2} change {:.2} {:.2} drain {:.2} {:.2} join {:.2} {:.2} known {:.2} {:.2} missed {} false {} in {:.2} h; {:?}",
                whole.idle,
                quantile(&whole.detection, 0.5),
                quantile(&whole.detection, 0.99),
                quantile(&whole.change, 0.99),
                quantile(&whole.change, 1.0),
                quantile(&whole.drain, 0.99),
                quantile(&whole.drain, 1.0),
                quantile(&whole.join, 0.99),
                quantile(&whole.join, 1.0),
                quantile(&whole.known, 0.99),
                quantile(&whole.known, 1.0),
                whole.missed,
                whole.false_downs,
                whole.node_hours,
                start.elapsed(),
            );
        }
    }
}
