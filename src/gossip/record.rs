//! What an agent announces of its service, in at most [`MAX_RECORD`] bytes; the newest version wins.
//!
//! Decided 2026-11: it carries neither a coarse load nor tags. Proxies count what they have in flight and measure what
//! answers take, which is newer than a word that goes round, and each change of it would be told to all; no route and no
//! policy asks for tags, and zone and build have fields of their own.

use std::net::SocketAddr;

use super::codec::{CodecError, take, take_array, take_u8, take_u16, take_u64};
use super::identity::{MAX_EPOCH, is_possible, pack_address, unpack_address};
use super::token::PUBLIC_LEN;

/// Longest encoded announcement, bytes: record, token and signature together.
pub(crate) const MAX_RECORD: usize = 512;
/// Longest name of an agent and of a cluster, bytes.
pub(crate) const MAX_NAME: usize = 64;
/// Longest zone and build version, bytes.
pub(crate) const MAX_WORD: usize = 32;
/// Largest weight.
pub(crate) const MAX_WEIGHT: u16 = 1000;
/// Largest version in a run: a change each second for twelve days. A member that has used them up begins another run, so
/// that no false word uses them up for good.
pub(crate) const MAX_VERSION: u64 = 1 << 20;

/// How a service is, by its own agent's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServiceState {
    /// Not checked yet.
    Starting,
    /// Its local check passes.
    Ready,
    /// Its local check fails.
    Failing,
    /// Ends soon: nothing new.
    Draining,
    /// Has ended in order.
    Left,
}

impl ServiceState {
    /// All of them, in the order of their codes on the wire.
    pub const ALL: [Self; 5] = [
        Self::Starting,
        Self::Ready,
        Self::Failing,
        Self::Draining,
        Self::Left,
    ];

    fn code(self) -> u8 {
        self as u8
    }

    /// Word of status, log and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Failing => "failing",
            Self::Draining => "draining",
            Self::Left => "left",
        }
    }
}

/// A service, as its agent announces it. Texts are printable UTF-8 without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Of the agent, for people; at most [`MAX_NAME`] bytes.
    pub name: String,
    /// What proxies `discover`; 1 to [`MAX_NAME`] bytes.
    pub cluster: String,
    /// Where the service is reached.
    pub backend: SocketAddr,
    /// 0 to [`MAX_WEIGHT`].
    pub weight: u16,
    /// At most [`MAX_WORD`] bytes; empty: none.
    pub zone: String,
    /// How it is.
    pub state: ServiceState,
    /// Version of the service; at most [`MAX_WORD`] bytes; empty: unknown.
    pub build: String,
}

/// A record under the name of the run that announces it, as it travels.
///
/// `format 1 (1) · member (18) · epoch (8) · version (8) · state (1) · weight (2) · backend (18) · name · cluster ·
/// zone · build (length (1) and text each) · token (length (2) and bytes, length 0: none)`, and behind a token the
/// agent's signature (64) over all before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement<'a> {
    /// The member, as its identity has it.
    pub member: [u8; 18],
    /// Its run.
    pub epoch: u64,
    /// Grows with each change in a run.
    pub version: u64,
    /// What it says.
    pub record: Record,
    /// The operator's token, if it has one.
    pub token: &'a [u8],
    /// What is signed.
    pub signed: &'a [u8],
    /// By the key that the token names; empty without a token.
    pub signature: &'a [u8],
}

const FORMAT: u8 = 1;
const SIGNATURE_LEN: usize = 64;

/// Why a record cannot be announced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A text is too long.
    #[error("the {0} is longer than {1} bytes")]
    Long(&'static str, usize),
    /// A text holds control characters.
    #[error("the {0} holds a control character")]
    Text(&'static str),
    /// No cluster.
    #[error("the cluster has no name")]
    NoCluster,
    /// A weight that is too large.
    #[error("the weight is above {MAX_WEIGHT}")]
    Weight,
    /// An address that is none.
    #[error("the backend's address is not one that can be connected to")]
    Backend,
    /// All together is too long.
    #[error(
        "name, cluster, zone, build and token together make {0} bytes, {MAX_RECORD} are the most"
    )]
    Size(usize),
}

impl Record {
    /// Whether it keeps to the limits.
    ///
    /// # Errors
    /// The first that it does not keep to.
    pub fn check(&self) -> Result<(), RecordError> {
        let texts = [
            ("name", &self.name, MAX_NAME),
            ("cluster", &self.cluster, MAX_NAME),
            ("zone", &self.zone, MAX_WORD),
            ("build", &self.build, MAX_WORD),
        ];
        for (what, text, most) in texts {
            if text.len() > most {
                return Err(RecordError::Long(what, most));
            }
            if text.chars().any(char::is_control) {
                return Err(RecordError::Text(what));
            }
        }
        if self.cluster.is_empty() {
            return Err(RecordError::NoCluster);
        }
        if self.weight > MAX_WEIGHT {
            return Err(RecordError::Weight);
        }
        if !is_possible(self.backend) {
            return Err(RecordError::Backend);
        }
        Ok(())
    }

    /// The announcement of it by run `epoch` of `member`, without its signature: what an agent with a token signs and
    /// then appends its signature to.
    ///
    /// # Errors
    /// If it breaks a limit, or is too long together with `token` and a signature.
    pub fn encode(
        &self,
        member: &[u8; 18],
        epoch: u64,
        version: u64,
        token: &[u8],
    ) -> Result<Vec<u8>, RecordError> {
        self.check()?;
        let mut out = Vec::with_capacity(MAX_RECORD);
        out.push(FORMAT);
        out.extend_from_slice(member);
        out.extend_from_slice(&epoch.to_be_bytes());
        out.extend_from_slice(&version.to_be_bytes());
        out.push(self.state.code());
        out.extend_from_slice(&self.weight.to_be_bytes());
        out.extend_from_slice(&pack_address(self.backend));
        for text in [&self.name, &self.cluster, &self.zone, &self.build] {
            out.push(text.len() as u8);
            out.extend_from_slice(text.as_bytes());
        }
        let signature = if token.is_empty() { 0 } else { SIGNATURE_LEN };
        let whole = out.len() + 2 + token.len() + signature;
        if whole > MAX_RECORD {
            return Err(RecordError::Size(whole));
        }
        out.extend_from_slice(&(token.len() as u16).to_be_bytes());
        out.extend_from_slice(token);
        Ok(out)
    }
}

