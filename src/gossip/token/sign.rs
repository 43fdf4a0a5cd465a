//! Who signs and who verifies: the operator's key pair, an agent's credential, and a proxy's authority. Ed25519
//! (RFC 8032) throughout.
//!
//! Signed is a domain word with the operator's claims, or another with the label of the peer set, its length before
//! it, and the announcement, or a third with label, run and challenge, by which a run proves its agent key: no signature
//! is good for another purpose, nor an announcement in another set. A token without a label is good in each set whose
//! proxies know its operator.
//!
//! A credential is a token and the private key that it names. Each is minted with a new one, so the one that an agent
//! loses takes no other along.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use ipnet::IpNet;
use thiserror::Error;

use super::{Claims, GRACE, PUBLIC_LEN, SIGNATURE_LEN, Token, TokenError};
use crate::gossip::identity::Identity;
use crate::gossip::text::{self, SECRET_LEN, Secret, TextError};

const TOKEN_DOMAIN: &[u8] = b"lbproxy-gossip-token-1\0";
const RECORD_DOMAIN: &[u8] = b"lbproxy-gossip-record-1\0";
const PROOF_DOMAIN: &[u8] = b"lbproxy-gossip-proof-1\0";
const ID_DOMAIN: &[u8] = b"lbproxy-gossip-agent-id-1\0";
/// Bytes of an agent key's id.
const ID_LEN: usize = 8;

/// Why a text is no credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CredentialError {
    /// Not such a line.
    #[error(transparent)]
    Text(#[from] TextError),
    /// It holds no token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token is another agent's.
    #[error("its private key is not the one that its token names")]
    OtherKey,
}

/// What mints tokens: the operator's private key.
#[derive(Debug, Clone)]
pub struct OperatorKey(Secret);

impl OperatorKey {
    /// The key of these random bytes.
    pub fn generate(random: &[u8; SECRET_LEN]) -> Self {
        Self(Secret(*random))
    }

    /// The key in the text of a file.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        text::read_32(text, text::OPERATOR).map(|bytes| Self(Secret(bytes)))
    }

    /// As in a file, without the line end.
    pub fn to_text(&self) -> String {
        text::write(text::OPERATOR, &self.0.0)
    }

    /// What proxies know of it.
    pub fn public(&self) -> OperatorPublic {
        OperatorPublic(public(&pair(&self.0)))
    }
}

/// What proxies know of an operator; no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperatorPublic([u8; PUBLIC_LEN]);

impl OperatorPublic {
    /// The key in the text of a file.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        text::read_32(text, text::OPERATOR_PUBLIC).map(Self)
    }

    /// As in a file, without the line end.
    pub fn to_text(&self) -> String {
        text::write(text::OPERATOR_PUBLIC, &self.0)
    }
}

/// A new credential: `seed` (random) becomes the agent's private key. The networks may come in any order and with bits
/// behind the prefix; `expires` is in Unix seconds.
pub fn mint(
    operator: &OperatorKey,
    seed: &[u8; SECRET_LEN],
    cluster: &str,
    cidrs: &[IpNet],
    max_weight: u16,
    expires: u64,
) -> Result<AgentCredential, TokenError> {
    let claims = Claims::default();
    mint_with(operator, seed, cluster, cidrs, max_weight, expires, claims)
}

/// As [`mint`], with further claims.
pub(crate) fn mint_with(
    operator: &OperatorKey,
    seed: &[u8; SECRET_LEN],
    cluster: &str,
    cidrs: &[IpNet],
    max_weight: u16,
    expires: u64,
    claims: Claims,
) -> Result<AgentCredential, TokenError> {
    let seed = Secret(*seed);
    let agent = pair(&seed);
    let cidrs = in_order(cidrs);
    let claims = Claims {
        agent_cidrs: in_order(&claims.agent_cidrs),
        ..claims
    };
    let mut token = Token {
        agent: public(&agent),
        cluster: cluster.to_owned(),
        cidrs,
        max_weight,
        expires,
        claims,
        signature: [0; SIGNATURE_LEN],
    };
    token.check()?;
    token.signature = sign(&pair(&operator.0), &token_message(&token));
    Ok(AgentCredential { token, seed, agent })
}

fn in_order(cidrs: &[IpNet]) -> Vec<IpNet> {
    let mut cidrs: Vec<IpNet> = cidrs.iter().map(IpNet::trunc).collect();
    cidrs.sort_unstable();
    cidrs.dedup();
    cidrs
}

/// A token and the private key of its agent.
pub struct AgentCredential {
    token: Token,
    seed: Secret,
    agent: Ed25519KeyPair,
}

impl AgentCredential {
    /// The credential in the text of a file. Whether the token is an operator's is for proxies to say.
    pub fn parse(text: &str) -> Result<Self, CredentialError> {
        let bytes = text::read(text, text::TOKEN)?;
        let (seed, token) = bytes.split_first_chunk().ok_or(TokenError::Length)?;
        let (seed, token) = (Secret(*seed), Token::decode(token)?);
        let agent = pair(&seed);
        if public(&agent) != token.agent {
            return Err(CredentialError::OtherKey);
        }
        Ok(Self { token, seed, agent })
    }

