//! Seals packets with a ring of keys. The first key seals and all of them open, so that a new key can be handed out
//! before it is used. A ring never changes; a rotation puts a new ring in its place.
//!
//! ```text
//! sealed: version 1 · kind 1 · key id 4 · nonce 12 · ciphertext · tag 16
//! plain:  version 1 · kind 1 · 0 4 · label tag 4 · body
//! ```
//!
//! The cipher is AES-256-GCM-SIV (RFC 8452), since all members share one key: with random 96-bit nonces under plain GCM
//! a thousand members would exhaust a key in days, while SIV tolerates a repeated nonce. Version, kind, key id, label,
//! and a context that both sides know but the packet does not carry are authenticated with the body.
//!
//! The key id is derived from key and label together, so packets under another key or of another set are recognised
//! before anything is decrypted. It is not a secret, and no two keys of a ring share it (except in one of 2³² rings,
//! where the second key would not open anything).

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{digest, hmac};
use thiserror::Error;

use super::text::{self, SECRET_LEN, Secret, TextError};

/// By how much a sealed packet is longer than its body, bytes. A plain one adds less.
pub(crate) const OVERHEAD: usize = SEALED_HEAD + TAG_LEN;
/// Longest context, bytes.
pub(crate) const MAX_CONTEXT: usize = 128;

/// First byte of every packet.
const VERSION: u8 = 1;
/// Length of version, kind and key id.
const COMMON_HEAD: usize = 6;
const PLAIN_HEAD: usize = COMMON_HEAD + 4;
const SEALED_HEAD: usize = COMMON_HEAD + NONCE_LEN;
const TAG_LEN: usize = 16;
/// Stands in place of a key id in a packet that is not sealed.
const PLAIN: KeyId = [0; 4];
/// Longest associated data: common head, digest of the label, context.
const MAX_AAD: usize = COMMON_HEAD + digest::SHA256_OUTPUT_LEN + MAX_CONTEXT;

const ID_DOMAIN: &[u8] = b"lbproxy-gossip-key-id-1\0";
const LABEL_DOMAIN: &[u8] = b"lbproxy-gossip-label-1\0";

type KeyId = [u8; 4];

/// Why a packet cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum OpenError {
    /// It is shorter than any packet.
    #[error("the packet is too short")]
    Truncated,
    /// It has another version of the format.
    #[error("the packet has an unknown version")]
    Version,
    /// It is of another kind than the one that is expected here.
    #[error("the packet is of another kind")]
    Kind,
    /// It is sealed with a key that is not in the ring, or for another label.
    #[error("the packet is sealed with an unknown key, or for another label")]
    UnknownKey,
    /// It is not sealed, but must be.
    #[error("the packet is not sealed")]
    Unsealed,
    /// It is not sealed, and for another label.
    #[error("the packet is for another label")]
    WrongLabel,
    /// It was changed on its way, or sealed for another context.
    #[error("the packet is forged")]
    Forged,
}

impl OpenError {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Truncated,
        Self::Version,
        Self::Kind,
        Self::UnknownKey,
        Self::Unsealed,
        Self::WrongLabel,
        Self::Forged,
    ];

    /// Name in log and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Version => "version",
            Self::Kind => "kind",
            Self::UnknownKey => "unknown_key",
            Self::Unsealed => "unsealed",
            Self::WrongLabel => "wrong_label",
            Self::Forged => "forged",
        }
    }
}

/// A key of the peer set. Whoever has it is believed to be a member.
#[derive(Debug, Clone)]
pub struct SecretKey(Secret);

impl SecretKey {
    /// Makes a key from random bytes.
    pub fn generate(random: &[u8; SECRET_LEN]) -> Self {
        Self(Secret(*random))
    }

    /// Reads the text of a key file.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        text::read_32(text, text::KEY).map(|bytes| Self(Secret(bytes)))
    }

    /// The text of a key file, without the line end.
    pub fn to_text(&self) -> String {
        text::write(text::KEY, &self.0.0)
    }
}

/// The keys of a peer set and its label. Two rings with the same [`Keyring::key_ids`] hold the same keys.
pub struct Keyring {
    keys: Vec<(KeyId, LessSafeKey)>,
    label: [u8; digest::SHA256_OUTPUT_LEN],
    accept_plaintext: bool,
}

impl Keyring {
    /// The first key seals, all of them open. Without a key nothing is sealed. With `accept_plaintext` packets that are
    /// not sealed are accepted too.
    pub fn new(keys: &[SecretKey], label: &str, accept_plaintext: bool) -> Self {
        let keys: Vec<_> = keys.iter().map(|key| bind(key, label)).collect();
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(LABEL_DOMAIN);
        hash.update(label.as_bytes());
        Self {
            accept_plaintext: accept_plaintext || keys.is_empty(),
            keys,
            label: first(hash.finish().as_ref()),
        }
    }

