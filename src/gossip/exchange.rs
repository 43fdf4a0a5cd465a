//! Push-pull: two members compare all that they know over a stream, and each takes what it lacks. This is how a
//! member learns the set when it joins, and how what gossip has lost is repaired. Without I/O: frames in, frames out.
//!
//! The known is spread over 256 buckets by the member's address. Each side sums up a bucket in a hash, and only those
//! that differ are told, so that two members that agree exchange 4 KiB however large the set is.
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
//! From the summary on every frame is sealed in the context of both sides' randoms, its direction and its number, so
//! that no frame of another stream, or of this one at another place, is taken.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use foca::{Member, State};
use xxhash_rust::xxh3::xxh3_64;

use super::Time;
use super::codec::{
    CodecError, MEMBER_LEN, put_member, take, take_array, take_identity, take_member, take_u8,
    take_u64,
};
use super::identity::{Identity, Role, pack_address};
use super::keyring::{OVERHEAD, Refusal};
use super::node::{Node, ON_THE_WAY, put_record, take_record};
use super::records::{Edition, RecordKey};

/// Largest frame, bytes, its length (4) not counted.
pub const MAX_FRAME: usize = 32 * 1024;
/// Most bytes that one side takes in one exchange: a set of 10,000 with all announcements takes 6 MB.
pub(crate) const MAX_BYTES: usize = 8 * 1024 * 1024;

const BUCKETS: usize = 256;
const RANDOM_LEN: usize = 32;
const HELLO: u8 = 2;
const FRAME: u8 = 3;
/// Room in a frame for its parts.
const ROOM: usize = MAX_FRAME - OVERHEAD - 1;
const HEAD_LEN: usize = 18 + 8 + 16;
const WANT_LEN: usize = 18 + 8;

const SUMMARY: u8 = 1;
const DIFFERS: u8 = 2;
const MEMBERS: u8 = 3;
const HEADS: u8 = 4;
const RECORDS: u8 = 5;
const WANTS: u8 = 6;
const DONE: u8 = 7;

/// Why an exchange ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// A frame is not opened.
    #[error("a frame cannot be opened: {0}")]
    Seal(#[from] Refusal),
    /// A frame is no frame, or not one that may come now.
    #[error("a frame is malformed or out of turn")]
    Malformed,
    /// More than one exchange may carry.
    #[error("the other side sends more than any set has")]
    TooMuch,
    /// It is this member itself, or another run of it.
    #[error("the other side is this member itself")]
    Own,
}

impl From<CodecError> for ExchangeError {
    fn from(_: CodecError) -> Self {
        Self::Malformed
    }
}

/// Whether more is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It goes on.
    Going,
    /// Both sides have what they lacked.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The server waits for the first frame.
    Hello,
    /// The client waits for the answer to it.
    Welcome,
    /// The server waits for the hashes.
    Summary,
    /// The client waits for what differs.
    Differences,
    /// The server waits for what it lacks.
    Answers,
    /// The client waits for what it wanted.
    Wanted,
}

/// One side of an exchange.
#[derive(Debug)]
pub struct Exchange {
    stage: Stage,
    client: [u8; RANDOM_LEN],
    server: [u8; RANDOM_LEN],
    peer: Option<Identity>,
    /// Where the client has found the server.
    dialled: Option<[u8; 18]>,
    sent: u32,
    taken: u32,
    bytes: usize,
    /// Buckets that differ.
    differs: [bool; BUCKETS],
    /// Members that the peer has exactly as this one.
    same: HashSet<[u8; 18]>,
    /// Announcements that the peer has.
    heads: HashMap<RecordKey, Edition>,
    members: Vec<Member<Identity>>,
    wants: Vec<RecordKey>,
}

impl Exchange {
    /// The side that asks the member at `dialled`, and its first frame.
    pub fn client(node: &mut Node, dialled: SocketAddr, now: Time) -> (Self, Vec<u8>) {
        node.set_now(now);
        let mut exchange = Self::new(Stage::Welcome);
        exchange.dialled = Some(pack_address(dialled));
        exchange.client = node.random();
        let mut body = exchange.client.to_vec();
        body.extend_from_slice(node.identity().as_bytes());
        let frame = node.seal_frame(HELLO, &[], &body);
        (exchange, frame)
    }

    /// The side that is asked.
    pub fn server() -> Self {
        Self::new(Stage::Hello)
    }

    fn new(stage: Stage) -> Self {
        Self {
            stage,
            client: [0; RANDOM_LEN],
            server: [0; RANDOM_LEN],
            peer: None,
            dialled: None,
            sent: 0,
            taken: 0,
            bytes: 0,
            differs: [false; BUCKETS],
            same: HashSet::new(),
            heads: HashMap::new(),
            members: Vec::new(),
            wants: Vec::new(),
        }
    }

