//! Ed25519 (RFC 8032) as tokens, announcements and proofs use it: keys and signatures as plain bytes.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::text::Secret;

/// Length of a public key, bytes.
pub(crate) const PUBLIC_LEN: usize = 32;
/// Length of a signature, bytes.
pub(crate) const SIGNATURE_LEN: usize = 64;

/// A public key; not a secret.
pub(crate) type PublicKey = [u8; PUBLIC_LEN];
/// A signature.
pub(crate) type Signature = [u8; SIGNATURE_LEN];

/// The key pair of a seed.
pub(super) fn key_pair(seed: &Secret) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&seed.0).expect("a seed is any 32 bytes")
}

/// The public half of a key pair.
pub(super) fn public_key(pair: &Ed25519KeyPair) -> PublicKey {
    let bytes = pair.public_key().as_ref();
    bytes.try_into().expect("a public key has 32 bytes")
}

/// Signs a message.
pub(super) fn sign(pair: &Ed25519KeyPair, message: &[u8]) -> Signature {
    let signature = pair.sign(message);
    let bytes = signature.as_ref();
    bytes.try_into().expect("a signature has 64 bytes")
}

/// Whether `signature` is one of `message` by the holder of `key`. Takes about 0.1 ms.
pub(super) fn verify(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    let key = UnparsedPublicKey::new(&ED25519, key);
    key.verify(message, signature).is_ok()
}
