//! Who signs and who verifies: the operator's key pair, an agent's credential, and a proxy's authority.
//!
//! Three kinds of messages are signed, each after its own domain separator: the operator's claims; the label of the
//! peer set, after its length, with the announcement; and label, run and challenge, with which a run proves its agent
//! key. So no signature is valid for another purpose, and no announcement in another set. A token without a label is
//! valid in every set whose proxies know its operator.
//!
//! A credential is a token together with the private key that it names. Each one is minted with a new key, so losing
//! one does not compromise another.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::Ed25519KeyPair;
use ipnet::IpNet;
use thiserror::Error;

use super::{Claims, GRACE, Token, TokenError};
use crate::gossip::ed25519::{
    PublicKey, SIGNATURE_LEN, Signature, key_pair, public_key, sign, verify,
};
use crate::gossip::identity::Identity;
use crate::gossip::text::{self, SECRET_LEN, Secret, TextError};

const TOKEN_DOMAIN: &[u8] = b"lbproxy-gossip-token-1\0";
const RECORD_DOMAIN: &[u8] = b"lbproxy-gossip-record-1\0";
const PROOF_DOMAIN: &[u8] = b"lbproxy-gossip-proof-1\0";
const ID_DOMAIN: &[u8] = b"lbproxy-gossip-agent-id-1\0";
/// Length of an agent key's id, bytes.
const ID_LEN: usize = 8;

/// Why a text is not a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CredentialError {
    /// It is not such a line.
    #[error(transparent)]
    Text(#[from] TextError),
    /// It holds no token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Its private key belongs to another token.
    #[error("its private key is not the one that its token names")]
    OtherKey,
}

/// The operator's private key, which mints tokens.
#[derive(Debug, Clone)]
pub struct OperatorKey(Secret);

impl OperatorKey {
    /// Makes a key from random bytes.
    pub fn generate(random: &[u8; SECRET_LEN]) -> Self {
        Self(Secret(*random))
    }

    /// Reads the text of a key file.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        text::read_32(text, text::OPERATOR).map(|bytes| Self(Secret(bytes)))
    }

    /// The text of a key file, without the line end.
    pub fn to_text(&self) -> String {
        text::write(text::OPERATOR, &self.0.0)
    }

    /// The public half, which proxies know.
    pub fn public(&self) -> OperatorPublic {
        OperatorPublic(public_key(&key_pair(&self.0)))
    }
}

/// An operator's public key, which proxies know; not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperatorPublic(PublicKey);

impl OperatorPublic {
    /// Reads the text of a key file.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        text::read_32(text, text::OPERATOR_PUBLIC).map(Self)
    }

    /// The text of a key file, without the line end.
    pub fn to_text(&self) -> String {
        text::write(text::OPERATOR_PUBLIC, &self.0)
    }
}

/// Makes a new credential. `seed` (random) becomes the agent's private key. The networks may come in any order and with
/// bits after the prefix; `expires` is in Unix seconds.
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

/// As [`mint`], with optional claims.
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
    let agent = key_pair(&seed);
    let cidrs = in_order(cidrs);
    let claims = Claims {
        agent_cidrs: in_order(&claims.agent_cidrs),
        ..claims
    };
    let mut token = Token {
        agent: public_key(&agent),
        cluster: cluster.to_owned(),
        cidrs,
        max_weight,
        expires,
        claims,
        signature: [0; SIGNATURE_LEN],
    };
    token.check()?;
    token.signature = sign(&key_pair(&operator.0), &token_message(&token));
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
    /// Reads the text of a token file. Whether an operator signed the token is for proxies to check.
    pub fn parse(text: &str) -> Result<Self, CredentialError> {
        let bytes = text::read(text, text::TOKEN)?;
        let (seed, token) = bytes.split_first_chunk().ok_or(TokenError::Length)?;
        let (seed, token) = (Secret(*seed), Token::decode(token)?);
        let agent = key_pair(&seed);
        if public_key(&agent) != token.agent {
            return Err(CredentialError::OtherKey);
        }
        Ok(Self { token, seed, agent })
    }

    /// The text of a token file, without the line end. It is a secret.
    pub fn to_text(&self) -> String {
        let mut bytes = self.seed.0.to_vec();
        self.token.encode(&mut bytes);
        text::write(text::TOKEN, &bytes)
    }

    /// The token, which goes with each announcement.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Proves that the run `identity`, in the set with this label, announces with the agent's key.
    pub fn prove(&self, label: &str, identity: &Identity, challenge: &[u8]) -> Signature {
        sign(&self.agent, &proof_message(label, identity, challenge))
    }

    /// Signs an announcement in the set with this label.
    pub fn sign(&self, label: &str, record: &[u8]) -> Signature {
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

/// Verifies tokens: those of some operators count, except for revoked ones. A verification takes about 0.1 ms, so its
/// result is worth keeping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    operators: Vec<OperatorPublic>,
    revoked: Vec<String>,
}

impl Authority {
    /// Tokens of this operator count.
    pub fn new(operator: OperatorPublic) -> Self {
        Self::of(vec![operator], Vec::new())
    }

    /// Tokens of these operators count, except for those whose ids ([`agent_id`]) begin with one of `revoked`.
    pub fn of(operators: Vec<OperatorPublic>, revoked: Vec<String>) -> Self {
        Self { operators, revoked }
    }

    /// Checks that an operator signed a token, and that it is neither expired (with [`GRACE`]) nor revoked. The cheap
    /// checks come first.
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

    /// Checks that the token's agent signed the announcement for the set with this label. The token itself is not
    /// checked.
    pub fn verify_record(
        &self,
        token: &Token,
        label: &str,
        record: &[u8],
        signature: &Signature,
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

/// Whether the holder of an agent key has proved that the run `identity` announces with it.
pub(crate) fn is_proved(
    agent: &PublicKey,
    label: &str,
    identity: &Identity,
    challenge: &[u8],
    signature: &Signature,
) -> bool {
    verify(agent, &proof_message(label, identity, challenge), signature)
}

/// The id of an agent key, and of the one token that names it, in logs and in `revoked`: 16 hexadecimal digits.
pub(crate) fn agent_id(agent: &PublicKey) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(ID_DOMAIN);
    hash.update(agent);
    let hash = hash.finish();
    let bytes = hash.as_ref().iter().take(ID_LEN);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}