    /// Takes a frame; what is to be sent is appended to `out`, a frame each.
    ///
    /// # Errors
    /// Why the exchange is over. What was taken before stays taken: all of it was sealed.
    pub fn take(
        &mut self,
        node: &mut Node,
        frame: &mut [u8],
        out: &mut Vec<Vec<u8>>,
        now: Time,
    ) -> Result<Progress, ExchangeError> {
        node.set_now(now);
        self.bytes += frame.len();
        if frame.len() > MAX_FRAME || self.bytes > MAX_BYTES {
            return Err(ExchangeError::TooMuch);
        }
        match self.stage {
            Stage::Hello => self.welcome(node, frame, out),
            Stage::Welcome => self.summarise(node, frame, out),
            _ => {
                let context = self.context(!self.is_client(), self.taken);
                self.taken = self.taken.wrapping_add(1);
                let keyring = node.keyring();
                let body = keyring.open(FRAME, &context, frame)?;
                self.part(node, body, out)
            }
        }
    }

    fn is_client(&self) -> bool {
        matches!(
            self.stage,
            Stage::Welcome | Stage::Differences | Stage::Wanted
        )
    }

    /// Hello to welcome.
    fn welcome(
        &mut self,
        node: &mut Node,
        frame: &mut [u8],
        out: &mut Vec<Vec<u8>>,
    ) -> Result<Progress, ExchangeError> {
        let keyring = node.keyring();
        let mut body = keyring.open(HELLO, &[], frame)?;
        self.client = take_array(&mut body)?;
        // Another run at the own address is answered too, so that it finds this one there.
        self.meet(node, &mut body)?;
        self.server = node.random();
        let mut body = self.server.to_vec();
        body.extend_from_slice(node.identity().as_bytes());
        out.push(node.seal_frame(HELLO, &self.client, &body));
        self.stage = Stage::Summary;
        Ok(Progress::Going)
    }

    /// Welcome to summary.
    fn summarise(
        &mut self,
        node: &mut Node,
        frame: &mut [u8],
        out: &mut Vec<Vec<u8>>,
    ) -> Result<Progress, ExchangeError> {
        let keyring = node.keyring();
        let mut body = keyring.open(HELLO, &self.client, frame)?;
        self.server = take_array(&mut body)?;
        let peer = self.meet(node, &mut body)?;
        if self.is_own(node) {
            // Only who is reached where it was dialled answers in the context of the client's random.
            if self.dialled == Some(peer.key()) {
                node.found_at_own_address(&peer);
            }
            return Err(ExchangeError::Own);
        }
        let hashes = node.hashes();
        let mut body = Vec::with_capacity(2 * BUCKETS * 8);
        let count = if node.keeps_all() { 2 } else { 1 };
        for table in &hashes[..count] {
            table
                .iter()
                .for_each(|hash| body.extend_from_slice(&hash.to_be_bytes()));
        }
        self.send(node, SUMMARY, &body, out);
        self.stage = Stage::Differences;
        Ok(Progress::Going)
    }

    fn meet(&mut self, node: &Node, rest: &mut &[u8]) -> Result<Identity, ExchangeError> {
        let peer = take_identity(rest)?;
        if !rest.is_empty() || node.horizon().excludes(peer.epoch()) {
            return Err(ExchangeError::Malformed);
        }
        self.peer = Some(peer);
        Ok(peer)
    }

    /// Whether the peer is at the own address.
    fn is_own(&self, node: &Node) -> bool {
        let own = node.identity().key();
        self.peer.is_some_and(|peer| peer.key() == own)
    }

