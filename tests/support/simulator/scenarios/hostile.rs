//! What others do to a set: junk, recorded datagrams, invented members, peers that do not keep to the protocol.

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

/// Somebody without the key.
#[derive(Debug)]
pub struct Junk {
    /// Datagrams that were sent to members.
    pub injected: u64,
    /// Datagrams that members dropped for their seal or their length.
    pub dropped: u64,
    /// Times that a node was thought down.
    pub downs: u64,
    /// Challenges that were sent while they came, more than members would have sent by themselves.
    pub answered: u64,
    /// Whether all agreed at the end.
    pub agreed: bool,
}

/// For 10 s each node gets 200 datagrams a second that are none: random bytes, too long, cut short, changed, not
/// sealed, sealed with another key, and for another label.
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
    let place = simulation.random_below(heard.len());
    let real = &heard[place].1;
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

/// Datagrams that were recorded and sent again.
#[derive(Debug)]
pub struct Replay {
    /// How many.
    pub injected: usize,
    /// Times that a node found another one up, or in another run, while they came and after.
    pub ups: u64,
    /// Times that a node found another one down.
    pub downs: u64,
    /// Views of members that had gone, in which they were there again.
    pub resurrected: usize,
    /// Whether all agreed at the end.
    pub agreed: bool,
}

/// All datagrams of 30 s, in which one agent leaves and one is killed, are sent again a minute later. With
/// `restarted`, a proxy has begun anew just before and knows nobody.
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
        let epoch = simulation.world();
        simulation.restart(0, Role::Proxy, &[1, 2], epoch);
        simulation.run_until_so(Duration::from_secs(9), Duration::from_millis(10), |s| {
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

/// How many times somebody has one of these as active.
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

/// A member that invents others.
#[derive(Debug)]
pub struct Invented {
    /// Members that an honest node knew at the most, down ones included.
    pub members: usize,
    /// Announcements that a proxy knew at the most.
    pub records: usize,
    /// What both are bounded by.
    pub limit: usize,
    /// Times that an honest node came back in another run, since it was thought down.
    pub rejoins: u64,
    /// Looks at which an honest node did not know another one as active.
    pub lost: usize,
    /// From a change of a record to the last proxy meanwhile, seconds.
    pub change: Option<f64>,
    /// From the end of the inventor until a newcomer is known by all, seconds.
    pub newcomer: Option<f64>,
}

/// Somebody with the key joins, tells of 20,000 members and as many services that there are not, and goes on for two
/// minutes.
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
    let known = simulation.run_until_so(Duration::from_secs(900), step, |simulation| {
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
    let time = simulation.run_until_so(Duration::from_secs(35), step, |simulation| {
        let told = |&proxy: &NodeId| state_at(simulation, proxy, agent).map(|s| s.1) == Some(77);
        proxies.iter().all(told)
    });
    time.map(|time| time.as_secs_f64())
}

/// Puts 20,000 members that there are not into a node, and what they announce.
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

/// Peers that do not keep to the protocol of exchanges.
#[derive(Debug)]
pub struct Streams {
    /// Frames that were no frames, and were taken nevertheless.
    pub taken: usize,
    /// Times that a node that stays was thought down and came back in another run.
    pub rejoins: u64,
    /// From the start of a newcomer, whose first seed never answers, until all agree, seconds.
    pub newcomer: Option<f64>,
}

/// Each node is sent garbage on streams; one opens many and is gone after the first frame; a seed takes streams and
/// answers none.
pub fn streams(nodes: usize, seed: u64) -> Streams {
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
        // Killed while its exchange is under way: within the handshake, or at any frame after it.
        let dropper = simulation.start(Role::Agent, &[1]);
        simulation.run_for(Duration::from_micros(1_500 * (round + 1)));
        simulation.kill(dropper);
    }
    simulation.run_for(Duration::from_secs(120));
    simulation.freeze(0, Duration::from_secs(3));
    simulation.start(Role::Proxy, &[0, 1]);
    let newcomer = until_agreed(&mut simulation, Duration::from_secs(60));
    Streams {
        taken,
        rejoins: counted(&simulation, |counters| counters.rejoins),
        newcomer,
    }
}

/// A member with a token of its own that speaks for others.
#[derive(Debug)]
pub struct Usurped {
    /// Looks at which a proxy had the word of somebody else for an agent's.
    pub believed: usize,
    /// Proxies that told of the conflict, with both keys.
    pub told: usize,
    /// From an agent's restart with another token until all proxies have its word, seconds.
    pub restarted: Option<f64>,
    /// Members that gave way, or began another run for what they were told.
    pub moved: u64,
    /// Whether all agreed at the end.
    pub agreed: bool,
}

/// For half a minute somebody with the key and a token for the whole cluster says of every agent that it has left, to
/// every proxy, in all versions and runs, and of every member that it is known in a far run. Meanwhile one agent is
/// restarted with another token.
pub fn usurped(nodes: usize, seed: u64) -> Usurped {
    let operator = OperatorKey::generate(&[1; 32]);
    let cidrs = ["10.0.0.0/8".parse().expect("a network")];
    let minted = |seed: u8| {
        mint(&operator, &[seed; 32], "web", &cidrs, 100, u64::MAX).expect("the claims are legal")
    };
    let mut simulation = Simulation::new(seed);
    simulation.unix = simulation.world() / 1_000;
    simulation.authority = Some(Authority::new(operator.public()));
    // One for all: what counts is that it is not the usurper's.
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
        told: 0,
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
            let epoch = simulation.world();
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
        let told = simulation.with(proxy, |node, _| node.take_refused());
        let both = told
            .iter()
            .flatten()
            .any(|refused| refused.agents.is_some());
        result.told += usize::from(both);
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

/// In the name of `run`: that it has left.
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
