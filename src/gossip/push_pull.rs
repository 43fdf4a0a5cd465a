//! Push-pull: two members compare all that they know over a stream, and each takes what it lacks. This is how a member
//! learns the set when it joins, and how losses of gossip are repaired. Without I/O: frames in, frames out.
//!
//! What a member knows is spread over 256 buckets by member address. Each side sums up a bucket in a hash, and only
//! buckets that differ are sent, so two members that agree send 4 KiB however large the set is.
//!
//! ```text
//! client → server  hello: 32 random bytes, the client's identity
//! server → client  welcome: 32 random bytes, the server's identity     (sealed in the context of the client's random)
//! client → server  summary: hashes of all buckets
//! server → client  differs, members, heads of announcements, done
//! client → server  members, announcements, wants, done
//! server → client  announcements, done
//! ```
//!
//! From the summary on, every frame is sealed in the context of both sides' random bytes, its direction and its number,
//! so that a frame of another stream, or at another position of this one, is refused.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use foca::{Member, State};
use xxhash_rust::xxh3::xxh3_64;

use super::Time;
use super::codec::{
    CodecError, MEMBER_LEN, put_member, put_record, take, take_array, take_identity, take_member,
    take_record, take_u8, take_u64,
};
use super::identity::{Identity, MemberKey, Role, pack_address};
use super::keyring::{OVERHEAD, OpenError};
use super::node::Node;
use super::records::{Edition, RecordKey};
use super::tuning::REORDERING;

/// Largest frame, bytes, without its length (4).
pub const MAX_FRAME: usize = 32 * 1024;
/// Most bytes that one side accepts in one push-pull; a set of 10,000 with all announcements takes 6 MB.
pub(crate) const MAX_BYTES: usize = 8 * 1024 * 1024;

const BUCKETS: usize = 256;
const RANDOM_LEN: usize = 32;
/// Kinds of sealed packets: the first frame of a side, and any other frame.
const HELLO: u8 = 2;
const FRAME: u8 = 3;
/// Room in a frame for its parts, bytes.
const ROOM: usize = MAX_FRAME - OVERHEAD - 1;
const HEAD_LEN: usize = 18 + 8 + 16;
const WANT_LEN: usize = 18 + 8;

/// What the parts of a frame are: its first byte.
const SUMMARY: u8 = 1;
const DIFFERS: u8 = 2;
const MEMBERS: u8 = 3;
const HEADS: u8 = 4;
const RECORDS: u8 = 5;
const WANTS: u8 = 6;
const DONE: u8 = 7;

/// Why a push-pull ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushPullError {
    /// A frame cannot be opened.
    #[error("a frame cannot be opened: {0}")]
    Seal(#[from] OpenError),
    /// A frame is malformed, or may not come now.
    #[error("a frame is malformed or out of turn")]
    Malformed,
    /// The other side sent more than a push-pull may carry.
    #[error("the other side sends more than any set has")]
    TooMuch,
    /// The other side is this member itself, or another run of it.
    #[error("the other side is this member itself")]
    Own,
}

impl From<CodecError> for PushPullError {
    fn from(_: CodecError) -> Self {
        Self::Malformed
    }
}

/// Whether more frames are to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushPullProgress {
    /// More frames are to come.
    Ongoing,
    /// Both sides have what they lacked.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PushPullStage {
    /// The server waits for the hello.
    Hello,
    /// The client waits for the welcome.
    Welcome,
    /// The server waits for the hashes.
    Summary,
    /// The client waits for what differs.
    Differences,
    /// The server waits for what it lacks.
    Answers,
    /// The client waits for what it wants.
    Wanted,
}

/// One side of a push-pull.
#[derive(Debug)]
pub struct PushPull {
    stage: PushPullStage,
    channel: Channel,
    peer: Option<Identity>,
    /// The address at which the client dialled the server.
    dialled: Option<MemberKey>,
    /// Bytes that were received.
    received: usize,
    theirs: PeerState,
}

/// What binds frames to one stream, one direction and one position.
#[derive(Debug)]
struct Channel {
    client: [u8; RANDOM_LEN],
    server: [u8; RANDOM_LEN],
    /// Frames after the welcome that this side sent, and received.
    sent: u32,
    taken: u32,
}