    /// A frame behind the welcome.
    fn part(
        &mut self,
        node: &mut Node,
        mut body: &[u8],
        out: &mut Vec<Vec<u8>>,
    ) -> Result<Progress, ExchangeError> {
        if self.is_own(node) {
            return Err(ExchangeError::Own);
        }
        let kind = take_u8(&mut body)?;
        match (self.stage, kind) {
            (Stage::Summary, SUMMARY) => self.compare(node, body, out)?,
            (Stage::Differences, DIFFERS) => {
                let bits: [u8; BUCKETS / 8] = take_array(&mut body)?;
                for (i, differs) in self.differs.iter_mut().enumerate() {
                    *differs = bits[i / 8] & (1 << (i % 8)) != 0;
                }
            }
            (Stage::Differences | Stage::Answers, MEMBERS) => {
                while !body.is_empty() {
                    self.members.push(take_member(&mut body)?);
                }
            }
            (Stage::Differences, HEADS) => {
                while !body.is_empty() {
                    let key = take_key(&mut body)?;
                    let (epoch, version) = (take_u64(&mut body)?, take_u64(&mut body)?);
                    self.heads.insert(key, Edition { epoch, version });
                }
            }
            (Stage::Answers | Stage::Wanted, RECORDS) => {
                // The members come before what they announce.
                self.take_members(node);
                let joining = !node.has_joined();
                while !body.is_empty() {
                    let (age, bytes) = take_record(&mut body)?;
                    if node.keeps_all() {
                        node.take_record(bytes, age, !joining);
                    }
                }
            }
            (Stage::Answers, WANTS) => {
                while !body.is_empty() {
                    self.wants.push(take_key(&mut body)?);
                }
            }
            (Stage::Differences, DONE) => {
                self.answer(node, out);
                self.stage = Stage::Wanted;
            }
            (Stage::Answers, DONE) => {
                self.take_members(node);
                let wants = std::mem::take(&mut self.wants);
                self.send_records(node, wants.into_iter(), out);
                self.send(node, DONE, &[], out);
                return Ok(Progress::Done);
            }
            (Stage::Wanted, DONE) => return Ok(Progress::Done),
            _ => return Err(ExchangeError::Malformed),
        }
        Ok(Progress::Going)
    }

    /// The server's side: tells what differs.
    fn compare(
        &mut self,
        node: &mut Node,
        mut body: &[u8],
        out: &mut Vec<Vec<u8>>,
    ) -> Result<(), ExchangeError> {
        let own = node.hashes();
        let peer_keeps = self.peer.is_some_and(|peer| peer.role() == Role::Proxy);
        let count = if peer_keeps { 2 } else { 1 };
        for (table, own) in own.iter().enumerate().take(count) {
            // Announcements count only between two that keep them.
            let counts = table == 0 || node.keeps_all();
            for (differs, own) in self.differs.iter_mut().zip(own) {
                *differs |= counts && take_u64(&mut body)? != *own;
                if !counts {
                    take(&mut body, 8)?;
                }
            }
        }
        if !body.is_empty() {
            return Err(ExchangeError::Malformed);
        }
        let mut bits = [0u8; BUCKETS / 8];
        for (i, _) in self.differs.iter().enumerate().filter(|(_, d)| **d) {
            bits[i / 8] |= 1 << (i % 8);
        }
        self.send(node, DIFFERS, &bits, out);
        self.send_members(node, out);
        let mut heads = Vec::new();
        for (key, edition) in self.heads_of(node, peer_keeps) {
            put_key(&key, &mut heads);
            heads.extend_from_slice(&edition.epoch.to_be_bytes());
            heads.extend_from_slice(&edition.version.to_be_bytes());
        }
        self.send_parts(node, HEADS, &heads, HEAD_LEN, out);
        self.send(node, DONE, &[], out);
        self.stage = Stage::Answers;
        Ok(())
    }

    /// Announcements that the peer is told of: all that may differ between two that keep them; else those of the one
    /// that announces.
    fn heads_of(&self, node: &Node, peer_keeps: bool) -> Vec<(RecordKey, Edition)> {
        let both = peer_keeps && node.keeps_all();
        let (own, peer) = (node.identity().key(), self.peer.map(|peer| peer.key()));
        node.records()
            .iter()
            .filter(|(key, _)| match both {
                true => self.differs[bucket(&key.member)],
                false => (peer_keeps && key.member == own) || Some(key.member) == peer,
            })
            .map(|(key, stored)| (key, stored.edition()))
            .collect()
    }

    /// The client's side: takes what differs, and tells what the server lacks.
    fn answer(&mut self, node: &mut Node, out: &mut Vec<Vec<u8>>) {
        let known: HashMap<[u8; 18], Member<Identity>> = node
            .known()
            .map(|member| (member.id().key(), member))
            .collect();
        for told in &self.members {
            let key = told.id().key();
            if known.get(&key) == Some(told) {
                self.same.insert(key);
            }
        }
        // What this member has of its own is told before it takes over what the server has.
        self.send_members(node, out);
        self.take_members(node);
        self.look_for_impostors(node);
        let peer_keeps = self.peer.is_some_and(|peer| peer.role() == Role::Proxy);
        if peer_keeps {
            let newer: Vec<RecordKey> = self
                .heads_of(node, peer_keeps)
                .into_iter()
                .filter(|(key, edition)| self.heads.get(key).is_none_or(|known| known < edition))
                .map(|(key, _)| key)
                .collect();
            self.send_records(node, newer.into_iter(), out);
        }
        let mut wants = Vec::new();
        if node.keeps_all() {
            for (key, edition) in &self.heads {
                let known = node.records().edition(key);
                if known.is_none_or(|known| known < *edition) {
                    put_key(key, &mut wants);
                }
            }
        }
        self.send_parts(node, WANTS, &wants, WANT_LEN, out);
        self.send(node, DONE, &[], out);
    }

