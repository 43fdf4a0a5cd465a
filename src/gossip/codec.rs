//! The bytes that members exchange, before sealing. Layouts are fixed and numbers big-endian; every length is checked,
//! and an impossible value is refused.
//!
//! A datagram's body is `kind (1) · sequence (8) · sender (27)`, and then depends on the kind:
//!
//! | kind | rest |
//! |---|---|
//! | 1 SWIM | what foca wrote: `incarnation (2) · receiver (27) · message`, then `count (2)` and members |
//! | 2 challenge | `whom (27) · challenge (16)`: prove that you are this run and live |
//! | 3 echo | `challenge (16)` |
//! | 4 newer | `about (8) · epoch (8)`: your run is `about`, but your address is known in `epoch`; if both are equal, as down |
//! | 5 records | `age ms (4) · length (2) · announcement`, repeated |
//! | 6 prove | `whom (27) · challenge (16)`: if you are this run, prove which agent key you announce with |
//! | 7 proof | `challenge (16) · agent key (32) · signature (64)` over label, run and challenge |
//!
//! A member is `identity (27) · incarnation (2) · state (1)`. One that is down in the greatest incarnation has itself
//! said that it left: refuting never gets that far, and a member that others find down keeps its incarnation.

use std::time::Duration;

use bytes::{Buf, BufMut};
use foca::{Header, Member, Message, State};

use super::identity::{IDENTITY_LEN, Identity};

/// Length of an encoded member, bytes.
pub const MEMBER_LEN: usize = IDENTITY_LEN + 3;
/// Length of a datagram's body up to the part that depends on its kind.
pub const PREFIX_LEN: usize = 1 + 8 + IDENTITY_LEN;
/// Length of a challenge.
pub const CHALLENGE_LEN: usize = 16;

/// Tag of foca's ping.
const PING: u8 = 0;
/// State of a suspect member, its last byte.
pub const SUSPECT: u8 = 1;

/// State of a member that is down, its last byte.
const DOWN: u8 = 2;
/// Incarnation of a member that is down because it left.
const LEFT: u16 = u16::MAX;

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// They end too early, or there is no room to write them.
    #[error("the bytes end too early")]
    Truncated,
    /// They continue after the end of the message.
    #[error("there are bytes after the end")]
    Trailing,
    /// A field has a value that it cannot have.
    #[error("a field holds an impossible value")]
    Value,
}

/// What a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramKind {
    /// A message of foca.
    Swim = 1,
    /// A question that only the live run can answer.
    Challenge = 2,
    /// The answer to a challenge.
    Echo = 3,
    /// Tells a run that it is not the newest at its address.
    Newer = 4,
    /// Announcements, to proxies.
    Records = 5,
    /// Asks a run for its agent key.
    Prove = 6,
    /// The answer to that.
    Proof = 7,
}

/// A datagram's first fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatagramPrefix {
    /// What follows.
    pub kind: DatagramKind,
    /// Counts the datagrams of the sender's run.
    pub sequence: u64,
    /// Who sent it.
    pub sender: Identity,
}

impl DatagramPrefix {
    /// Writes the first two fields; the sender follows.
    pub fn write_start(kind: DatagramKind, sequence: u64, out: &mut Vec<u8>) {
        out.push(kind as u8);
        out.extend_from_slice(&sequence.to_be_bytes());
    }

    /// Reads the prefix of a body. The body stays whole, since foca's own header begins with the sender.
    ///
    /// # Errors
    /// The body has no valid prefix.
    pub fn read(body: &[u8]) -> Result<Self, CodecError> {
        let mut rest = body;
        let kind = match take_u8(&mut rest)? {
            1 => DatagramKind::Swim,
            2 => DatagramKind::Challenge,
            3 => DatagramKind::Echo,
            4 => DatagramKind::Newer,
            5 => DatagramKind::Records,
            6 => DatagramKind::Prove,
            7 => DatagramKind::Proof,
            _ => return Err(CodecError::Value),
        };
        Ok(Self {
            kind,
            sequence: take_u64(&mut rest)?,
            sender: take_identity(&mut rest)?,
        })
    }
}

/// Takes the first `count` bytes.
pub fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], CodecError> {
    let (first, rest) = bytes.split_at_checked(count).ok_or(CodecError::Truncated)?;
    *bytes = rest;
    Ok(first)
}