/// What the other side has told so far.
#[derive(Debug)]
struct PeerState {
    /// Buckets that differ.
    differs: [bool; BUCKETS],
    /// Members that the peer knows exactly as this one does.
    same: HashSet<MemberKey>,
    /// Announcements that the peer has.
    heads: HashMap<RecordKey, Edition>,
    /// Members that are to be merged.
    members: Vec<Member<Identity>>,
    /// Announcements that the peer wants.
    wants: Vec<RecordKey>,
}

impl PushPull {
    /// The side that asks the member at `dialled`, with its first frame.
    pub fn client(node: &mut Node, dialled: SocketAddr, now: Time) -> (Self, Vec<u8>) {
        node.set_now(now);
        let mut push_pull = Self::new(PushPullStage::Welcome);
        push_pull.dialled = Some(pack_address(dialled));
        push_pull.channel.client = node.random_bytes();
        let mut body = push_pull.channel.client.to_vec();
        body.extend_from_slice(node.identity().as_bytes());
        let frame = node.seal_frame(HELLO, &[], &body);
        (push_pull, frame)
    }

    /// The side that is asked.
    pub fn server() -> Self {
        Self::new(PushPullStage::Hello)
    }

    fn new(stage: PushPullStage) -> Self {
        Self {
            stage,
            channel: Channel {
                client: [0; RANDOM_LEN],
                server: [0; RANDOM_LEN],
                sent: 0,
                taken: 0,
            },
            peer: None,
            dialled: None,
            received: 0,
            theirs: PeerState {
                differs: [false; BUCKETS],
                same: HashSet::new(),
                heads: HashMap::new(),
                members: Vec::new(),
                wants: Vec::new(),
            },
        }
    }

    /// Takes a frame, and appends the frames to send to `out`.
    ///
    /// # Errors
    /// Why the push-pull is over. What was taken before stays, since all of it was sealed.
    pub fn take(
        &mut self,
        node: &mut Node,
        frame: &mut [u8],
        out: &mut Vec<Vec<u8>>,
        now: Time,
    ) -> Result<PushPullProgress, PushPullError> {
        node.set_now(now);
        self.received += frame.len();
        if frame.len() > MAX_FRAME || self.received > MAX_BYTES {
            return Err(PushPullError::TooMuch);
        }
        match self.stage {
            PushPullStage::Hello => self.welcome(node, frame, out),
            PushPullStage::Welcome => self.summarise(node, frame, out),
            _ => {
                let context = self.channel.next_received(!self.is_client());
                let keyring = node.keyring();
                let body = keyring.open(FRAME, &context, frame)?;
                self.take_parts(node, body, out)
            }
        }
    }

    fn is_client(&self) -> bool {
        matches!(
            self.stage,
            PushPullStage::Welcome | PushPullStage::Differences | PushPullStage::Wanted
        )
    }

    /// Answers a hello with a welcome.
    fn welcome(
        &mut self,
        node: &mut Node,
        frame: &mut [u8],
        out: &mut Vec<Vec<u8>>,
    ) -> Result<PushPullProgress, PushPullError> {
        let keyring = node.keyring();
        let mut body = keyring.open(HELLO, &[], frame)?;
        self.channel.client = take_array(&mut body)?;
        // Another run at the own address is answered too, so that it finds this one there.
        self.meet(node, &mut body)?;
        self.channel.server = node.random_bytes();
        let mut body = self.channel.server.to_vec();
        body.extend_from_slice(node.identity().as_bytes());
        out.push(node.seal_frame(HELLO, &self.channel.client, &body));
        self.stage = PushPullStage::Summary;
        Ok(PushPullProgress::Ongoing)
    }

    /// Answers a welcome with the summary.
    fn summarise(
        &mut self,
        node: &mut Node,
        frame: &mut [u8],
        out: &mut Vec<Vec<u8>>,
    ) -> Result<PushPullProgress, PushPullError> {
        let keyring = node.keyring();
        let mut body = keyring.open(HELLO, &self.channel.client, frame)?;
        self.channel.server = take_array(&mut body)?;
        let peer = self.meet(node, &mut body)?;
        if self.is_own(node) {
            // Only the run that was reached at the dialled address answers in the context of the client's random.
            if self.dialled == Some(peer.key()) {
                node.found_at_own_address(&peer);
            }
            return Err(PushPullError::Own);
        }
        let hashes = node.hashes();
        let mut body = Vec::with_capacity(2 * BUCKETS * 8);
        let count = if node.stores_all() { 2 } else { 1 };
        for hash in hashes[..count].iter().flatten() {
            body.extend_from_slice(&hash.to_be_bytes());
        }
        self.send(node, SUMMARY, &body, out);
        self.stage = PushPullStage::Differences;
        Ok(PushPullProgress::Ongoing)
    }