    /// As in a file, without the line end. It is a secret.
    pub fn to_text(&self) -> String {
        let mut bytes = self.seed.0.to_vec();
        self.token.encode(&mut bytes);
        text::write(text::TOKEN, &bytes)
    }

    /// What goes along with each announcement.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The agent's proof that the run `identity` in the set with this label announces by its key.
    pub fn prove(&self, label: &str, identity: &Identity, challenge: &[u8]) -> [u8; SIGNATURE_LEN] {
        sign(&self.agent, &proof_message(label, identity, challenge))
    }

    /// The agent's signature of an announcement in the set with this label.
    pub fn sign(&self, label: &str, record: &[u8]) -> [u8; SIGNATURE_LEN] {
        sign(&self.agent, &record_message(label, record))
    }
}

impl fmt::Debug for AgentCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentCredential")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// Whose tokens count. A verification costs some 0.1 ms: a token that was found good is worth keeping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    operators: Vec<OperatorPublic>,
    revoked: Vec<String>,
}

impl Authority {
    /// This operator's alone.
    pub fn new(operator: OperatorPublic) -> Self {
        Self::of(vec![operator], Vec::new())
    }

    /// Those of any of these operators, but for the tokens whose ids ([`agent_id`]) begin with one of `revoked`.
    pub fn of(operators: Vec<OperatorPublic>, revoked: Vec<String>) -> Self {
        Self { operators, revoked }
    }

    /// Whether an operator signed it and it has neither expired, with [`GRACE`], nor is revoked. What is cheap comes first.
    pub fn verify_token(&self, token: &Token, now_unix: u64) -> Result<(), TokenError> {
        if now_unix > token.expires.saturating_add(GRACE) {
            return Err(TokenError::Expired);
        }
        if !self.revoked.is_empty() {
            let id = agent_id(&token.agent);
            if self.revoked.iter().any(|revoked| id.starts_with(revoked)) {
                return Err(TokenError::Revoked);
            }
        }
        let message = token_message(token);
        let mut operators = self.operators.iter();
        let good = operators.any(|operator| verify(&operator.0, &message, &token.signature));
        good.then_some(()).ok_or(TokenError::Forged)
    }

    /// Whether the token's agent signed the announcement for the set with this label. Says nothing of the token.
    pub fn verify_record(
        &self,
        token: &Token,
        label: &str,
        record: &[u8],
        signature: &[u8; SIGNATURE_LEN],
    ) -> Result<(), TokenError> {
        let good = verify(&token.agent, &record_message(label, record), signature);
        good.then_some(()).ok_or(TokenError::RecordForged)
    }
}

fn token_message(token: &Token) -> Vec<u8> {
    let mut message = TOKEN_DOMAIN.to_vec();
    token.encode_claims(&mut message);
    message
}

fn record_message(label: &str, record: &[u8]) -> Vec<u8> {
    let length = (label.len() as u64).to_be_bytes();
    [RECORD_DOMAIN, &length, label.as_bytes(), record].concat()
}

fn proof_message(label: &str, identity: &Identity, challenge: &[u8]) -> Vec<u8> {
    let length = (label.len() as u64).to_be_bytes();
    let run = identity.as_bytes();
    [PROOF_DOMAIN, &length, label.as_bytes(), run, challenge].concat()
}

/// Whether the holder of an agent key has proved that the run `identity` announces by it.
pub(crate) fn is_proved(
    agent: &[u8; PUBLIC_LEN],
    label: &str,
    identity: &Identity,
    challenge: &[u8],
    signature: &[u8; SIGNATURE_LEN],
) -> bool {
    verify(agent, &proof_message(label, identity, challenge), signature)
}

/// What an agent key, and the one token that names it, are called in logs and in `revoked`: 16 hexadecimal digits.
pub(crate) fn agent_id(agent: &[u8; PUBLIC_LEN]) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(ID_DOMAIN);
    hash.update(agent);
    let hash = hash.finish();
    let bytes = hash.as_ref().iter().take(ID_LEN);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

fn pair(seed: &Secret) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&seed.0).expect("a seed is any 32 bytes")
}

fn public(pair: &Ed25519KeyPair) -> [u8; PUBLIC_LEN] {
    let bytes = pair.public_key().as_ref();
    bytes.try_into().expect("a public key has 32 bytes")
}

fn sign(pair: &Ed25519KeyPair, message: &[u8]) -> [u8; SIGNATURE_LEN] {
    let signature = pair.sign(message);
    let bytes = signature.as_ref();
    bytes.try_into().expect("a signature has 64 bytes")
}

fn verify(public: &[u8; PUBLIC_LEN], message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
    let key = UnparsedPublicKey::new(&ED25519, public);
    key.verify(message, signature).is_ok()
}
