//! A whole peer set in one thread and in virtual time: the shipped state machine over a network that loses and delays
//! datagrams and splits, all from one seed. The same seed gives the same run.
//!
//! A frozen node receives nothing and runs no timers. When it wakes, it reads what waits for it before it runs late
//! timers, as the driver over sockets does. Streams lose nothing, and fail if the two nodes cannot reach each other.

mod network;
pub mod scenarios;
mod streams;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use foca::{Member, State};
use lbproxy::internals::gossip::{
    AgentCredential, Authority, Identity, Keyring, Limits, MAX_DATAGRAM, Node, NodeSettings,
    Record, Role, SecretKey, ServiceState,
};
use lbproxy::internals::model::TimerQueue;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

pub use network::{Network, Traffic};
use streams::SimulatedStream;

/// Most datagrams that wait for a frozen node: about what a socket's buffer holds.
const MAX_WAITING: usize = 500;
/// Label of every set, unless a scenario says otherwise.
pub const LABEL: &str = "simulation";
/// Wall-clock time at the start, Unix milliseconds.
const WALL_CLOCK: u64 = 1_790_000_000_000;
/// Length of a datagram's IP and UDP headers, bytes.
const DATAGRAM_HEADERS: u64 = 28;

/// Number of a node; numbers are not reused.
pub type NodeId = usize;

enum SimulatorEvent {
    Datagram {
        to: NodeId,
        bytes: Vec<u8>,
    },
    Wake(NodeId),
    Frames {
        stream: u64,
        to_client: bool,
        frames: Vec<Vec<u8>>,
    },
    /// The client of a stream gives up.
    GiveUp(u64),
    Thaw(NodeId),
}

struct SimulatedNode {
    node: Option<Node>,
    address: SocketAddr,
    /// The next planned wake-up.
    wake: Option<Duration>,
    frozen: bool,
    waiting: Vec<Vec<u8>>,
    traffic: Traffic,
}

/// A simulated peer set; see the module.
pub struct Simulation {
    now: Duration,
    events: TimerQueue<Duration, SimulatorEvent>,
    slots: Vec<SimulatedNode>,
    by_address: HashMap<SocketAddr, Vec<NodeId>>,
    streams: HashMap<u64, SimulatedStream>,
    next_stream: u64,
    rng: StdRng,
    /// Every datagram that was sent since recording began, with its receiver.
    tape: Option<Vec<(NodeId, Vec<u8>)>>,
    /// How the network behaves.
    pub network: Network,
    /// Keyring of nodes that are started from now on.
    pub keyring: Arc<Keyring>,
    /// Limits of nodes that are started from now on.
    pub limits: Limits,
    /// Authority of proxies that are started from now on: whose tokens they require.
    pub authority: Option<Authority>,
    /// Text of the credential with which agents that are started from now on sign.
    pub credential: Option<String>,
    /// Unix seconds at the start by the clocks of nodes that are started from now on; 0: their clocks are not set.
    pub unix: u64,
}