/// Takes exactly `N` bytes.
pub fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], CodecError> {
    let first = take(bytes, N)?;
    Ok(std::array::from_fn(|i| first[i]))
}

/// Takes a byte.
pub fn take_u8(bytes: &mut &[u8]) -> Result<u8, CodecError> {
    Ok(take_array::<1>(bytes)?[0])
}

/// Takes two bytes as a number.
pub fn take_u16(bytes: &mut &[u8]) -> Result<u16, CodecError> {
    take_array(bytes).map(u16::from_be_bytes)
}

/// Takes four bytes as a number.
pub fn take_u32(bytes: &mut &[u8]) -> Result<u32, CodecError> {
    take_array(bytes).map(u32::from_be_bytes)
}

/// Takes eight bytes as a number.
pub fn take_u64(bytes: &mut &[u8]) -> Result<u64, CodecError> {
    take_array(bytes).map(u64::from_be_bytes)
}

/// Takes an identity.
pub fn take_identity(bytes: &mut &[u8]) -> Result<Identity, CodecError> {
    Identity::from_bytes(&take_array(bytes)?).ok_or(CodecError::Value)
}

/// Takes a member.
pub fn take_member(bytes: &mut &[u8]) -> Result<Member<Identity>, CodecError> {
    let identity = take_identity(bytes)?;
    let incarnation = take_u16(bytes)?;
    let state = match take_u8(bytes)? {
        0 => State::Alive,
        SUSPECT => State::Suspect,
        DOWN => State::Down,
        _ => return Err(CodecError::Value),
    };
    Ok(Member::new(identity, incarnation, state))
}

/// Reads all of `bytes`, which must be `N` bytes.
pub fn exactly<const N: usize>(mut bytes: &[u8]) -> Result<[u8; N], CodecError> {
    let taken = take_array(&mut bytes)?;
    if bytes.is_empty() {
        Ok(taken)
    } else {
        Err(CodecError::Trailing)
    }
}

/// Writes an announcement with its age.
pub fn put_record(bytes: &[u8], age: Duration, out: &mut Vec<u8>) {
    let age = u32::try_from(age.as_millis()).unwrap_or(u32::MAX);
    out.extend_from_slice(&age.to_be_bytes());
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Takes an announcement with its age.
pub fn take_record<'a>(bytes: &mut &'a [u8]) -> Result<(Duration, &'a [u8]), CodecError> {
    let age = Duration::from_millis(u64::from(take_u32(bytes)?));
    let length = take_u16(bytes)?;
    let record = take(bytes, usize::from(length))?;
    Ok((age, record))
}

/// Writes a member.
pub fn put_member(member: &Member<Identity>, out: &mut impl BufMut) {
    out.put_slice(member.id().as_bytes());
    out.put_u16(member.incarnation());
    out.put_u8(match member.state() {
        State::Alive => 0,
        State::Suspect => SUSPECT,
        State::Down => DOWN,
    });
}

/// Whether a member is down because it left.
pub fn has_left(member: &Member<Identity>) -> bool {
    member.state() == State::Down && member.incarnation() == LEFT
}

/// Marks `whom` as having left wherever a SWIM message reports it as down.
pub fn mark_left(data: &mut [u8], whom: &Identity) {
    let Ok(Some((start, _))) = members_of(data) else {
        return;
    };
    for member in data[start..].chunks_exact_mut(MEMBER_LEN) {
        if member.starts_with(whom.as_bytes()) && member[MEMBER_LEN - 1] == DOWN {
            member[IDENTITY_LEN..MEMBER_LEN - 1].copy_from_slice(&LEFT.to_be_bytes());
        }
    }
}

/// Writes what follows the sender in a ping that tells its receiver how it is known here. The sender's incarnation is
/// the lowest, which carries no news; the probe number belongs to no probe, so the answer counts for none.
pub fn put_ping(receiver: &Member<Identity>, out: &mut Vec<u8>) {
    out.put_u16(0);
    out.put_slice(receiver.id().as_bytes());
    out.put_u8(PING);
    out.put_u8(0);
    out.put_u16(1);
    put_member(receiver, out);
}

