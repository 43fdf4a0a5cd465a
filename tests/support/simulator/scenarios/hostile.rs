//! Attacks on a set: junk, replayed datagrams, invented members, peers that break the protocol.

use std::sync::Arc;
use std::time::Duration;

use foca::{Member, State};
use lbproxy::internals::gossip::{
    AgentCredential, Authority, DATAGRAM, Dropped, Identity, Keyring, Limits, MAX_DATAGRAM,
    MAX_FRAME, Node, OperatorKey, PushPull, Role, ServiceState, mint,
};

use super::super::{LABEL, record};
use super::{
    NodeId, Simulation, agents, agrees, any_agent, counted, downs, known_by, populate, proxies_of,
    record_key, settled, state_at, until_agreed, with_role,
};

/// Results of an attacker without the key.
#[derive(Debug)]
pub struct Junk {
    /// Junk datagrams that were sent to members.
    pub injected: u64,
    /// Datagrams that members dropped because of their seal or their length.
    pub dropped: u64,
    /// How often a node was thought down.
    pub downs: u64,
    /// Challenges that members sent meanwhile, beyond those that they would have sent anyway.
    pub answered: u64,
    /// Whether all agreed at the end.
    pub agreed: bool,
}

/// For 10 s each node receives 200 junk datagrams a second: random bytes, too long, cut short, changed, not sealed,
/// sealed with another key, and sealed for another label.
pub fn junk(nodes: usize, seed: u64) -> Junk {
    let mut simulation = Simulation::new(seed);
    let (key, other) = (simulation.new_key(), simulation.new_key());
    simulation.keyring = Arc::new(Keyring::new(std::slice::from_ref(&key), LABEL, false));
    populate(&mut simulation, nodes);
    simulation.acquaint(true);
    simulation.start_tape();
    simulation.run_for(Duration::from_secs(5));
    let heard = simulation.take_tape();
    let rings = [
        Keyring::new(&[], LABEL, true),
        Keyring::new(&[other], LABEL, false),
        Keyring::new(&[key], "another", false),
    ];
    let challenges = counted(&simulation, |counters| counters.challenges);
    let mut injected = 0;
    for _ in 0..500 {
        for to in 0..nodes {
            for _ in 0..4 {
                let bytes = one_of(&mut simulation, &heard, &rings);
                simulation.inject(to, bytes);
                injected += 1;
            }
        }
        simulation.run_for(Duration::from_millis(20));
    }
    simulation.run_for(Duration::from_secs(10));
    let seals = |dropped: Dropped| matches!(dropped, Dropped::Seal(_) | Dropped::Oversized);
    Junk {
        injected,
        dropped: Dropped::all()
            .filter(|&why| seals(why))
            .map(|why| counted(&simulation, |counters| counters.dropped(why)))
            .sum(),
        downs: downs(&simulation),
        answered: counted(&simulation, |counters| counters.challenges) - challenges,
        agreed: agrees(&simulation),
    }
}