    /// Appends the packet that carries `body`; allocates only if `out` lacks room ([`Keyring::overhead`] more than the
    /// body). The nonce should not repeat under a key; if it does, it reveals only which packets are equal.
    ///
    /// # Panics
    /// If the context is longer than [`MAX_CONTEXT`].
    pub fn seal(
        &self,
        kind: u8,
        context: &[u8],
        nonce: [u8; NONCE_LEN],
        body: &[u8],
        out: &mut Vec<u8>,
    ) {
        out.reserve(self.overhead() + body.len());
        out.extend_from_slice(&[VERSION, kind]);
        let Some((id, key)) = self.keys.first() else {
            out.extend_from_slice(&PLAIN);
            out.extend_from_slice(self.label_tag());
            out.extend_from_slice(body);
            return;
        };
        out.extend_from_slice(id);
        out.extend_from_slice(&nonce);
        let start = out.len();
        out.extend_from_slice(body);
        let aad = self.associated(kind, *id, context);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key
            .seal_in_place_separate_tag(nonce, Aad::from(&aad), &mut out[start..])
            .expect("a body is shorter than 64 GiB");
        out.extend_from_slice(tag.as_ref());
    }

    /// Opens a packet of this kind and context in place and returns its body. After an error the packet's bytes are
    /// useless.
    ///
    /// # Panics
    /// If the context is longer than [`MAX_CONTEXT`].
    pub fn open<'a>(
        &self,
        kind: u8,
        context: &[u8],
        packet: &'a mut [u8],
    ) -> Result<&'a [u8], OpenError> {
        let Some(([version, of_kind, id @ ..], rest)) = packet.split_first_chunk::<COMMON_HEAD>()
        else {
            return Err(OpenError::Truncated);
        };
        let id: KeyId = *id;
        if *version != VERSION {
            return Err(OpenError::Version);
        }
        if *of_kind != kind {
            return Err(OpenError::Kind);
        }
        if id == PLAIN {
            return self.open_plain(rest.len(), packet);
        }
        let key = self.keys.iter().find(|(of_key, _)| *of_key == id);
        let (_, key) = key.ok_or(OpenError::UnknownKey)?;
        let (_, rest) = packet.split_at_mut(COMMON_HEAD);
        let (nonce, rest) = rest
            .split_first_chunk_mut::<NONCE_LEN>()
            .ok_or(OpenError::Truncated)?;
        let (body, tag) = rest
            .split_last_chunk_mut::<TAG_LEN>()
            .ok_or(OpenError::Truncated)?;
        let aad = self.associated(kind, id, context);
        let nonce = Nonce::assume_unique_for_key(*nonce);
        key.open_in_place_separate_tag(nonce, Aad::from(&aad), tag, body)
            .map(|body| &*body)
            .map_err(|_| OpenError::Forged)
    }

    /// By how much a packet of this ring is longer than its body, bytes; at most [`OVERHEAD`].
    pub fn overhead(&self) -> usize {
        if self.keys.is_empty() {
            PLAIN_HEAD
        } else {
            OVERHEAD
        }
    }

    /// Ids of the keys in hexadecimal digits, beginning with the key that seals.
    pub fn key_ids(&self) -> Vec<String> {
        let hex = |(id, _): &(KeyId, _)| format!("{:08x}", u32::from_be_bytes(*id));
        self.keys.iter().map(hex).collect()
    }

    fn open_plain<'a>(&self, rest: usize, packet: &'a [u8]) -> Result<&'a [u8], OpenError> {
        if !self.accept_plaintext {
            return Err(OpenError::Unsealed);
        }
        if rest < PLAIN_HEAD - COMMON_HEAD {
            return Err(OpenError::Truncated);
        }
        let (head, body) = packet.split_at(PLAIN_HEAD);
        if &head[COMMON_HEAD..] != self.label_tag() {
            return Err(OpenError::WrongLabel);
        }
        Ok(body)
    }

    /// Stands in a packet that is not sealed, so that sets with other labels are told apart.
    fn label_tag(&self) -> &[u8] {
        &self.label[..PLAIN_HEAD - COMMON_HEAD]
    }

    /// The data that is authenticated with the body: every part but the last has a fixed length.
    fn associated(&self, kind: u8, id: KeyId, context: &[u8]) -> Associated {
        assert!(context.len() <= MAX_CONTEXT, "a context is short");
        let mut aad = Associated {
            bytes: [0; MAX_AAD],
            len: 0,
        };
        for part in [&[VERSION, kind], &id[..], &self.label, context] {
            aad.bytes[aad.len..][..part.len()].copy_from_slice(part);
            aad.len += part.len();
        }
        aad
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("key_ids", &self.key_ids())
            .field("accept_plaintext", &self.accept_plaintext)
            .finish_non_exhaustive()
    }
}

/// Associated data on the stack, so that sealing allocates nothing.
struct Associated {
    bytes: [u8; MAX_AAD],
    len: usize,
}

impl AsRef<[u8]> for Associated {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A key ready for use, with its id under this label.
fn bind(key: &SecretKey, label: &str) -> (KeyId, LessSafeKey) {
    let bytes = &key.0.0;
    let mut hash = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, bytes));
    hash.update(ID_DOMAIN);
    hash.update(label.as_bytes());
    let tag = hash.sign();
    let words = tag.as_ref().chunks_exact(4).map(first);
    // Eight words of zeros do not occur.
    let id = words.into_iter().find(|word| *word != PLAIN);
    let unbound = UnboundKey::new(&AES_256_GCM_SIV, bytes).expect("a key has 32 bytes");
    (id.unwrap_or([0xff; 4]), LessSafeKey::new(unbound))
}

/// The first bytes of a digest.
fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    std::array::from_fn(|i| bytes[i])
}

#[cfg(test)]
mod tests;
