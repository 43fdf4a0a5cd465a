//! Streams between simulated nodes. Nothing is lost on the way; a stream that is not answered is given up.

use std::net::SocketAddr;
use std::time::Duration;

use lbproxy::internals::gossip::{PushPull, PushPullProgress};

use super::{NodeId, Simulation, SimulatorEvent};

/// Time until a stream that nobody answers is given up.
const STREAM_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) struct SimulatedStream {
    client: NodeId,
    server: NodeId,
    at_client: PushPull,
    at_server: PushPull,
}

impl Simulation {
    pub(super) fn begin_stream(&mut self, client: NodeId, address: SocketAddr) {
        let now = self.now;
        let stream = self.next_stream;
        self.next_stream += 1;
        let server = self.pick(address);
        let server = server.filter(|&server| self.slots[server].node.is_some());
        let Some(node) = &mut self.slots[client].node else {
            return;
        };
        let (at_client, frame) = PushPull::client(node, address, now);
        self.streams.insert(
            stream,
            SimulatedStream {
                client,
                server: server.unwrap_or(client),
                at_client,
                at_server: PushPull::server(),
            },
        );
        // A host without a listener refuses at once, and a missing host never answers; the slower case is simulated.
        if let Some(server) = server {
            self.slots[server].traffic.asked += 1;
            // The handshake comes first.
            self.transmit(stream, false, vec![frame], 2);
        }
        self.schedule(STREAM_TIMEOUT, SimulatorEvent::GiveUp(stream));
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
        // IP and TCP headers, and an acknowledgement for every second segment.
        let headers = (bytes / 1_400 + 1) * 60;
        self.slots[from].traffic.sent += bytes + headers;
        self.slots[from].traffic.streamed += bytes + headers;
        if !self.network.reaches(from, to) || !self.network.reaches(to, from) {
            return;
        }
        let delay: Duration = (0..trips)
            .map(|_| self.network.latency(&mut self.rng))
            .sum();
        let event = SimulatorEvent::Frames {
            stream: id,
            to_client,
            frames,
        };
        self.schedule(delay, event);
    }

    pub(super) fn deliver(&mut self, id: u64, to_client: bool, frames: Vec<Vec<u8>>) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let (receiver, push_pull) = match to_client {
            true => (stream.client, &mut stream.at_client),
            false => (stream.server, &mut stream.at_server),
        };
        let slot = &mut self.slots[receiver];
        if slot.frozen {
            let event = SimulatorEvent::Frames {
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
            match push_pull.take(node, &mut frame, &mut out, now) {
                Ok(progress) => done |= progress == PushPullProgress::Done,
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

    pub(super) fn end_stream(&mut self, id: u64, succeeded: bool) {
        let now = self.now;
        let Some(stream) = self.streams.remove(&id) else {
            return;
        };
        if let Some(node) = &mut self.slots[stream.client].node {
            node.push_pull_ended(succeeded, now);
            self.settle(stream.client);
        }
    }

    /// Ends the streams of a node that is gone; the other side notices at once.
    pub(super) fn break_streams(&mut self, id: NodeId) {
        self.streams.retain(|_, stream| stream.client != id);
        let mut broken: Vec<u64> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.server == id)
            .map(|(&stream, _)| stream)
            .collect();
        // A map has no order, but runs must be reproducible.
        broken.sort_unstable();
        for stream in broken {
            self.end_stream(stream, false);
        }
    }
}