    fn meet(&mut self, node: &Node, rest: &mut &[u8]) -> Result<Identity, PushPullError> {
        let peer = take_identity(rest)?;
        if !rest.is_empty() || node.horizon().excludes(peer.epoch()) {
            return Err(PushPullError::Malformed);
        }
        self.peer = Some(peer);
        Ok(peer)
    }

    /// Whether the peer is at this member's own address.
    fn is_own(&self, node: &Node) -> bool {
        let own = node.identity().key();
        self.peer.is_some_and(|peer| peer.key() == own)
    }

    /// Whether the peer stores the announcements of all members.
    fn peer_stores_all(&self) -> bool {
        self.peer.is_some_and(|peer| peer.role() == Role::Proxy)
    }

    /// Takes the parts of a frame after the welcome.
    fn take_parts(
        &mut self,
        node: &mut Node,
        mut body: &[u8],
        out: &mut Vec<Vec<u8>>,
    ) -> Result<PushPullProgress, PushPullError> {
        use PushPullStage::{Answers, Differences, Summary, Wanted};
        if self.is_own(node) {
            return Err(PushPullError::Own);
        }
        let kind = take_u8(&mut body)?;
        match (self.stage, kind) {
            (Summary, SUMMARY) => self.compare(node, body, out)?,
            (Differences, DIFFERS) => {
                let bits: [u8; BUCKETS / 8] = take_array(&mut body)?;
                for (i, differs) in self.theirs.differs.iter_mut().enumerate() {
                    *differs = bits[i / 8] & (1 << (i % 8)) != 0;
                }
            }
            (Differences | Answers, MEMBERS) => {
                while !body.is_empty() {
                    self.theirs.members.push(take_member(&mut body)?);
                }
            }
            (Differences, HEADS) => {
                while !body.is_empty() {
                    let key = take_key(&mut body)?;
                    let (epoch, version) = (take_u64(&mut body)?, take_u64(&mut body)?);
                    self.theirs.heads.insert(key, Edition { epoch, version });
                }
            }
            (Answers | Wanted, RECORDS) => {
                // Members must be known before what they announce.
                self.merge_members(node);
                let joining = !node.has_joined();
                while !body.is_empty() {
                    let (age, bytes) = take_record(&mut body)?;
                    if node.stores_all() {
                        node.accept_record(bytes, age, !joining);
                    }
                }
            }
            (Answers, WANTS) => {
                while !body.is_empty() {
                    self.theirs.wants.push(take_key(&mut body)?);
                }
            }
            (Differences, DONE) => {
                self.answer(node, out);
                self.stage = Wanted;
            }
            (Answers, DONE) => {
                self.merge_members(node);
                let wants = std::mem::take(&mut self.theirs.wants);
                self.send_records(node, wants.into_iter(), out);
                self.send(node, DONE, &[], out);
                return Ok(PushPullProgress::Done);
            }
            (Wanted, DONE) => return Ok(PushPullProgress::Done),
            _ => return Err(PushPullError::Malformed),
        }
        Ok(PushPullProgress::Ongoing)
    }

    /// The server sends what differs.
    fn compare(
        &mut self,
        node: &mut Node,
        mut body: &[u8],
        out: &mut Vec<Vec<u8>>,
    ) -> Result<(), PushPullError> {
        let own = node.hashes();
        let count = if self.peer_stores_all() { 2 } else { 1 };
        for (table, own) in own.iter().enumerate().take(count) {
            // Announcements are compared only if both sides store them.
            let counts = table == 0 || node.stores_all();
            for (differs, own) in self.theirs.differs.iter_mut().zip(own) {
                *differs |= counts && take_u64(&mut body)? != *own;
                if !counts {
                    take(&mut body, 8)?;
                }
            }
        }
        if !body.is_empty() {
            return Err(PushPullError::Malformed);
        }
        let mut bits = [0u8; BUCKETS / 8];
        let differs = self.theirs.differs.iter().enumerate();
        for (i, _) in differs.filter(|(_, differs)| **differs) {
            bits[i / 8] |= 1 << (i % 8);
        }
        self.send(node, DIFFERS, &bits, out);
        self.send_members(node, out);
        let mut heads = Vec::new();
        for (key, edition) in self.heads_of(node) {
            put_head(&key, &edition, &mut heads);
        }
        self.send_parts(node, HEADS, &heads, HEAD_LEN, out);
        self.send(node, DONE, &[], out);
        self.stage = PushPullStage::Answers;
        Ok(())
    }