/// Finds the members in a SWIM message: where they start, after foca's header and their count, and how many they are.
/// `None` if the message carries none.
///
/// # Errors
/// It is not a SWIM message.
pub fn members_of(data: &[u8]) -> Result<Option<(usize, u16)>, CodecError> {
    let mut rest = data;
    let header = read_header(&mut rest)?;
    let carries = !matches!(
        header.message,
        Message::Announce | Message::TurnUndead | Message::Broadcast
    );
    if !carries || rest.is_empty() {
        return Ok(None);
    }
    let count = take_u16(&mut rest)?;
    if rest.len() != usize::from(count) * MEMBER_LEN {
        return Err(CodecError::Truncated);
    }
    Ok(Some((data.len() - rest.len(), count)))
}

fn read_header(bytes: &mut &[u8]) -> Result<Header<Identity>, CodecError> {
    let src = take_identity(bytes)?;
    let src_incarnation = take_u16(bytes)?;
    let dst = take_identity(bytes)?;
    let tag = take_u8(bytes)?;
    let probe_number = if tag <= 5 { take_u8(bytes)? } else { 0 };
    let message = match tag {
        PING => Message::Ping(probe_number),
        1 => Message::Ack(probe_number),
        2 => Message::PingReq {
            target: take_identity(bytes)?,
            probe_number,
        },
        3 => Message::IndirectPing {
            origin: take_identity(bytes)?,
            probe_number,
        },
        4 => Message::IndirectAck {
            target: take_identity(bytes)?,
            probe_number,
        },
        5 => Message::ForwardedAck {
            origin: take_identity(bytes)?,
            probe_number,
        },
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        9 => Message::TurnUndead,
        _ => return Err(CodecError::Value),
    };
    Ok(Header {
        src,
        src_incarnation,
        dst,
        message,
    })
}

fn header_parts(message: &Message<Identity>) -> (u8, Option<u8>, Option<&Identity>) {
    match message {
        Message::Ping(number) => (PING, Some(*number), None),
        Message::Ack(number) => (1, Some(*number), None),
        Message::PingReq {
            target,
            probe_number,
        } => (2, Some(*probe_number), Some(target)),
        Message::IndirectPing {
            origin,
            probe_number,
        } => (3, Some(*probe_number), Some(origin)),
        Message::IndirectAck {
            target,
            probe_number,
        } => (4, Some(*probe_number), Some(target)),
        Message::ForwardedAck {
            origin,
            probe_number,
        } => (5, Some(*probe_number), Some(origin)),
        Message::Announce => (6, None, None),
        Message::Feed => (7, None, None),
        Message::Gossip => (8, None, None),
        Message::TurnUndead => (9, None, None),
        // Announcements travel in a datagram kind of their own.
        Message::Broadcast => (10, None, None),
    }
}

/// Encodes and decodes foca's messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct WireCodec;

impl foca::Codec<Identity> for WireCodec {
    type Error = CodecError;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        mut out: impl BufMut,
    ) -> Result<(), CodecError> {
        let (tag, number, identity) = header_parts(&header.message);
        let length = 2 * IDENTITY_LEN
            + 3
            + usize::from(number.is_some())
            + identity.map_or(0, |_| IDENTITY_LEN);
        if out.remaining_mut() < length {
            return Err(CodecError::Truncated);
        }
        out.put_slice(header.src.as_bytes());
        out.put_u16(header.src_incarnation);
        out.put_slice(header.dst.as_bytes());
        out.put_u8(tag);
        if let Some(number) = number {
            out.put_u8(number);
        }
        if let Some(identity) = identity {
            out.put_slice(identity.as_bytes());
        }
        Ok(())
    }

    fn decode_header(&mut self, mut bytes: impl Buf) -> Result<Header<Identity>, CodecError> {
        // foca passes slices: one chunk holds everything.
        let mut rest = bytes.chunk();
        let before = rest.len();
        let header = read_header(&mut rest)?;
        let used = before - rest.len();
        bytes.advance(used);
        Ok(header)
    }

    fn encode_member(
        &mut self,
        member: &Member<Identity>,
        mut out: impl BufMut,
    ) -> Result<(), CodecError> {
        if out.remaining_mut() < MEMBER_LEN {
            return Err(CodecError::Truncated);
        }
        put_member(member, &mut out);
        Ok(())
    }

    fn decode_member(&mut self, mut bytes: impl Buf) -> Result<Member<Identity>, CodecError> {
        let mut rest = bytes.chunk();
        let member = take_member(&mut rest)?;
        bytes.advance(MEMBER_LEN);
        Ok(member)
    }
}
