//! The UDP socket: reads until it is empty, within bounds, and sends.

use std::io;
use std::time::Duration;

use tokio::net::UdpSocket;
use tracing::debug;

use crate::discovery::gossip::shared::SharedNode;
use crate::gossip::Time;
use crate::gossip::node::Packet;
use crate::gossip::tuning::MAX_DATAGRAM;

/// Most datagrams that are read in one turn.
const TURN: usize = 1024;
/// How long timers wait for datagrams that are still to be read.
const MAX_BEHIND: Duration = Duration::from_millis(250);

/// The socket and its buffer.
pub(super) struct Datagrams {
    socket: UdpSocket,
    buffer: Vec<u8>,
    /// Since when datagrams have been waiting that the last turn did not read.
    behind: Option<Time>,
}

impl Datagrams {
    pub(super) fn new(socket: UdpSocket) -> Self {
        Self {
            socket,
            // One byte more than fits shows what is too long.
            buffer: vec![0; MAX_DATAGRAM + 1],
            behind: None,
        }
    }

    /// Continues with another socket.
    pub(super) fn replace(&mut self, socket: UdpSocket) {
        self.socket = socket;
    }

    /// Waits until there is something to read. Cancel-safe.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Passes what has arrived to the node. Returns whether timers may run: everything was read, or they have waited
    /// for long enough.
    pub(super) fn receive(&mut self, shared: &SharedNode) -> bool {
        let drained = self.drain(shared);
        let now = shared.now();
        if !drained {
            // The next turn continues to read. Timers run even under a flood that never ends.
            shared.wake.notify_one();
        }
        let behind = *self.behind.get_or_insert(now);
        let timers = drained || now - behind >= MAX_BEHIND;
        if timers {
            self.behind = None;
        }
        timers
    }

    /// Reads at most [`TURN`] datagrams; returns whether the socket is empty.
    fn drain(&mut self, shared: &SharedNode) -> bool {
        for _ in 0..TURN {
            match self.socket.try_recv_from(&mut self.buffer) {
                Ok((length, _)) => {
                    let now = shared.now();
                    let mut node = shared.node.borrow_mut();
                    node.receive(&mut self.buffer[..length], now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                // An ICMP answer to an earlier datagram: that peer is not there.
                Err(_) => {}
            }
        }
        false
    }

    /// Sends a packet. A full buffer or an unreachable host loses it, as the network may.
    pub(super) fn send(&self, packet: &Packet) {
        if let Err(error) = self.socket.try_send_to(&packet.bytes, packet.to) {
            debug!(to = %packet.to, %error, "gossip: cannot send a datagram");
        }
    }
}