    /// Announcements that are offered to the peer: all that may differ if both sides store them; otherwise only those
    /// of the agent among the two.
    fn heads_of(&self, node: &Node) -> Vec<(RecordKey, Edition)> {
        let peer_stores = self.peer_stores_all();
        let both = peer_stores && node.stores_all();
        let (own, peer) = (node.identity().key(), self.peer.map(|peer| peer.key()));
        node.records()
            .iter()
            .filter(|(key, _)| match both {
                true => self.theirs.differs[bucket(&key.member)],
                false => (peer_stores && key.member == own) || Some(key.member) == peer,
            })
            .map(|(key, stored)| (key, stored.edition()))
            .collect()
    }

    /// The client takes what differs, and sends what the server lacks.
    fn answer(&mut self, node: &mut Node, out: &mut Vec<Vec<u8>>) {
        let known: HashMap<MemberKey, Member<Identity>> = node
            .known()
            .map(|member| (member.id().key(), member))
            .collect();
        for member in &self.theirs.members {
            let key = member.id().key();
            if known.get(&key) == Some(member) {
                self.theirs.same.insert(key);
            }
        }
        // What this member knows is sent before it takes over what the server knows.
        self.send_members(node, out);
        self.merge_members(node);
        self.check_impostors(node);
        if self.peer_stores_all() {
            let heads = &self.theirs.heads;
            let newer: Vec<RecordKey> = self
                .heads_of(node)
                .into_iter()
                .filter(|(key, edition)| heads.get(key).is_none_or(|known| known < edition))
                .map(|(key, _)| key)
                .collect();
            self.send_records(node, newer.into_iter(), out);
        }
        let mut wants = Vec::new();
        if node.stores_all() {
            for (key, edition) in &self.theirs.heads {
                let known = node.records().edition(key);
                if known.is_none_or(|known| known < *edition) {
                    put_key(key, &mut wants);
                }
            }
        }
        self.send_parts(node, WANTS, &wants, WANT_LEN, out);
        self.send(node, DONE, &[], out);
    }

    /// The client checks for impostors: an announcement in the name of either side, in a later version than that side's
    /// own, is somebody else's, unless the server has announced it just now.
    fn check_impostors(&self, node: &mut Node) {
        let Some(peer) = self.peer.filter(|peer| self.dialled == Some(peer.key())) else {
            return;
        };
        let own = node.identity();
        let of = |run: &Identity, key: &RecordKey, edition: &Edition| {
            key.member == run.key() && edition.epoch == run.epoch()
        };
        for (key, theirs) in &self.theirs.heads {
            let Some(known) = node.records().get(key) else {
                continue;
            };
            let (edition, bytes) = (known.edition(), Arc::clone(&known.bytes));
            if of(&own, key, theirs) && *theirs > edition {
                return node.note_later_run(&peer, own.epoch());
            }
            let recent = node.now().saturating_sub(known.announced.accepted) < REORDERING;
            let in_one_run = theirs.epoch == edition.epoch && of(&peer, key, theirs);
            if in_one_run && edition > *theirs && !recent {
                return node.report_outdone(&peer, &bytes);
            }
        }
    }

    fn merge_members(&mut self, node: &mut Node) {
        let members = std::mem::take(&mut self.theirs.members);
        if let Some(peer) = self.peer {
            let verified = self.dialled == Some(peer.key());
            node.merge_members(&peer, verified, members);
        }
    }

    fn send_members(&mut self, node: &mut Node, out: &mut Vec<Vec<u8>>) {
        let mut bytes = Vec::new();
        for member in node.known() {
            let key = member.id().key();
            if self.theirs.differs[bucket(&key)] && !self.theirs.same.contains(&key) {
                put_member(&member, &mut bytes);
            }
        }
        self.send_parts(node, MEMBERS, &bytes, MEMBER_LEN, out);
    }

    fn send_records(
        &mut self,
        node: &mut Node,
        keys: impl Iterator<Item = RecordKey>,
        out: &mut Vec<Vec<u8>>,
    ) {
        let mut body = Vec::new();
        for key in keys {
            let Some(stored) = node.records().get(&key) else {
                continue;
            };
            let before = body.len();
            put_record(&stored.bytes, stored.age(node.now()), &mut body);
            if body.len() > ROOM {
                let rest = body.split_off(before);
                self.send(node, RECORDS, &body, out);
                body = rest;
            }
        }
        if !body.is_empty() {
            self.send(node, RECORDS, &body, out);
        }
    }

