//! What an agent announces about its service, in at most [`MAX_RECORD`] bytes. The newest version wins.
//!
//! Decided 2026-11: a record carries neither a coarse load nor tags. Proxies count the requests in flight and measure
//! response times, which is fresher than anything that is gossiped, and each change of a load would go to everybody. No
//! route and no policy asks for tags, and zone and build have fields of their own.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Time;
use super::codec::{CodecError, take, take_array, take_u8, take_u16, take_u64};
use super::ed25519::{PublicKey, SIGNATURE_LEN};
use super::identity::{MAX_EPOCH, MemberKey, is_possible, pack_address, unpack_address};

/// Longest encoded announcement, bytes: record, token and signature together.
pub(crate) const MAX_RECORD: usize = 512;
/// Longest name of an agent and of a cluster, bytes.
pub(crate) const MAX_NAME: usize = 64;
/// Longest zone and build version, bytes.
pub(crate) const MAX_WORD: usize = 32;
/// Largest weight.
pub(crate) const MAX_WEIGHT: u16 = 1000;
/// Largest version in a run: a change every second for twelve days. A member that has used them up begins another run,
/// so a forged record can never use them up for good.
pub(crate) const MAX_VERSION: u64 = 1 << 20;

/// The state of a service, as its own agent announces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServiceState {
    /// It has not been checked yet.
    Starting,
    /// Its local check passes.
    Ready,
    /// Its local check fails.
    Failing,
    /// It ends soon and takes no new requests.
    Draining,
    /// It has ended in order.
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

    /// Name in status, log and metrics.
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
    /// Name of the agent, for people; at most 64 bytes (`MAX_NAME`).
    pub name: String,
    /// Cluster that proxies `discover`; 1 to 64 bytes (`MAX_NAME`).
    pub cluster: String,
    /// Where proxies reach the service.
    pub backend: SocketAddr,
    /// Weight of the backend, 0 to 1000 (`MAX_WEIGHT`).
    pub weight: u16,
    /// Zone of the backend; at most 32 bytes (`MAX_WORD`), empty for none.
    pub zone: String,
    /// State of the service.
    pub state: ServiceState,
    /// Version of the service; at most 32 bytes (`MAX_WORD`), empty if unknown.
    pub build: String,
}

/// A record together with the run that announces it, as it travels.
///
/// `format 1 (1) · member (18) · epoch (8) · version (8) · state (1) · weight (2) · backend (18) · name · cluster ·
/// zone · build (length (1) and text each) · token (length (2) and bytes; length 0 for none)`, and after a token the
/// agent's signature (64) over everything before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement<'a> {
    /// The member that announces.
    pub member: MemberKey,
    /// Its run.
    pub epoch: u64,
    /// Grows with each change in a run.
    pub version: u64,
    /// What it announces.
    pub record: Record,
    /// The operator's token; empty for none.
    pub token: &'a [u8],
    /// The bytes that are signed.
    pub signed: &'a [u8],
    /// Signature by the key that the token names; empty without a token.
    pub signature: &'a [u8],
}

const FORMAT: u8 = 1;

/// Why a record cannot be announced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A text is too long.
    #[error("the {0} is longer than {1} bytes")]
    Long(&'static str, usize),
    /// A text holds control characters.
    #[error("the {0} holds a control character")]
    Text(&'static str),
    /// The cluster has no name.
    #[error("the cluster has no name")]
    NoCluster,
    /// The weight is too large.
    #[error("the weight is above {MAX_WEIGHT}")]
    Weight,
    /// Nothing can be reached at the address.
    #[error("the backend's address is not one that can be connected to")]
    Backend,
    /// The encoded record is too long.
    #[error(
        "name, cluster, zone, build and token together take {0} bytes, at most {MAX_RECORD} are allowed"
    )]
    Size(usize),
}

impl Record {
    /// Checks the limits.
    ///
    /// # Errors
    /// The first limit that is exceeded.
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

    /// Encodes the announcement by run `epoch` of `member`, without its signature. An agent with a token signs these
    /// bytes and appends the signature.
    ///
    /// # Errors
    /// The record exceeds a limit, or is too long together with `token` and a signature.
    pub fn encode(
        &self,
        member: &MemberKey,
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
    /// The agent key that its token names, which is not verified yet; `None` without a token.
    pub fn agent(&self) -> Option<PublicKey> {
        self.token.first_chunk().copied()
    }

    /// Decodes `bytes`, which must hold nothing else.
    ///
    /// # Errors
    /// They are not an announcement, or exceed a limit.
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

/// A record that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// The record.
    pub record: Arc<Record>,
    /// The run that announced it.
    pub epoch: u64,
    /// Its version in that run.
    pub version: u64,
    /// When it was accepted here.
    pub accepted: Time,
    /// When its token expires, Unix seconds; `None` if no token is required.
    pub expires: Option<u64>,
    /// Why it no longer counts; `None` while it does.
    pub revoked: Option<Revocation>,
}

impl Announced {
    /// State of the service.
    pub fn state(&self) -> ServiceState {
        self.record.state
    }
}

/// Why a record that was accepted no longer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Revocation {
    /// Its token has expired.
    Expired,
    /// It has no token, and one is required now.
    NoToken,
    /// The operator's key changed and does not permit it, or its token was revoked or allows fewer backends.
    NotPermitted,
}

impl Revocation {
    /// Name in status and log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NoToken => "no_token",
            Self::NotPermitted => "not_permitted",
        }
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
        fn a_changed_byte_makes_another_announcement_or_none(at in 0usize..90, to in any::<u8>()) {
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