impl<'a> Announcement<'a> {
    /// The agent key that its token names, which nothing vouches for yet; `None` without a token.
    pub fn agent(&self) -> Option<[u8; PUBLIC_LEN]> {
        self.token.first_chunk().copied()
    }

    /// The announcement in `bytes`, which must hold nothing else.
    ///
    /// # Errors
    /// If it is none, or breaks a limit.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, CodecError> {
        if bytes.len() > MAX_RECORD {
            return Err(CodecError::Trailing);
        }
        let mut rest = bytes;
        if take_u8(&mut rest)? != FORMAT {
            return Err(CodecError::Value);
        }
        let member = take_array(&mut rest)?;
        let (epoch, version) = (take_u64(&mut rest)?, take_u64(&mut rest)?);
        if epoch > MAX_EPOCH || version > MAX_VERSION {
            return Err(CodecError::Value);
        }
        let state = *ServiceState::ALL
            .get(usize::from(take_u8(&mut rest)?))
            .ok_or(CodecError::Value)?;
        let weight = take_u16(&mut rest)?;
        let backend = unpack_address(&take_array(&mut rest)?);
        let mut text = || {
            let length = take_u8(&mut rest)?;
            let text = take(&mut rest, usize::from(length))?;
            String::from_utf8(text.to_vec()).map_err(|_| CodecError::Value)
        };
        let record = Record {
            name: text()?,
            cluster: text()?,
            zone: text()?,
            build: text()?,
            backend,
            weight,
            state,
        };
        record.check().map_err(|_| CodecError::Value)?;
        let token_len = take_u16(&mut rest)?;
        let token = take(&mut rest, usize::from(token_len))?;
        let signed = &bytes[..bytes.len() - rest.len()];
        let signature = if token.is_empty() {
            &[][..]
        } else {
            take(&mut rest, SIGNATURE_LEN)?
        };
        if !rest.is_empty() {
            return Err(CodecError::Trailing);
        }
        Ok(Self {
            member,
            epoch,
            version,
            record,
            token,
            signed,
            signature,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> Record {
        Record {
            name: "host-1".to_owned(),
            cluster: "web".to_owned(),
            backend: "10.0.0.1:8080".parse().unwrap(),
            weight: 3,
            zone: "a".to_owned(),
            state: ServiceState::Ready,
            build: "1.2.3".to_owned(),
        }
    }

    #[test]
    fn an_announcement_is_read_as_it_was_written() {
        let member = pack_address("10.0.0.1:7946".parse().unwrap());
        for (token, signature) in [(&[][..], &[][..]), (&[9; 100][..], &[7; 64][..])] {
            let mut bytes = record().encode(&member, 5, 6, token).unwrap();
            let signed = bytes.clone();
            bytes.extend_from_slice(signature);
            let read = Announcement::decode(&bytes).unwrap();
            assert_eq!((read.member, read.epoch, read.version), (member, 5, 6));
            assert_eq!(read.record, record());
            assert_eq!((read.token, read.signature), (token, signature));
            assert_eq!(read.signed, signed);
            for end in 0..bytes.len() {
                assert!(Announcement::decode(&bytes[..end]).is_err(), "cut at {end}");
            }
            bytes.push(0);
            assert!(Announcement::decode(&bytes).is_err());
        }
    }

    #[test]
    fn limits_are_named() {
        let with = |change: fn(&mut Record)| {
            let mut record = record();
            change(&mut record);
            record.encode(&[0; 18], 1, 1, &[]).unwrap_err().to_string()
        };
        for (change, error) in [
            (
                (|r| r.name = "x".repeat(65)) as fn(&mut Record),
                "the name is longer than 64 bytes",
            ),
            (
                |r| r.zone = "x".repeat(33),
                "the zone is longer than 32 bytes",
            ),
            (
                |r| r.build = "1\n2".to_owned(),
                "the build holds a control character",
            ),
            (|r| r.cluster = String::new(), "the cluster has no name"),
            (|r| r.weight = 1001, "the weight is above 1000"),
            (
                |r| r.backend = "0.0.0.0:80".parse().unwrap(),
                "the backend's address is not one that can be connected to",
            ),
        ] {
            assert_eq!(with(change), error);
        }
        let mut long = record();
        long.name = "n".repeat(64);
        long.cluster = "c".repeat(64);
        assert!(long.encode(&[0; 18], 1, 1, &[0; 150]).is_ok());
        assert!(matches!(
            long.encode(&[0; 18], 1, 1, &[0; 300]),
            Err(RecordError::Size(_))
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Announcement::decode(&bytes);
        }

        #[test]
        fn a_changed_byte_is_another_announcement_or_none(at in 0usize..90, to in any::<u8>()) {
            let bytes = record().encode(&[1; 18], 5, 6, &[]).unwrap();
            let mut changed = bytes.clone();
            let at = at % bytes.len();
            changed[at] = to;
            if let Ok(read) = Announcement::decode(&changed) {
                let again = read.record.encode(&read.member, read.epoch, read.version, read.token);
                prop_assert_eq!(again.unwrap(), changed);
            }
        }
    }
}
