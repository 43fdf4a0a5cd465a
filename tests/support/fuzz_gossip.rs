//! What the fuzz targets of the peer set do: any bytes as what members say, to the codecs and to a member.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lbproxy::internals::gossip::codec::{
    self, CHALLENGE_LEN, DatagramKind, DatagramPrefix, PREFIX_LEN,
};
use lbproxy::internals::gossip::{
    Announcement, DATAGRAM, Identity, Keyring, Limits, MAX_DATAGRAM, Node, NodeSettings, PushPull,
    PushPullProgress, Record, Role, ServiceState, Token,
};

const LIMITS: Limits = Limits {
    members: 20,
    new_members: 10,
    records: 8,
};
/// Of the frames of an exchange; see `gossip::exchange`.
const HELLO: u8 = 2;
const FRAME: u8 = 3;

/// The codecs: what is read of any bytes is written as the same bytes.
pub fn gossip_codec(bytes: &[u8]) {
    let _ = DatagramPrefix::read(bytes);
    let _ = codec::members_of(bytes);
    let mut rest = bytes;
    if let Ok(member) = codec::take_member(&mut rest) {
        let mut out = Vec::new();
        codec::put_member(&member, &mut out);
        assert_eq!(out, bytes[..bytes.len() - rest.len()]);
    }
    if let Ok(read) = Announcement::decode(bytes) {
        let again = read
            .record
            .encode(&read.member, read.epoch, read.version, read.token);
        assert_eq!(again.as_deref(), Ok(read.signed), "{read:?}");
    }
    if let Ok(token) = Token::decode(bytes) {
        let mut out = Vec::new();
        token.encode(&mut out);
        assert_eq!(out, bytes);
    }
    let mut packet = bytes.to_vec();
    let _ = Keyring::new(&[], "", true).open(DATAGRAM, &[], &mut packet);
}

/// A member that hears any datagrams and frames of others that hold the key: bounded in what it keeps and sends.
pub fn gossip_node(bytes: &[u8]) {
    let mut play = Play::new();
    let mut rest = bytes;
    while let Some((&deed, tail)) = rest.split_first() {
        rest = tail;
        play.step(deed, &mut rest);
        play.settle();
    }
}

struct Play {
    node: Node,
    keyring: Arc<Keyring>,
    now: Duration,
    sequence: u64,
    stream: Option<Stream>,
}

/// An exchange that the bytes have asked for.
struct Stream {
    push_pull: PushPull,
    client: [u8; 32],
    server: Option<[u8; 32]>,
    sent: u32,
}

impl Play {
    fn new() -> Self {
        let keyring = Arc::new(Keyring::new(&[], "", true));
        let settings = NodeSettings {
            identity: Identity::new(address(0), 1_000, Role::Proxy),
            keyring: Arc::clone(&keyring),
            label: String::new(),
            authority: None,
            credential: None,
            observed: true,
            limits: LIMITS,
            seed: [7; 32],
        };
        let now = Duration::from_secs(1);
        Self {
            node: Node::new(settings, now),
            keyring,
            now,
            sequence: 0,
            stream: None,
        }
    }

    fn step(&mut self, deed: u8, rest: &mut &[u8]) {
        match deed % 7 {
            0 => {
                let mut packet = chunk(rest).to_vec();
                self.node.receive(&mut packet, self.now);
            }
            1 | 2 => {
                let (kind, whom, epoch) = (byte(rest), byte(rest), byte(rest));
                let sender = member(whom, epoch);
                let kind = [
                    DatagramKind::Swim,
                    DatagramKind::Records,
                    DatagramKind::Newer,
                    DatagramKind::Challenge,
                    DatagramKind::Echo,
                ][usize::from(kind % 5)];
                let body = chunk(rest);
                self.say(kind, sender, body);
            }
            3 => {
                let time = u64::from(byte(rest)) << (byte(rest) % 10);
                self.now += Duration::from_millis(time);
                self.node.run_timers(self.now);
            }
            4 => self.open_stream(byte(rest)),
            5 => {
                let body = chunk(rest).to_vec();
                self.say_on_stream(&body);
            }
            _ => match byte(rest) % 4 {
                0 => self.node.leave(self.now),
                1 => self.node.set_seeds(vec![address(1), address(2)], self.now),
                2 => self.node.push_pull_ended(true, self.now),
                _ => {
                    let record = Record {
                        name: "n".to_owned(),
                        cluster: "c".to_owned(),
                        backend: address(9),
                        weight: byte(rest).into(),
                        zone: String::new(),
                        state: ServiceState::Ready,
                        build: String::new(),
                    };
                    self.node.announce(record, self.now).unwrap();
                }
            },
        }
    }

