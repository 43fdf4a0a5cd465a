//! A whole peer set in one thread, in virtual time: the product's own state machine, over a network that loses, delays
//! and parts by one seed. The same seed gives the same run.
//!
//! A frozen node receives nothing and runs no timer; when it wakes it reads what waits for it before it runs late
//! timers, as the driver over sockets does. Streams lose nothing, and fail when the two cannot reach each other.

mod network;
pub mod scenarios;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use foca::{Member, State};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::Time;
use super::exchange::{Exchange, Progress};
use super::identity::{Identity, Role};
use super::keyring::{Keyring, SecretKey};
use super::node::{Limits, Node, Settings};
use super::record::{Record, ServiceState};

pub use network::{Network, Traffic};

/// A connection that nobody answers is given up after.
const STREAM_TIMEOUT: Duration = Duration::from_secs(3);
/// Datagrams that wait for a frozen node, at the most: about what a socket's buffer holds.
const MOST_WAITING: usize = 500;
/// Milliseconds of the world at the start.
const WORLD: u64 = 1_790_000_000_000;
/// IP and UDP headers of a datagram.
const DATAGRAM_HEADERS: u64 = 28;

/// A node by its place; places are never given away.
pub type NodeId = usize;

enum Event {
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

struct Scheduled {
    at: Time,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

struct Slot {
    node: Option<Node>,
    address: SocketAddr,
    /// The wake-up that is planned.
    wake: Option<Time>,
    frozen: bool,
    waiting: Vec<Vec<u8>>,
    traffic: Traffic,
}

struct Stream {
    client: NodeId,
    server: NodeId,
    at_client: Exchange,
    at_server: Exchange,
}

/// See the module.
pub struct Simulation {
    now: Time,
    events: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
    slots: Vec<Slot>,
    by_address: HashMap<SocketAddr, Vec<NodeId>>,
    streams: HashMap<u64, Stream>,
    next_stream: u64,
    rng: StdRng,
    keyring: Arc<Keyring>,
    /// What the network does.
    pub network: Network,
    /// Bounds of nodes that are started from now on.
    pub limits: Limits,
}

impl Simulation {
    /// Nobody there.
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut key = [0; 32];
        rng.fill_bytes(&mut key);
        let keyring = Keyring::new(&[SecretKey::generate(&key)], "simulation", false);
        Self {
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            order: 0,
            slots: Vec::new(),
            by_address: HashMap::new(),
            streams: HashMap::new(),
            next_stream: 0,
            rng,
            keyring: Arc::new(keyring),
            network: Network::default(),
            limits: Limits {
                members: 20_000,
                ..Limits::default()
            },
        }
    }

    /// The virtual time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// A random number below `bound`.
    pub fn random_below(&mut self, bound: usize) -> usize {
        self.rng.random_range(0..bound.max(1))
    }

    /// The keyring that nodes are started with.
    pub fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(&self.keyring)
    }