fn one_of(simulation: &mut Simulation, heard: &[(NodeId, Vec<u8>)], rings: &[Keyring]) -> Vec<u8> {
    let index = simulation.random_below(heard.len());
    let real = &heard[index].1;
    let kind = simulation.random_below(4 + rings.len());
    match kind {
        0 => random_bytes(simulation, MAX_DATAGRAM),
        1 => vec![1; MAX_DATAGRAM + 1 + simulation.random_below(60_000)],
        2 => real[..simulation.random_below(real.len())].to_vec(),
        3 => {
            let mut bytes = real.clone();
            let bit = simulation.random_below(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        }
        _ => {
            let mut bytes = Vec::new();
            let body = random_bytes(simulation, 200);
            rings[kind - 4].seal(DATAGRAM, &[], [7; 12], &body, &mut bytes);
            bytes
        }
    }
}

/// Fewer than `most` random bytes.
fn random_bytes(simulation: &mut Simulation, most: usize) -> Vec<u8> {
    let length = simulation.random_below(most);
    (0..length)
        .map(|_| simulation.random_below(256) as u8)
        .collect()
}

/// Results of a replay of recorded datagrams.
#[derive(Debug)]
pub struct Replay {
    /// Datagrams that were replayed.
    pub injected: usize,
    /// How often a node found another one up, or in another run, during the replay and after.
    pub ups: u64,
    /// How often a node found another one down.
    pub downs: u64,
    /// How often a node had a member that was gone as active again.
    pub resurrected: usize,
    /// Whether all agreed at the end.
    pub agreed: bool,
}

/// All datagrams of 30 s, in which one agent leaves and one is killed, are replayed a minute later. With `restarted` a
/// proxy was restarted just before and knows nobody.
pub fn replay(nodes: usize, seed: u64, restarted: bool) -> Replay {
    let mut simulation = settled(nodes, seed, true);
    simulation.run_for(Duration::from_secs(5));
    simulation.start_tape();
    simulation.run_for(Duration::from_secs(5));
    let mut gone = Vec::new();
    for leaves in [true, false] {
        let agent = any_agent(&mut simulation);
        if leaves {
            simulation.with(agent, |node, now| node.leave(now));
            simulation.run_for(Duration::from_secs(2));
        }
        simulation.kill(agent);
        gone.push(simulation.address(agent));
    }
    simulation.run_for(Duration::from_secs(23));
    let heard = simulation.take_tape();
    simulation.run_for(Duration::from_secs(60));
    if restarted {
        let epoch = simulation.wall_clock();
        simulation.restart(0, Role::Proxy, &[1, 2], epoch);
        simulation.run_until_condition(Duration::from_secs(9), Duration::from_millis(10), |s| {
            s.node(0).is_some_and(|node| node.has_joined())
        });
    }
    let ups = |simulation: &Simulation| counted(simulation, |counters| counters.ups);
    let (ups_before, downs_before) = (ups(&simulation), downs(&simulation));
    let mut resurrected = 0;
    let slice = heard.len().div_ceil(100);
    for part in heard.chunks(slice) {
        for (to, bytes) in part {
            simulation.inject(*to, bytes.clone());
        }
        simulation.run_for(Duration::from_millis(100));
        resurrected += active_views(&simulation, &gone);
    }
    simulation.run_for(Duration::from_secs(10));
    Replay {
        injected: heard.len(),
        ups: ups(&simulation) - ups_before,
        downs: downs(&simulation) - downs_before,
        resurrected,
        agreed: agrees(&simulation),
    }
}

/// How often any node has one of these as active.
fn active_views(simulation: &Simulation, gone: &[std::net::SocketAddr]) -> usize {
    let running = simulation.running();
    let nodes = running.iter().filter_map(|&id| simulation.node(id));
    let active = |node: &Node, address| {
        let state = node.state_of(address);
        state.is_some_and(|(_, state)| state != State::Down)
    };
    nodes
        .map(|node| gone.iter().filter(|&&a| active(node, a)).count())
        .sum()
}

/// Results of a member that invents others.
#[derive(Debug)]
pub struct Invented {
    /// Most members that an honest node knew, those that are down included.
    pub members: usize,
    /// Most announcements that a proxy knew.
    pub records: usize,
    /// The limit of both.
    pub limit: usize,
    /// How often an honest node came back in another run because it was thought down.
    pub rejoins: u64,
    /// How often an honest node was found not to know another one as active.
    pub lost: usize,
    /// Time from a change of a record until the last proxy has it, meanwhile, seconds.
    pub change: Option<f64>,
    /// Time from the end of the inventor until all know a newcomer, seconds.
    pub newcomer: Option<f64>,
}

/// A node with the key joins, invents 20,000 members and as many services, and keeps that up for two minutes.
pub fn invented(nodes: usize, seed: u64) -> Invented {
    const LIMIT: usize = 500;
    let mut simulation = Simulation::new(seed);
    simulation.limits = Limits {
        members: LIMIT,
        new_members: 100,
        records: LIMIT,
    };
    populate(&mut simulation, nodes);
    simulation.acquaint(true);
    simulation.run_for(Duration::from_secs(5));
    let honest = simulation.running();
    simulation.limits = Limits {
        members: 40_000,
        new_members: 40_000,
        records: 40_000,
    };
    let inventor = simulation.start(Role::Proxy, &[0, 1]);
    simulation.run_for(Duration::from_secs(2));
    simulation.with(inventor, |node, _| invent(node));
    let mut result = Invented {
        members: 0,
        records: 0,
        limit: LIMIT,
        rejoins: 0,
        lost: 0,
        change: None,
        newcomer: None,
    };
    for second in 0..120 {
        simulation.run_for(Duration::from_secs(1));
        for node in honest.iter().filter_map(|&id| simulation.node(id)) {
            result.members = result.members.max(node.members().count());
            result.records = result.records.max(node.records().len());
        }
        if second % 10 == 0 {
            let lost = honest.iter();
            let lost = lost.filter(|&&id| !known_by(&simulation, &honest, id));
            result.lost += lost.count();
        }
        if second == 60 {
            result.change = change(&mut simulation, &honest);
        }
    }
    result.rejoins = honest
        .iter()
        .filter_map(|&id| simulation.node(id))
        .map(|node| node.counters().rejoins)
        .sum();
    simulation.kill(inventor);
    let newcomer = simulation.start(Role::Agent, &[0, 1]);
    let step = Duration::from_millis(500);
    let known = simulation.run_until_condition(Duration::from_secs(900), step, |simulation| {
        known_by(simulation, &honest, newcomer)
    });
    result.newcomer = known.map(|time| time.as_secs_f64());
    result
}

fn change(simulation: &mut Simulation, honest: &[NodeId]) -> Option<f64> {
    let agent = honest[proxies_of(honest.len()) + 1];
    let address = simulation.address(agent);
    simulation.with(agent, |node, now| {
        node.announce(record(address, 77, ServiceState::Ready), now)
            .expect("the simulator's record is within the limits");
    });
    let mut proxies = with_role(simulation, Role::Proxy);
    proxies.retain(|id| honest.contains(id));
    let step = Duration::from_millis(20);
    let time = simulation.run_until_condition(Duration::from_secs(35), step, |simulation| {
        let has_it = |&proxy: &NodeId| state_at(simulation, proxy, agent).map(|s| s.1) == Some(77);
        proxies.iter().all(has_it)
    });
    time.map(|time| time.as_secs_f64())
}

/// Puts 20,000 members that do not exist into a node, and their announcements.
fn invent(node: &mut Node) {
    let ghosts = (0..20_000u32).map(|i| {
        let ip = std::net::Ipv4Addr::from(0x0b00_0001 + i);
        Identity::new((ip, 7946).into(), u64::from(i) + 1, Role::Agent)
    });
    let ghosts: Vec<Identity> = ghosts.collect();
    let members = ghosts.iter().map(|&id| Member::new(id, 0, State::Alive));
    let own = node.identity();
    node.merge_members(&own, true, members.collect());
    for ghost in ghosts {
        let record = record(ghost.address(), 1, ServiceState::Ready);
        let bytes = record.encode(&ghost.key(), ghost.epoch(), 1, &[]);
        let bytes = bytes.expect("the simulator's record is within the limits");
        node.accept_record(&bytes, Duration::ZERO, false);
    }
}

/// Results of peers that break the protocol of push-pulls.
#[derive(Debug)]
pub struct StreamFaults {
    /// Junk frames that were accepted.
    pub taken: usize,
    /// How often a node that stays was thought down and came back in another run.
    pub rejoins: u64,
    /// Time from the start of a newcomer, whose first seed never answers, until all agree, seconds.
    pub newcomer: Option<f64>,
}

/// Each node receives junk on streams; one node opens many streams and is gone after the first frame; a seed accepts
/// streams and never answers.
pub fn streams(nodes: usize, seed: u64) -> StreamFaults {
    let mut simulation = settled(nodes, seed, true);
    simulation.run_for(Duration::from_secs(5));
    let mut taken = 0;
    for _ in 0..50 {
        for id in 0..nodes {
            let mut frame = random_bytes(&mut simulation, 2 * MAX_FRAME);
            let result = simulation.with(id, |node, now| {
                PushPull::server().take(node, &mut frame, &mut Vec::new(), now)
            });
            taken += usize::from(!matches!(result, Some(Err(_))));
        }
    }
    for round in 0..20 {
        // It is killed during its push-pull: within the handshake, or at any frame after it.
        let dropper = simulation.start(Role::Agent, &[1]);
        simulation.run_for(Duration::from_micros(1_500 * (round + 1)));
        simulation.kill(dropper);
    }
    simulation.run_for(Duration::from_secs(120));
    simulation.freeze(0, Duration::from_secs(3));
    simulation.start(Role::Proxy, &[0, 1]);
    let newcomer = until_agreed(&mut simulation, Duration::from_secs(60));
    StreamFaults {
        taken,
        rejoins: counted(&simulation, |counters| counters.rejoins),
        newcomer,
    }
}

/// Results of a member with a token of its own that speaks for others.
#[derive(Debug)]
pub struct Usurped {
    /// How often a proxy took the usurper's announcement for an agent's.
    pub believed: usize,
    /// Proxies that reported the conflict, with both keys.
    pub reported: usize,
    /// Time from an agent's restart with another token until all proxies have its announcement, seconds.
    pub restarted: Option<f64>,
    /// Members that gave way, or began another run because of false reports.
    pub moved: u64,
    /// Whether all agreed at the end.
    pub agreed: bool,
}

/// For half a minute a node with the key and a token for the whole cluster announces to every proxy, in all versions
/// and runs, that every agent has left, and reports to every member that it is known in a far run. Meanwhile one agent
/// is restarted with another token.
pub fn usurped(nodes: usize, seed: u64) -> Usurped {
    let operator = OperatorKey::generate(&[1; 32]);
    let cidrs = ["10.0.0.0/8".parse().expect("a network")];
    let minted = |seed: u8| {
        mint(&operator, &[seed; 32], "web", &cidrs, 100, u64::MAX).expect("the claims are legal")
    };
    let mut simulation = Simulation::new(seed);
    simulation.unix = simulation.wall_clock() / 1_000;
    simulation.authority = Some(Authority::new(operator.public()));
    // One credential for all: it only matters that it is not the usurper's.
    simulation.credential = Some(minted(2).to_text());
    populate(&mut simulation, nodes);
    simulation.acquaint(true);
    simulation.run_for(Duration::from_secs(3));
    let (honest, usurper) = (simulation.running(), minted(3));
    let proxies = with_role(&simulation, Role::Proxy);
    let victims = agents(&simulation);
    let epochs: Vec<u64> = epochs_of(&simulation, &honest);
    let teller = simulation.start(Role::Proxy, &[0, 1]);
    simulation.run_for(Duration::from_secs(2));
    let mut result = Usurped {
        believed: 0,
        reported: 0,
        restarted: None,
        moved: 0,
        agreed: false,
    };
    let changed = victims[0];
    let mut began = None;
    for second in 0..30u64 {
        for (&victim, &proxy) in victims.iter().zip(proxies.iter().cycle()) {
            let run = simulation.node(victim).map(|node| node.identity());
            let Some(run) = run else { continue };
            for epoch in [run.epoch(), run.epoch() + 1] {
                let version = [second + 1, 1 << 20][second as usize % 2];
                let lie = lie(&usurper, &run, epoch, version);
                simulation.with(proxy, |node, _| {
                    node.accept_record(&lie, Duration::ZERO, true)
                });
            }
            simulation.with(teller, |node, _| node.send_newer(&run, run.epoch() * 2));
            simulation.with(teller, |node, _| node.send_newer(&run, run.epoch() + 9_000));
        }
        if second == 10 {
            let epoch = simulation.wall_clock();
            simulation.credential = Some(minted(4).to_text());
            simulation.restart(changed, Role::Agent, &[0, 1], epoch);
            began = Some(simulation.now());
        }
        for _ in 0..10 {
            simulation.run_for(Duration::from_millis(100));
            let states = |s: &Simulation, of: NodeId| {
                let views = proxies.iter().filter_map(|&p| state_at(s, p, of));
                views
                    .filter(|&(state, _)| state != ServiceState::Ready)
                    .count()
            };
            result.believed += victims
                .iter()
                .map(|&v| states(&simulation, v))
                .sum::<usize>();
            let epoch = simulation.node(changed).map(|node| node.identity().epoch());
            let heard = |&p: &NodeId| {
                let key = record_key(simulation.address(changed));
                let edition = simulation
                    .node(p)
                    .and_then(|node| node.records().edition(&key));
                edition.map(|edition| edition.epoch) == epoch
            };
            if let Some(at) = began
                && result.restarted.is_none()
                && proxies.iter().all(heard)
            {
                result.restarted = Some((simulation.now() - at).as_secs_f64());
            }
        }
    }
    for &proxy in &proxies {
        let refused = simulation.with(proxy, |node, _| node.take_refused());
        let both = refused
            .iter()
            .flatten()
            .any(|refused| refused.agents.is_some());
        result.reported += usize::from(both);
    }
    let moved = honest
        .iter()
        .zip(epochs)
        .zip(epochs_of(&simulation, &honest));
    let moved = moved.filter(|((id, before), after)| **id != changed && before != after);
    result.moved = moved.count() as u64;
    simulation.run_for(Duration::from_secs(10));
    result.agreed = agrees(&simulation);
    result
}

fn epochs_of(simulation: &Simulation, of: &[NodeId]) -> Vec<u64> {
    let nodes = of.iter().filter_map(|&id| simulation.node(id));
    nodes.map(|node| node.identity().epoch()).collect()
}

/// A forged announcement that `run` has left.
fn lie(by: &AgentCredential, run: &Identity, epoch: u64, version: u64) -> Vec<u8> {
    let mut token = Vec::new();
    by.token().encode(&mut token);
    let record = record(run.address(), 1, ServiceState::Left);
    let bytes = record.encode(&run.key(), epoch, version, &token);
    let mut bytes = bytes.expect("the simulator's record is within the limits");
    let signature = by.sign(LABEL, &bytes);
    bytes.extend_from_slice(&signature);
    bytes
}