    fn say(&mut self, kind: DatagramKind, sender: Identity, body: &[u8]) {
        self.sequence += 1;
        let mut bytes = Vec::new();
        DatagramPrefix::write_start(kind, self.sequence, &mut bytes);
        bytes.extend_from_slice(sender.as_bytes());
        bytes.extend_from_slice(body);
        let mut packet = Vec::new();
        self.keyring
            .seal(DATAGRAM, &[], [0; 12], &bytes, &mut packet);
        self.node.receive(&mut packet, self.now);
    }

    /// Answers the challenges that the member sends, so that what the bytes say is heard; and looks at all else.
    fn settle(&mut self) {
        for _ in 0..3 {
            let packets = self.node.take_packets();
            for mut packet in packets {
                assert!(
                    packet.bytes.len() <= MAX_DATAGRAM,
                    "too long for a datagram"
                );
                let body = self
                    .keyring
                    .open(DATAGRAM, &[], &mut packet.bytes)
                    .unwrap()
                    .to_vec();
                let prefix = DatagramPrefix::read(&body).unwrap();
                if prefix.kind == DatagramKind::Challenge {
                    let mut rest = &body[PREFIX_LEN..];
                    let whom = codec::take_identity(&mut rest).unwrap();
                    assert_eq!(rest.len(), CHALLENGE_LEN);
                    self.say(DatagramKind::Echo, whom, rest);
                }
            }
        }
        self.node.take_push_pulls();
        let view = self.node.view(self.now);
        // One place may be its own earlier run.
        assert!(
            view.members.len() <= LIMITS.members + 2,
            "{}",
            view.members.len()
        );
        assert!(self.node.records().len() <= LIMITS.records);
        assert!(self.node.pending_broadcasts() <= LIMITS.records);
    }

    fn open_stream(&mut self, seed: u8) {
        let client = [seed; 32];
        let mut push_pull = PushPull::server();
        let mut body = client.to_vec();
        body.extend_from_slice(member(seed, seed).as_bytes());
        let mut frame = Vec::new();
        self.keyring.seal(HELLO, &[], [0; 12], &body, &mut frame);
        let mut out = Vec::new();
        let taken = push_pull.take(&mut self.node, &mut frame, &mut out, self.now);
        let server = taken.is_ok().then(|| {
            let welcome = self.keyring.open(HELLO, &client, &mut out[0]).unwrap();
            std::array::from_fn(|i| welcome[i])
        });
        self.stream = Some(Stream {
            push_pull,
            client,
            server,
            sent: 0,
        });
    }

    fn say_on_stream(&mut self, body: &[u8]) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        let Some(server) = stream.server else { return };
        let mut context = stream.client.to_vec();
        context.extend_from_slice(&server);
        context.push(1);
        context.extend_from_slice(&stream.sent.to_be_bytes());
        stream.sent += 1;
        let mut frame = Vec::new();
        self.keyring
            .seal(FRAME, &context, [0; 12], body, &mut frame);
        let mut out = Vec::new();
        let taken = stream
            .push_pull
            .take(&mut self.node, &mut frame, &mut out, self.now);
        if taken != Ok(PushPullProgress::Ongoing) {
            self.stream = None;
        }
    }
}

fn address(port: u8) -> SocketAddr {
    ([10, 0, 0, 1], 7_000 + u16::from(port)).into()
}

fn member(whom: u8, epoch: u8) -> Identity {
    let role = if whom & 1 == 1 {
        Role::Proxy
    } else {
        Role::Agent
    };
    Identity::new(address(whom), 990 + u64::from(epoch), role)
}

fn byte(rest: &mut &[u8]) -> u8 {
    let Some((&first, tail)) = rest.split_first() else {
        return 0;
    };
    *rest = tail;
    first
}

/// A length of two bytes, and as many bytes as there are.
fn chunk<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let length = usize::from(byte(rest)) << 8 | usize::from(byte(rest));
    let (chunk, tail) = rest.split_at(length.min(rest.len()));
    *rest = tail;
    chunk
}