impl Simulation {
    /// A set without nodes.
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let keyring = Keyring::new(&[secret_key(&mut rng)], LABEL, false);
        Self {
            now: Duration::ZERO,
            events: TimerQueue::default(),
            slots: Vec::new(),
            by_address: HashMap::new(),
            streams: HashMap::new(),
            next_stream: 0,
            rng,
            tape: None,
            network: Network::default(),
            keyring: Arc::new(keyring),
            // More than the largest set needs, with all records in one cluster.
            limits: Limits {
                members: 20_000,
                records: 40_000,
                ..Limits::default()
            },
            authority: None,
            credential: None,
            unix: 0,
        }
    }

    /// The virtual time.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// A random number below `bound`.
    pub fn random_below(&mut self, bound: usize) -> usize {
        self.rng.random_range(0..bound.max(1))
    }

    /// A new key.
    pub fn new_key(&mut self) -> SecretKey {
        secret_key(&mut self.rng)
    }

    /// Records the datagrams that are sent from now on.
    pub fn start_tape(&mut self) {
        self.tape = Some(Vec::new());
    }

    /// Ends the recording; returns the datagrams in order, with their receivers.
    pub fn take_tape(&mut self) -> Vec<(NodeId, Vec<u8>)> {
        self.tape.take().unwrap_or_default()
    }

    /// Starts a node at its number's own address. An agent announces a service that is ready.
    pub fn start(&mut self, role: Role, seeds: &[NodeId]) -> NodeId {
        let id = self.slots.len();
        let address = address_of(id);
        self.start_at(address, role, seeds, self.wall_clock())
    }

    /// Starts a node at any address, in run `epoch`.
    pub fn start_at(
        &mut self,
        address: SocketAddr,
        role: Role,
        seeds: &[NodeId],
        epoch: u64,
    ) -> NodeId {
        let id = self.slots.len();
        self.slots.push(SimulatedNode {
            node: None,
            address,
            wake: None,
            frozen: false,
            waiting: Vec::new(),
            traffic: Traffic::default(),
        });
        self.by_address.entry(address).or_default().push(id);
        self.restart(id, role, seeds, epoch);
        id
    }

    /// Restarts a node in run `epoch`; what it knew is lost.
    pub fn restart(&mut self, id: NodeId, role: Role, seeds: &[NodeId], epoch: u64) {
        self.kill(id);
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let address = self.slots[id].address;
        let credential = self
            .credential
            .as_deref()
            .map(|text| AgentCredential::parse(text).expect("the scenario's credential is one"));
        let settings = NodeSettings {
            identity: Identity::new(address, epoch, role),
            keyring: Arc::clone(&self.keyring),
            label: LABEL.to_owned(),
            authority: self.authority.clone().filter(|_| role == Role::Proxy),
            credential: credential.filter(|_| role == Role::Agent),
            observed: false,
            limits: self.limits,
            seed,
        };
        let mut node = Node::new(settings, self.now);
        node.set_unix(self.unix);
        if role == Role::Agent {
            node.announce(record(address, 1, ServiceState::Ready), self.now)
                .expect("the simulator's record is within the limits");
        }
        let seeds = seeds.iter().map(|&seed| self.slots[seed].address).collect();
        node.set_seeds(seeds, self.now);
        let slot = &mut self.slots[id];
        slot.node = Some(node);
        slot.frozen = false;
        slot.waiting.clear();
        slot.wake = None;
        self.settle(id);
    }

    /// Wall-clock time now, Unix milliseconds; epochs start with it.
    pub fn wall_clock(&self) -> u64 {
        WALL_CLOCK + self.now.as_millis() as u64
    }

    /// Makes all nodes know each other, and each proxy all announcements, as if they had been together for some time.
    /// With `contacts` each has also heard every other one, as after about as many seconds as there are nodes.
    /// O(nodes³) steps, on all cores.
    pub fn acquaint(&mut self, contacts: bool) {
        let now = self.now;
        let all: Vec<Member<Identity>> = self
            .slots
            .iter()
            .filter_map(|slot| slot.node.as_ref())
            .map(|node| Member::new(node.identity(), 0, State::Alive))
            .collect();
        let records: Vec<Arc<[u8]>> = self
            .slots
            .iter()
            .filter_map(|slot| slot.node.as_ref())
            .flat_map(|node| node.records().iter().map(|(_, r)| Arc::clone(&r.bytes)))
            .collect();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let share = self.slots.len().div_ceil(cores).max(1);
        std::thread::scope(|scope| {
            for slots in self.slots.chunks_mut(share) {
                let (all, records) = (&all, &records);
                scope.spawn(move || {
                    for node in slots.iter_mut().filter_map(|slot| slot.node.as_mut()) {
                        node.acquaint(all, records, contacts, now);
                    }
                });
            }
        });
        for id in 0..self.slots.len() {
            self.settle(id);
        }
    }

    /// A node, if it runs.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.slots[id].node.as_ref()
    }

    /// Does something with a node, if it runs.
    pub fn with<T>(
        &mut self,
        id: NodeId,
        action: impl FnOnce(&mut Node, Duration) -> T,
    ) -> Option<T> {
        let now = self.now;
        let done = self.slots[id].node.as_mut().map(|node| action(node, now));
        self.settle(id);
        done
    }

    /// Kills a node; its connections break.
    pub fn kill(&mut self, id: NodeId) {
        if self.slots[id].node.take().is_some() {
            self.break_streams(id);
        }
    }

    /// Freezes a node for this time, as SIGSTOP does.
    pub fn freeze(&mut self, id: NodeId, time: Duration) {
        self.slots[id].frozen = true;
        self.schedule(time, SimulatorEvent::Thaw(id));
    }

    /// Numbers of the running nodes.
    pub fn running(&self) -> Vec<NodeId> {
        (0..self.slots.len())
            .filter(|&id| self.slots[id].node.is_some())
            .collect()
    }

    /// Address of a node.
    pub fn address(&self, id: NodeId) -> SocketAddr {
        self.slots[id].address
    }

    /// What a node has sent and received.
    pub fn traffic(&self, id: NodeId) -> Traffic {
        self.slots[id].traffic
    }

    /// Delivers a datagram that no node has sent.
    pub fn inject(&mut self, to: NodeId, bytes: Vec<u8>) {
        self.schedule(
            Duration::from_millis(1),
            SimulatorEvent::Datagram { to, bytes },
        );
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Lets time pass until `end`.
    pub fn run_until(&mut self, end: Duration) {
        while let Some((at, event)) = self.events.pop_due(end) {
            self.now = at;
            self.handle(event);
        }
        self.now = end;
    }

    /// Lets time pass until `condition` holds, which is checked every `step`, but at most `most`; returns how long it
    /// took.
    pub fn run_until_condition(
        &mut self,
        most: Duration,
        step: Duration,
        mut condition: impl FnMut(&mut Self) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        loop {
            if condition(self) {
                return Some(self.now - start);
            }
            if self.now - start >= most {
                return None;
            }
            self.run_for(step);
        }
    }

    fn schedule(&mut self, delay: Duration, event: SimulatorEvent) {
        self.events.add(self.now + delay, event);
    }

    fn handle(&mut self, event: SimulatorEvent) {
        match event {
            SimulatorEvent::Datagram { to, mut bytes } => {
                let now = self.now;
                let slot = &mut self.slots[to];
                if slot.frozen {
                    if slot.waiting.len() < MAX_WAITING {
                        slot.waiting.push(bytes);
                    }
                    return;
                }
                slot.traffic.received += bytes.len() as u64 + DATAGRAM_HEADERS;
                if let Some(node) = &mut slot.node {
                    node.receive(&mut bytes, now);
                    self.settle(to);
                }
            }
            SimulatorEvent::Wake(id) => {
                let now = self.now;
                let slot = &mut self.slots[id];
                if slot.frozen || slot.wake.is_none_or(|wake| wake > now) {
                    return;
                }
                slot.wake = None;
                if let Some(node) = &mut slot.node {
                    node.run_timers(now);
                    self.settle(id);
                }
            }
            SimulatorEvent::Thaw(id) => {
                let now = self.now;
                let slot = &mut self.slots[id];
                slot.frozen = false;
                let waiting = std::mem::take(&mut slot.waiting);
                if let Some(node) = &mut slot.node {
                    for mut bytes in waiting {
                        node.receive(&mut bytes, now);
                    }
                    node.run_timers(now);
                }
                slot.wake = None;
                self.settle(id);
            }
            SimulatorEvent::Frames {
                stream,
                to_client,
                frames,
            } => self.deliver(stream, to_client, frames),
            SimulatorEvent::GiveUp(stream) => self.end_stream(stream, false),
        }
    }

    /// Sends a node's packets, starts its push-pulls and plans its next wake-up.
    fn settle(&mut self, id: NodeId) {
        let now = self.now;
        let Some(node) = &mut self.slots[id].node else {
            return;
        };
        let (packets, push_pulls) = (node.take_packets(), node.take_push_pulls());
        let deadline = node.next_deadline();
        for packet in packets {
            assert!(
                packet.bytes.len() <= MAX_DATAGRAM,
                "node {id} sends a datagram of {} bytes",
                packet.bytes.len()
            );
            self.slots[id].traffic.sent += packet.bytes.len() as u64 + DATAGRAM_HEADERS;
            self.slots[id].traffic.datagrams += 1;
            let Some(to) = self.pick(packet.to) else {
                continue;
            };
            if let Some(tape) = &mut self.tape {
                tape.push((to, packet.bytes.clone()));
            }
            if let Some(delay) = self.network.transmit(id, to, &mut self.rng) {
                let bytes = packet.bytes;
                self.schedule(delay, SimulatorEvent::Datagram { to, bytes });
            }
        }
        for address in push_pulls {
            self.begin_stream(id, address);
        }
        let slot = &mut self.slots[id];
        if let Some(deadline) = deadline
            && slot.wake.is_none_or(|wake| wake > deadline)
        {
            slot.wake = Some(deadline);
            let delay = deadline.saturating_sub(now);
            self.schedule(delay, SimulatorEvent::Wake(id));
        }
    }

    /// Which node receives what is sent to an address: any of those that live there.
    fn pick(&mut self, address: SocketAddr) -> Option<NodeId> {
        let all = self.by_address.get(&address)?;
        let index = if all.len() > 1 {
            self.rng.random_range(0..all.len())
        } else {
            0
        };
        Some(all[index])
    }
}

fn secret_key(rng: &mut StdRng) -> SecretKey {
    let mut key = [0; 32];
    rng.fill_bytes(&mut key);
    SecretKey::generate(&key)
}

/// The own address of a number.
pub fn address_of(id: NodeId) -> SocketAddr {
    let ip = Ipv4Addr::from(0x0a00_0001 + id as u32);
    (ip, 7946).into()
}

/// What the agent at `address` announces.
pub fn record(address: SocketAddr, weight: u16, state: ServiceState) -> Record {
    Record {
        name: format!("agent-{}", address.ip()),
        cluster: "web".to_owned(),
        backend: SocketAddr::new(address.ip(), 8080),
        weight,
        zone: "zone-a".to_owned(),
        state,
        // Makes the announcement about 200 bytes long, as real ones are.
        build: "2026.11.27-0123456789abcdef".to_owned(),
    }
}
