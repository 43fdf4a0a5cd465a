//! How sets start, and what operators do to them: all at once, in any order, key rotation, two sets in one network.

use std::sync::Arc;
use std::time::Duration;

use lbproxy::internals::gossip::{Dropped, Keyring, OpenError, Role, SecretKey};

use super::super::LABEL;
use super::{
    NodeId, Simulation, agents, all_agree, counted, downs, populate, role_of, settled,
    until_agreed, with_role,
};

const AGREED_WITHIN: Duration = Duration::from_secs(300);
const STEP: Duration = Duration::from_millis(50);

/// Results of a set that has just started.
#[derive(Debug)]
pub struct Start {
    /// Time until every proxy has all members and all announcements, seconds.
    pub proxies: Option<f64>,
    /// Time until all members agree, seconds.
    pub all: Option<f64>,
}

/// Three nodes run; all others start at the same moment.
pub fn mass_join(nodes: usize, seed: u64) -> Start {
    let mut simulation = Simulation::new(seed);
    populate(&mut simulation, 3.min(nodes));
    simulation.acquaint(false);
    simulation.run_for(Duration::from_secs(5));
    for id in 3..nodes {
        simulation.start(role_of(id, nodes), &[0, 1, 2]);
    }
    wait(&mut simulation)
}

/// All nodes are killed, and start again within a second with three seeds.
pub fn mass_restart(nodes: usize, seed: u64) -> Start {
    let mut simulation = settled(nodes, seed, false);
    simulation.run_for(Duration::from_secs(30));
    for id in 0..nodes {
        simulation.kill(id);
    }
    simulation.run_for(Duration::from_secs(1));
    let second = Duration::from_secs(1);
    for id in 0..nodes {
        let epoch = simulation.wall_clock();
        simulation.restart(id, role_of(id, nodes), &[0, 1, 2], epoch);
        simulation.run_for(second / nodes as u32);
    }
    wait(&mut simulation)
}

/// Only proxies start, all at once.
pub fn proxies_only(nodes: usize, seed: u64) -> Start {
    let mut simulation = Simulation::new(seed);
    for _ in 0..nodes {
        simulation.start(Role::Proxy, &[0]);
    }
    wait(&mut simulation)
}

/// Agents run for some time; then the first proxy starts, and one of them is its seed.
pub fn proxy_last(nodes: usize, seed: u64) -> Start {
    let mut simulation = Simulation::new(seed);
    simulation.start(Role::Agent, &[]);
    for _ in 2..nodes {
        simulation.start(Role::Agent, &[0]);
    }
    simulation.acquaint(false);
    simulation.run_for(Duration::from_secs(60));
    let seed = simulation.random_below(nodes - 1);
    simulation.start(Role::Proxy, &[seed]);
    wait(&mut simulation)
}

fn wait(simulation: &mut Simulation) -> Start {
    let (members, records) = (simulation.running().len(), agents(simulation).len());
    let proxies = with_role(simulation, Role::Proxy);
    let time = simulation.run_until_condition(AGREED_WITHIN, STEP, |simulation| {
        let mut proxies = proxies.iter().filter_map(|&id| simulation.node(id));
        proxies.all(|node| node.active() == members && node.records().len() == records)
    });
    let time = time.map(|time| time.as_secs_f64());
    let rest = until_agreed(simulation, AGREED_WITHIN);
    Start {
        proxies: time,
        all: rest.map(|rest| rest + time.unwrap_or_default()),
    }
}

/// Results of agents that are replaced by others at new addresses.
#[derive(Debug)]
pub struct Deploy {
    /// Push-pulls per minute that others start with a seed, before.
    pub rest: f64,
    /// The same afterwards.
    pub after: f64,
    /// Most members that are gone and that a node still remembers an hour later.
    pub remembered: usize,
}