    /// Starts a node at the place's own address; an agent announces a service that is ready.
    pub fn start(&mut self, role: Role, seeds: &[NodeId]) -> NodeId {
        let id = self.slots.len();
        let address = address_of(id);
        self.start_at(address, role, seeds, self.world())
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
        self.slots.push(Slot {
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

    /// Starts the node at a place anew, in run `epoch`: what it knew is gone.
    pub fn restart(&mut self, id: NodeId, role: Role, seeds: &[NodeId], epoch: u64) {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let address = self.slots[id].address;
        let settings = Settings {
            identity: Identity::new(address, epoch, role),
            keyring: Arc::clone(&self.keyring),
            label: "simulation".to_owned(),
            authority: None,
            credential: None,
            observed: false,
            limits: self.limits,
            seed,
        };
        let mut node = Node::new(settings, self.now);
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
        self.settle(id);
    }

    /// Milliseconds of the world now: what runs begin with.
    pub fn world(&self) -> u64 {
        WORLD + self.now.as_millis() as u64
    }

    /// Makes all nodes that are there know each other and each proxy all announcements, as if they had been
    /// together for long.
    pub fn acquaint(&mut self) {
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
        let nobody = Identity::new(([192, 0, 2, 1], 9).into(), 0, Role::Agent);
        for id in 0..self.slots.len() {
            let Some(node) = &mut self.slots[id].node else {
                continue;
            };
            node.set_now(self.now);
            node.take_members(&nobody, false, all.clone());
            if node.identity().role() == Role::Proxy {
                for bytes in &records {
                    node.take_record(bytes, Duration::ZERO, false);
                }
            }
            node.exchange_ended(true, self.now);
            node.assume_heard();
            self.settle(id);
        }
    }

    /// The node at a place, if it runs.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.slots[id].node.as_ref()
    }

    /// Does something with a running node.
    pub fn with<T>(&mut self, id: NodeId, deed: impl FnOnce(&mut Node, Time) -> T) -> Option<T> {
        let now = self.now;
        let done = self.slots[id].node.as_mut().map(|node| deed(node, now));
        self.settle(id);
        done
    }

    /// Ends a node without a word.
    pub fn kill(&mut self, id: NodeId) {
        self.slots[id].node = None;
    }

    /// Freezes a node for a time, as SIGSTOP does.
    pub fn freeze(&mut self, id: NodeId, time: Duration) {
        self.slots[id].frozen = true;
        self.schedule(time, Event::Thaw(id));
    }

    /// Ids of running nodes.
    pub fn running(&self) -> Vec<NodeId> {
        (0..self.slots.len())
            .filter(|&id| self.slots[id].node.is_some())
            .collect()
    }

    /// Where a place is reached.
    pub fn address(&self, id: NodeId) -> SocketAddr {
        self.slots[id].address
    }

    /// What a place has sent and received.
    pub fn traffic(&self, id: NodeId) -> Traffic {
        self.slots[id].traffic
    }

    /// Puts a datagram on the wire that no node has sent.
    pub fn inject(&mut self, to: NodeId, bytes: Vec<u8>) {
        self.schedule(Duration::from_millis(1), Event::Datagram { to, bytes });
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Lets time pass until `end`.
    pub fn run_until(&mut self, end: Time) {
        while let Some(Reverse(next)) = self.events.peek()
            && next.at <= end
        {
            let Some(Reverse(next)) = self.events.pop() else {
                break;
            };
            self.now = next.at;
            self.happen(next.event);
        }
        self.now = end;
    }

    /// Lets time pass, at most `most`, until `is_so`, which is asked every `step`; says how long it took.
    pub fn run_until_so(
        &mut self,
        most: Duration,
        step: Duration,
        mut is_so: impl FnMut(&mut Self) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        loop {
            if is_so(self) {
                return Some(self.now - start);
            }
            if self.now - start >= most {
                return None;
            }
            self.run_for(step);
        }
    }

    fn schedule(&mut self, delay: Duration, event: Event) {
        self.order += 1;
        self.events.push(Reverse(Scheduled {
            at: self.now + delay,
            order: self.order,
            event,
        }));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Datagram { to, mut bytes } => {
                let now = self.now;
                let slot = &mut self.slots[to];
                if slot.frozen {
                    if slot.waiting.len() < MOST_WAITING {
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
            Event::Wake(id) => {
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
            Event::Thaw(id) => {
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
            Event::Frames {
                stream,
                to_client,
                frames,
            } => self.deliver(stream, to_client, frames),
            Event::GiveUp(stream) => self.end_stream(stream, false),
        }
    }

    /// Sends what a node wants sent, begins what it wants begun and plans its next wake-up.
    fn settle(&mut self, id: NodeId) {
        let now = self.now;
        let Some(node) = &mut self.slots[id].node else {
            return;
        };
        let (packets, exchanges) = (node.take_packets(), node.take_exchanges());
        let deadline = node.next_deadline();
        for packet in packets {
            self.slots[id].traffic.sent += packet.bytes.len() as u64 + DATAGRAM_HEADERS;
            self.slots[id].traffic.datagrams += 1;
            let Some(to) = self.pick(packet.to) else {
                continue;
            };
            if let Some(delay) = self.network.carry(id, to, &mut self.rng) {
                let bytes = packet.bytes;
                self.schedule(delay, Event::Datagram { to, bytes });
            }
        }
        for address in exchanges {
            self.begin_stream(id, address);
        }
        let slot = &mut self.slots[id];
        if let Some(deadline) = deadline
            && slot.wake.is_none_or(|wake| wake > deadline)
        {
            slot.wake = Some(deadline);
            let delay = deadline.saturating_sub(now);
            self.schedule(delay, Event::Wake(id));
        }
    }

    /// Who gets what is sent to an address: any of those that live there.
    fn pick(&mut self, address: SocketAddr) -> Option<NodeId> {
        let all = self.by_address.get(&address)?;
        let place = if all.len() > 1 {
            self.rng.random_range(0..all.len())
        } else {
            0
        };
        Some(all[place])
    }

    fn begin_stream(&mut self, client: NodeId, address: SocketAddr) {
        let now = self.now;
        let stream = self.next_stream;
        self.next_stream += 1;
        let server = self.pick(address);
        let Some(node) = &mut self.slots[client].node else {
            return;
        };
        let (at_client, frame) = Exchange::client(node, address, now);
        match server {
            Some(server) if self.slots[server].node.is_some() => {
                self.streams.insert(
                    stream,
                    Stream {
                        client,
                        server,
                        at_client,
                        at_server: Exchange::server(),
                    },
                );
                // Hands are shaken first.
                self.transmit(stream, false, vec![frame], 2);
                self.schedule(STREAM_TIMEOUT, Event::GiveUp(stream));
            }
            // Refused at once where the host lives, and given up else: the slower of both.
            _ => {
                self.streams.insert(
                    stream,
                    Stream {
                        client,
                        server: client,
                        at_client,
                        at_server: Exchange::server(),
                    },
                );
                self.schedule(STREAM_TIMEOUT, Event::GiveUp(stream));
            }
        }
    }

    fn transmit(&mut self, id: u64, to_client: bool, frames: Vec<Vec<u8>>, trips: u32) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let (from, to) = match to_client {
            true => (stream.server, stream.client),
            false => (stream.client, stream.server),
        };
        let bytes: u64 = frames.iter().map(|frame| frame.len() as u64 + 4).sum();
        // Headers of IP and TCP, and an acknowledgement for every other segment.
        let headers = (bytes / 1_400 + 1) * 60;
        self.slots[from].traffic.sent += bytes + headers;
        self.slots[from].traffic.streamed += bytes + headers;
        if !self.network.reaches(from, to) || !self.network.reaches(to, from) {
            return;
        }
        let delay: Duration = (0..trips)
            .map(|_| self.network.latency(&mut self.rng))
            .sum();
        let event = Event::Frames {
            stream: id,
            to_client,
            frames,
        };
        self.schedule(delay, event);
    }

    fn deliver(&mut self, id: u64, to_client: bool, frames: Vec<Vec<u8>>) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let (receiver, exchange) = match to_client {
            true => (stream.client, &mut stream.at_client),
            false => (stream.server, &mut stream.at_server),
        };
        let slot = &mut self.slots[receiver];
        if slot.frozen {
            let event = Event::Frames {
                stream: id,
                to_client,
                frames,
            };
            return self.schedule(Duration::from_millis(100), event);
        }
        let Some(node) = &mut slot.node else { return };
        let mut out = Vec::new();
        let mut done = false;
        for mut frame in frames {
            slot.traffic.received += frame.len() as u64 + 4;
            match exchange.take(node, &mut frame, &mut out, now) {
                Ok(progress) => done |= progress == Progress::Done,
                Err(_) => return self.end_stream(id, false),
            }
        }
        self.settle(receiver);
        if !out.is_empty() {
            self.transmit(id, !to_client, out, 1);
        }
        if done && to_client {
            self.end_stream(id, true);
        }
    }

    fn end_stream(&mut self, id: u64, succeeded: bool) {
        let now = self.now;
        let Some(stream) = self.streams.remove(&id) else {
            return;
        };
        if let Some(node) = &mut self.slots[stream.client].node {
            node.exchange_ended(succeeded, now);
            self.settle(stream.client);
        }
    }
}

fn address_of(id: NodeId) -> SocketAddr {
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
        // Fills the announcement up to about 200 bytes, which is what real ones take.
        build: "2026.11.27-0123456789abcdef".to_owned(),
    }
}