    /// Sends parts of `length` bytes each, as many to a frame as fit.
    fn send_parts(
        &mut self,
        node: &mut Node,
        kind: u8,
        parts: &[u8],
        length: usize,
        out: &mut Vec<Vec<u8>>,
    ) {
        for chunk in parts.chunks(ROOM / length * length) {
            self.send(node, kind, chunk, out);
        }
    }

    fn send(&mut self, node: &mut Node, kind: u8, parts: &[u8], out: &mut Vec<Vec<u8>>) {
        let context = self.channel.next_sent(self.is_client());
        let mut body = Vec::with_capacity(1 + parts.len());
        body.push(kind);
        body.extend_from_slice(parts);
        out.push(node.seal_frame(FRAME, &context, &body));
    }
}

/// Both sides' random bytes, the sender, and the number of the frame.
type FrameContext = [u8; 2 * RANDOM_LEN + 5];

impl Channel {
    /// The context of the next frame that this side sends.
    fn next_sent(&mut self, from_client: bool) -> FrameContext {
        let context = self.context(from_client, self.sent);
        self.sent = self.sent.wrapping_add(1);
        context
    }

    /// The context of the next frame that this side receives.
    fn next_received(&mut self, from_client: bool) -> FrameContext {
        let context = self.context(from_client, self.taken);
        self.taken = self.taken.wrapping_add(1);
        context
    }

    fn context(&self, from_client: bool, number: u32) -> FrameContext {
        let mut context = [0; 2 * RANDOM_LEN + 5];
        context[..RANDOM_LEN].copy_from_slice(&self.client);
        context[RANDOM_LEN..2 * RANDOM_LEN].copy_from_slice(&self.server);
        context[2 * RANDOM_LEN] = u8::from(from_client);
        context[2 * RANDOM_LEN + 1..].copy_from_slice(&number.to_be_bytes());
        context
    }
}

fn put_key(key: &RecordKey, out: &mut Vec<u8>) {
    out.extend_from_slice(&key.member);
    out.extend_from_slice(&key.cluster.to_be_bytes());
}

fn put_head(key: &RecordKey, edition: &Edition, out: &mut Vec<u8>) {
    put_key(key, out);
    out.extend_from_slice(&edition.epoch.to_be_bytes());
    out.extend_from_slice(&edition.version.to_be_bytes());
}

fn take_key(bytes: &mut &[u8]) -> Result<RecordKey, CodecError> {
    Ok(RecordKey {
        member: take_array(bytes)?,
        cluster: take_u64(bytes)?,
    })
}

fn bucket(member: &MemberKey) -> usize {
    xxh3_64(member) as usize % BUCKETS
}

/// What a push-pull needs of a member.
impl Node {
    fn seal_frame(&mut self, kind: u8, context: &[u8], body: &[u8]) -> Vec<u8> {
        let nonce = self.random_bytes();
        let keyring = self.keyring();
        let mut out = Vec::with_capacity(body.len() + OVERHEAD);
        keyring.seal(kind, context, nonce, body, &mut out);
        out
    }

    /// All members with their states. This one is included unless it gives way to another run.
    fn known(&self) -> impl Iterator<Item = Member<Identity>> {
        let own = self.identity();
        let alive = (!self.in_conflict()).then(|| Member::new(own, 0, State::Alive));
        self.members()
            .filter(move |member| member.id().key() != own.key())
            .cloned()
            .chain(alive)
    }

    /// For each bucket a hash of the active members, and one of the announcements. Each is a sum, so that the order
    /// does not matter.
    fn hashes(&self) -> [[u64; BUCKETS]; 2] {
        let mut hashes = [[0u64; BUCKETS]; 2];
        for member in self.known().filter(|m| m.state() != State::Down) {
            let hash = &mut hashes[0][bucket(&member.id().key())];
            *hash = hash.wrapping_add(xxh3_64(member.id().as_bytes()));
        }
        let mut bytes = Vec::with_capacity(HEAD_LEN);
        for (key, stored) in self.records().iter() {
            bytes.clear();
            put_head(&key, &stored.edition(), &mut bytes);
            let hash = &mut hashes[1][bucket(&key.member)];
            *hash = hash.wrapping_add(xxh3_64(&bytes));
        }
        hashes
    }
}

#[cfg(test)]
mod tests;
