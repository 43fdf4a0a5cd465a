//! Everyday life of a set: it rests, records change, members drain, join, leave and are killed.

use std::time::Duration;

use foca::State;
use lbproxy::internals::gossip::{Role, ServiceState};

use super::super::{NodeId, Simulation, record};
use super::{agents, any_agent, downs, observers, sent, settled, state_at, times, with_role};

/// What has not arrived by then counts as missed: the longest interval of push-pulls.
const MISSED_AFTER: Duration = Duration::from_secs(35);
/// How often observers are checked.
const STEP: Duration = Duration::from_millis(20);

/// Results of one life of a set; times are in seconds.
#[derive(Debug, Default, Clone)]
pub struct Life {
    /// Bytes that a node sent per second at rest, just after the start: with greetings and first contacts.
    pub rest: Vec<f64>,
    /// Time from a kill until each observer finds the node down.
    pub detection: Vec<f64>,
    /// Time from a change of a record until each proxy has it.
    pub change: Vec<f64>,
    /// Time from a drain, and from a leave, until each proxy knows it.
    pub drain: Vec<f64>,
    /// Time from the start of a newcomer until it has all members, and as a proxy all records.
    pub join: Vec<f64>,
    /// Time from the start of a newcomer until each observer knows it.
    pub known: Vec<f64>,
    /// Observers or proxies that did not see something in time.
    pub missed: usize,
    /// How often a healthy node was thought down by another.
    pub false_downs: u64,
    /// Hours in which that could have happened, summed over all nodes.
    pub node_hours: f64,
}

impl Life {
    /// Adds another life.
    pub fn merge(&mut self, other: Self) {
        self.rest.extend(other.rest);
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

/// One life: rest, a changed record, a drain, a newcomer of each role, an agent that leaves, one that is killed.
pub fn life(nodes: usize, seed: u64, rest: Duration, loss: f64) -> Life {
    let mut simulation = settled(nodes, seed, false);
    simulation.network.loss = loss;
    let mut life = Life::default();
    let start = simulation.now();
    simulation.run_for(rest);
    let bytes = sent(&simulation) as f64 / rest.as_secs_f64();
    life.rest.push(bytes / nodes as f64);
    change_record(&mut simulation, &mut life);
    drain(&mut simulation, &mut life);
    for role in [Role::Agent, Role::Proxy] {
        join(&mut simulation, role, &mut life);
    }
    // Until here all nodes are healthy.
    life.false_downs = downs(&simulation);
    let passed = (simulation.now() - start).as_secs_f64();
    life.node_hours = nodes as f64 * passed / 3_600.0;
    leave(&mut simulation, &mut life);
    kill(&mut simulation, &mut life);
    life
}

/// Bytes that a node sends per second when nothing happens, IP, UDP and TCP headers included. With `warm` after the
/// first contacts, in which each node is challenged by every other.
pub fn idle(nodes: usize, seed: u64, time: Duration, warm: bool) -> f64 {
    let mut simulation = settled(nodes, seed, warm);
    // First the timers of all nodes spread out.
    simulation.run_for(Duration::from_secs(5));
    let before = sent(&simulation);
    simulation.run_for(time);
    (sent(&simulation) - before) as f64 / time.as_secs_f64() / nodes as f64
}

/// Times until every proxy has this announcement of the agent; at most 35 s.
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
        (MISSED_AFTER, STEP),
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
    let has_all = simulation.run_until_condition(Duration::from_secs(120), STEP, |simulation| {
        simulation.node(newcomer).is_some_and(|node| {
            node.active() > known && (role == Role::Agent || node.records().len() >= records)
        })
    });
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
        (Duration::from_secs(60), STEP),
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
        (MISSED_AFTER, STEP),
        |simulation, proxy| {
            // The driver stops a second after the announcement.
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
        (Duration::from_secs(60), STEP * 5),
        |simulation, id| {
            let node = simulation.node(id);
            let state = node.and_then(|node| node.state_of(address));
            state.is_none_or(|(_, state)| state == State::Down)
        },
        &mut life.missed,
    );
    life.detection.extend(times);
}