    /// The client's side: what is announced in the name of either in later versions than its own is somebody else's, unless
    /// the server has said it just now.
    fn look_for_impostors(&self, node: &mut Node) {
        let Some(peer) = self.peer.filter(|peer| self.dialled == Some(peer.key())) else {
            return;
        };
        let own = node.identity();
        let of = |run: &Identity, key: &RecordKey, edition: &Edition| {
            key.member == run.key() && edition.epoch == run.epoch()
        };
        for (key, told) in &self.heads {
            let Some(known) = node.records().get(key) else {
                continue;
            };
            let (edition, bytes) = (known.edition(), Arc::clone(&known.bytes));
            if of(&own, key, told) && *told > edition {
                return node.hear_of(&peer, own.epoch());
            }
            let recent = node.now().saturating_sub(known.announced.accepted) < ON_THE_WAY;
            let in_one_run = told.epoch == edition.epoch && of(&peer, key, told);
            if in_one_run && edition > *told && !recent {
                return node.tell_outdone(&peer, &bytes);
            }
        }
    }

    fn take_members(&mut self, node: &mut Node) {
        let members = std::mem::take(&mut self.members);
        if let Some(peer) = self.peer {
            let believed = self.dialled == Some(peer.key());
            node.take_members(&peer, believed, members);
        }
    }

    fn send_members(&mut self, node: &mut Node, out: &mut Vec<Vec<u8>>) {
        let mut bytes = Vec::new();
        for member in node.known() {
            let key = member.id().key();
            if self.differs[bucket(&key)] && !self.same.contains(&key) {
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
        let context = self.context(self.is_client(), self.sent);
        self.sent = self.sent.wrapping_add(1);
        let mut body = Vec::with_capacity(1 + parts.len());
        body.push(kind);
        body.extend_from_slice(parts);
        out.push(node.seal_frame(FRAME, &context, &body));
    }

    /// Both randoms, who sends, and the how manieth frame of that side it is.
    fn context(&self, from_client: bool, number: u32) -> [u8; 2 * RANDOM_LEN + 5] {
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

fn take_key(bytes: &mut &[u8]) -> Result<RecordKey, CodecError> {
    Ok(RecordKey {
        member: take_array(bytes)?,
        cluster: take_u64(bytes)?,
    })
}

fn bucket(member: &[u8; 18]) -> usize {
    xxh3_64(member) as usize % BUCKETS
}

/// What an exchange needs of a member.
impl Node {
    fn random(&mut self) -> [u8; RANDOM_LEN] {
        self.random_bytes()
    }

    fn seal_frame(&mut self, kind: u8, context: &[u8], body: &[u8]) -> Vec<u8> {
        let nonce = self.random_bytes();
        let keyring = self.keyring();
        let mut out = Vec::with_capacity(body.len() + OVERHEAD);
        keyring.seal(kind, context, nonce, body, &mut out);
        out
    }

    /// All members with their states, this one included, unless it gives way to another run.
    fn known(&self) -> impl Iterator<Item = Member<Identity>> {
        let own = self.identity();
        let alive = (!self.in_conflict()).then(|| Member::new(own, 0, State::Alive));
        self.members()
            .filter(move |member| member.id().key() != own.key())
            .cloned()
            .chain(alive)
    }

    /// For each bucket a hash of the active members, and one of the announcements. A sum, so that the order does not
    /// count.
    fn hashes(&self) -> [[u64; BUCKETS]; 2] {
        let mut hashes = [[0u64; BUCKETS]; 2];
        for member in self.known().filter(|m| m.state() != State::Down) {
            let hash = &mut hashes[0][bucket(&member.id().key())];
            *hash = hash.wrapping_add(xxh3_64(member.id().as_bytes()));
        }
        let mut bytes = Vec::with_capacity(HEAD_LEN);
        for (key, stored) in self.records().iter() {
            bytes.clear();
            put_key(&key, &mut bytes);
            let edition = stored.edition();
            bytes.extend_from_slice(&edition.epoch.to_be_bytes());
            bytes.extend_from_slice(&edition.version.to_be_bytes());
            let hash = &mut hashes[1][bucket(&key.member)];
            *hash = hash.wrapping_add(xxh3_64(&bytes));
        }
        hashes
    }
}

#[cfg(test)]
mod tests;