/// The seeds are proxies that stay. All agents are replaced twice, one after the other, so that more are gone than
/// there are; the old ones leave `in_order` or are killed. The killed ones are looked for in the first hour only.
pub fn deploy(nodes: usize, seed: u64, in_order: bool) -> Deploy {
    const SEEDS: [NodeId; 2] = [0, 1];
    let watched = Duration::from_secs(600);
    let asked = |simulation: &mut Simulation| {
        let count = |simulation: &Simulation| -> u64 {
            SEEDS.map(|id| simulation.traffic(id).asked).iter().sum()
        };
        let before = count(simulation);
        simulation.run_for(watched);
        (count(simulation) - before) as f64 * 60.0 / watched.as_secs_f64()
    };
    let mut simulation = Simulation::new(seed);
    for id in 0..nodes {
        simulation.start(role_of(id, nodes), &SEEDS[..id.min(2)]);
    }
    simulation.acquaint(true);
    simulation.run_for(Duration::from_secs(60));
    let rest = asked(&mut simulation);
    let mut old = agents(&simulation);
    for place in 0..2 * old.len() {
        old.push(simulation.start(Role::Agent, &SEEDS));
        let old = old[place];
        simulation.run_for(Duration::from_secs(1));
        if in_order {
            simulation.with(old, |node, now| node.leave(now));
            simulation.run_for(Duration::from_secs(1));
        }
        simulation.kill(old);
    }
    let hour = Duration::from_secs(3_600 + 60);
    let start = simulation.now();
    if in_order {
        simulation.run_for(Duration::from_secs(60));
    } else {
        simulation.run_for(hour);
    }
    let after = asked(&mut simulation);
    simulation.run_until(simulation.now().max(start + hour));
    let running = simulation.running();
    let known = running.iter().filter_map(|&id| simulation.node(id));
    let known = known.map(|node| node.members().count()).max();
    Deploy {
        rest,
        after,
        // A node does not count itself.
        remembered: (known.unwrap_or_default() + 1).saturating_sub(running.len()),
    }
}

/// Results of a rotation of keys.
#[derive(Debug)]
pub struct KeyRotation {
    /// How often a node was thought down.
    pub downs: u64,
    /// Packets that a node could not open.
    pub unopened: u64,
    /// Push-pulls that failed.
    pub failed: u64,
    /// Whether all agreed at the end.
    pub agreed: bool,
}

/// The key is changed twice. On each node, at different moments, the new one is added, then used, then the old one is
/// removed.
pub fn rotation(nodes: usize, seed: u64) -> KeyRotation {
    let mut simulation = Simulation::new(seed);
    let keys: Vec<SecretKey> = (0..3).map(|_| simulation.new_key()).collect();
    simulation.keyring = ring(&keys[..1]);
    populate(&mut simulation, nodes);
    simulation.acquaint(false);
    simulation.run_for(Duration::from_secs(5));
    for pair in keys.windows(2) {
        let (old, new) = (&pair[0], &pair[1]);
        for keys in [vec![old, new], vec![new, old], vec![new]] {
            let keys: Vec<SecretKey> = keys.into_iter().cloned().collect();
            let ring = ring(&keys);
            let mut order = simulation.running();
            while !order.is_empty() {
                let index = simulation.random_below(order.len());
                let id = order.swap_remove(index);
                simulation.with(id, |node, _| node.set_keyring(Arc::clone(&ring)));
                simulation.run_for(Duration::from_secs(20) / nodes as u32);
            }
        }
    }
    let refused = |refusal: OpenError| {
        counted(&simulation, |counters| {
            counters.dropped(Dropped::Seal(refusal))
        })
    };
    KeyRotation {
        downs: downs(&simulation),
        unopened: OpenError::ALL.into_iter().map(refused).sum(),
        failed: counted(&simulation, |counters| counters.push_pulls_failed),
        agreed: super::agrees(&simulation),
    }
}

fn ring(keys: &[SecretKey]) -> Arc<Keyring> {
    Arc::new(Keyring::new(keys, LABEL, false))
}

/// Results of two sets in one network whose nodes are given each other's addresses.
#[derive(Debug)]
pub struct TwoSets {
    /// Whether each knows only its own members.
    pub apart: bool,
    /// Packets that were refused because of their key.
    pub refused: u64,
}

/// Runs a second set, with another key or another label, whose nodes also have seeds of the first one.
pub fn two_sets(nodes: usize, seed: u64, other_key: bool) -> TwoSets {
    let mut simulation = Simulation::new(seed);
    let key = simulation.new_key();
    let other = simulation.new_key();
    let mut sets: [Vec<NodeId>; 2] = [Vec::new(), Vec::new()];
    for (set, members) in sets.iter_mut().enumerate() {
        simulation.keyring = match (set, other_key) {
            (0, _) => ring(std::slice::from_ref(&key)),
            (_, true) => ring(std::slice::from_ref(&other)),
            (_, false) => Arc::new(Keyring::new(std::slice::from_ref(&key), "another", false)),
        };
        for place in 0..nodes {
            // The first node of the first set, and the first one of its own set.
            let seeds = [(set + place > 0).then_some(0), members.first().copied()];
            let seeds: Vec<NodeId> = seeds.into_iter().flatten().collect();
            members.push(simulation.start(role_of(place, nodes), &seeds));
        }
    }
    simulation.run_for(Duration::from_secs(180));
    TwoSets {
        apart: sets.iter().all(|set| all_agree(&simulation, set)),
        refused: counted(&simulation, |counters| {
            counters.dropped(Dropped::Seal(OpenError::UnknownKey))
        }),
    }
}
