//! A token says what an operator lets an agent announce: one cluster, some networks, a largest weight, until a date;
//! and optionally only in one peer set, only from certain agent networks, and only so many backends.
//!
//! A token names the agent's public key and is signed by the operator ([`mint`]). An announcement carries the token and
//! the agent's signature, so whoever steals an agent's key can speak for its cluster and networks only. The encoding is
//! canonical: a token has exactly one form.
//!
//! ```text
//! agent 32 · cluster length 1 · cluster · networks 1 · each: family and prefix 1, its whole bytes · weight 2 ·
//! expires 8 · [claims 1 · label length 1 · label · backends 2 · networks 1 · each] · signature 64; numbers big-endian
//! ```
//!
//! The bits of `claims` say which of the optional claims are present: 1 the label, 2 the number of backends, 4 the
//! agents' networks. A token without any has no such byte: it is valid in every peer set whose proxies know the
//! operator, for any number of backends, and its agents live in the backends' networks.
//!
//! The first byte of a network is the prefix length for IPv4, and the prefix length plus 33 for IPv6. A token for a
//! cluster `api` and one IPv4 /16 takes 114 bytes; the largest takes [`MAX_TOKEN`].

mod sign;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use thiserror::Error;

#[cfg(test)]
pub(crate) use sign::CredentialError;
pub use sign::{AgentCredential, Authority, OperatorKey, OperatorPublic, mint};
pub(crate) use sign::{agent_id, is_proved, mint_with};

use super::ed25519::{PUBLIC_LEN, PublicKey, SIGNATURE_LEN, Signature};
use super::record::{MAX_NAME, MAX_WEIGHT};

/// Most networks of a token.
pub(crate) const MAX_CIDRS: usize = 8;
/// Longest token, bytes.
pub(crate) const MAX_TOKEN: usize =
    PUBLIC_LEN + 1 + MAX_NAME + 1 + MAX_CIDRS * (1 + 16) + 2 + 8 + SIGNATURE_LEN;
/// Largest number of backends that a token can allow.
pub(crate) const MAX_BACKENDS: u16 = 10_000;

/// Bits of the optional claims.
const LABEL: u8 = 1;
const BACKENDS: u8 = 2;
const AGENTS: u8 = 4;

/// How long a token stays valid after its end, seconds, since clocks differ.
pub(crate) const GRACE: u64 = 300;

/// First byte of an IPv6 network with prefix 0.
const IPV6: u8 = 33;

/// Why a token, or what is announced under it, is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum TokenError {
    /// It has too few bytes, or too many.
    #[error("the token does not have the length that it states")]
    Length,
    /// No cluster can have the name.
    #[error("the cluster is not 1 to {MAX_NAME} bytes without control characters")]
    Cluster,
    /// There are no networks, too many, or they are not in canonical form.
    #[error(
        "the networks are not 1 to {MAX_CIDRS} different ones in order, with no bits after the prefix and \
         no IPv4 in the form of IPv6"
    )]
    Networks,
    /// The largest weight is out of range.
    #[error("the largest weight is not 1 to {MAX_WEIGHT}")]
    Weight,
    /// No peer set can have the label.
    #[error("the label is not 0 to {MAX_NAME} bytes without control characters")]
    Label,
    /// The number of backends is out of range.
    #[error("the number of backends is not 1 to {MAX_BACKENDS}")]
    Backends,
    /// It is longer than an announcement has room for.
    #[error("with these claims the token is longer than {MAX_TOKEN} bytes")]
    Long,
    /// It has claims that this version does not know, or none although it says so.
    #[error("the token has unknown claims")]
    Claims,
    /// None of the operators signed it.
    #[error("the token is not signed by the operator")]
    Forged,
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// Its id is in `revoked`.
    #[error("the token is revoked")]
    Revoked,
    /// The agent of the token did not sign the announcement.
    #[error("the announcement is not signed by the agent of its token")]
    RecordForged,
    /// The announcement is for another cluster.
    #[error("the token is for another cluster")]
    OtherCluster,
    /// The backend's address is outside of the networks.
    #[error("the address is in none of the token's networks")]
    OtherNetwork,
    /// The weight is larger than allowed.
    #[error("the weight is larger than the token allows")]
    TooHeavy,
    /// The token is for another peer set.
    #[error("the token is for a peer set with another label")]
    OtherLabel,
    /// The agent's address is outside of the agents' networks.
    #[error("the agent's address is in none of the token's networks for agents")]
    OtherAgentNetwork,
    /// As many backends as the token allows are announced already.
    #[error("as many backends as the token allows are announced already")]
    TooManyBackends,
}

impl TokenError {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Length,
        Self::Cluster,
        Self::Networks,
        Self::Weight,
        Self::Label,
        Self::Backends,
        Self::Long,
        Self::Claims,
        Self::Forged,
        Self::Expired,
        Self::Revoked,
        Self::RecordForged,
        Self::OtherCluster,
        Self::OtherNetwork,
        Self::TooHeavy,
        Self::OtherLabel,
        Self::OtherAgentNetwork,
        Self::TooManyBackends,
    ];

    /// Name in log and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Length => "token_length",
            Self::Cluster => "token_cluster",
            Self::Networks => "token_networks",
            Self::Weight => "token_weight",
            Self::Label => "token_label",
            Self::Backends => "token_backends",
            Self::Long => "token_long",
            Self::Claims => "token_claims",
            Self::Forged => "token_forged",
            Self::Expired => "token_expired",
            Self::Revoked => "token_revoked",
            Self::RecordForged => "record_forged",
            Self::OtherCluster => "other_cluster",
            Self::OtherNetwork => "other_network",
            Self::TooHeavy => "too_heavy",
            Self::OtherLabel => "other_label",
            Self::OtherAgentNetwork => "other_agent_network",
            Self::TooManyBackends => "too_many_backends",
        }
    }
}

/// A permission; not a secret. Its claims have valid values, and count only once its signature is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    agent: PublicKey,
    cluster: String,
    cidrs: Vec<IpNet>,
    max_weight: u16,
    expires: u64,
    claims: Claims,
    signature: Signature,
}

/// Optional restrictions of a token; by default none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// Label of the only peer set in which it is valid; absent: every one whose proxies know the operator.
    pub label: Option<String>,
    /// How many backends may be announced under it at a time; absent: any number.
    pub max_backends: Option<u16>,
    /// Where its agents may live, in order; empty: where its backends may.
    pub agent_cidrs: Vec<IpNet>,
}

impl Token {
    /// The agent's public key.
    pub fn agent(&self) -> &PublicKey {
        &self.agent
    }

    /// The cluster that may be announced under it.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Where its backends may live; in order.
    pub fn cidrs(&self) -> &[IpNet] {
        &self.cidrs
    }

    /// The largest weight of a backend.
    pub fn max_weight(&self) -> u16 {
        self.max_weight
    }

    /// Its optional restrictions.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Checks that it is valid in the peer set with this label.
    pub fn permits_label(&self, label: &str) -> Result<(), TokenError> {
        let mut wanted = self.claims.label.iter();
        match wanted.all(|wanted| wanted == label) {
            true => Ok(()),
            false => Err(TokenError::OtherLabel),
        }
    }

    /// Checks that an agent at this address may announce under it.
    pub fn permits_agent(&self, address: IpAddr) -> Result<(), TokenError> {
        let (networks, error) = match &self.claims.agent_cidrs[..] {
            [] => (&self.cidrs[..], TokenError::OtherNetwork),
            networks => (networks, TokenError::OtherAgentNetwork),
        };
        let address = address.to_canonical();
        let within = networks.iter().any(|cidr| cidr.contains(&address));
        within.then_some(()).ok_or(error)
    }

    /// When it expires, Unix seconds.
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// Checks that a backend may be announced under it. Signature and date are checked elsewhere.
    pub fn permits(&self, cluster: &str, address: IpAddr, weight: u16) -> Result<(), TokenError> {
        let address = address.to_canonical();
        if cluster != self.cluster {
            return Err(TokenError::OtherCluster);
        }
        if !self.cidrs.iter().any(|cidr| cidr.contains(&address)) {
            return Err(TokenError::OtherNetwork);
        }
        if weight > self.max_weight {
            return Err(TokenError::TooHeavy);
        }
        Ok(())
    }

    /// Appends the token; at most [`MAX_TOKEN`] bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_claims(out);
        out.extend_from_slice(&self.signature);
    }

    /// Decodes a token, which must take all of these bytes. It allocates at most 8 networks and 64 bytes of name.
    pub fn decode(bytes: &[u8]) -> Result<Self, TokenError> {
        let mut rest = bytes;
        let agent = *take(&mut rest)?;
        let [length] = *take(&mut rest)?;
        let cluster = rest
            .split_off(..usize::from(length))
            .ok_or(TokenError::Length)?;
        let cluster = std::str::from_utf8(cluster).map_err(|_| TokenError::Cluster)?;
        let cidrs = decode_networks(&mut rest)?;
        let max_weight = u16::from_be_bytes(*take(&mut rest)?);
        let expires = u64::from_be_bytes(*take(&mut rest)?);
        let claims = match rest.len() > SIGNATURE_LEN {
            true => decode_claims(&mut rest)?,
            false => Claims::default(),
        };
        let signature = *take(&mut rest)?;
        if !rest.is_empty() {
            return Err(TokenError::Length);
        }
        let token = Self {
            agent,
            cluster: cluster.to_owned(),
            cidrs,
            max_weight,
            expires,
            claims,
            signature,
        };
        token.check()?;
        Ok(token)
    }

    fn encoded_len(&self) -> usize {
        let mut bytes = Vec::with_capacity(MAX_TOKEN);
        self.encode(&mut bytes);
        bytes.len()
    }

    /// Appends what the operator signs.
    fn encode_claims(&self, out: &mut Vec<u8>) {
        let short = |length: usize| u8::try_from(length).expect("the claims are checked");
        out.extend_from_slice(&self.agent);
        out.push(short(self.cluster.len()));
        out.extend_from_slice(self.cluster.as_bytes());
        let networks = |cidrs: &[IpNet], out: &mut Vec<u8>| {
            out.push(short(cidrs.len()));
            cidrs.iter().for_each(|cidr| encode_network(*cidr, out));
        };
        networks(&self.cidrs, out);
        out.extend_from_slice(&self.max_weight.to_be_bytes());
        out.extend_from_slice(&self.expires.to_be_bytes());
        let Claims {
            label,
            max_backends,
            agent_cidrs,
        } = &self.claims;
        let bits = u8::from(label.is_some()) * LABEL
            + u8::from(max_backends.is_some()) * BACKENDS
            + u8::from(!agent_cidrs.is_empty()) * AGENTS;
        if bits != 0 {
            out.push(bits);
        }
        if let Some(label) = label {
            out.push(short(label.len()));
            out.extend_from_slice(label.as_bytes());
        }
        if let Some(most) = max_backends {
            out.extend_from_slice(&most.to_be_bytes());
        }
        if !agent_cidrs.is_empty() {
            networks(agent_cidrs, out);
        }
    }

    /// Checks that a token can have these claims.
    fn check(&self) -> Result<(), TokenError> {
        let name = &self.cluster;
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(TokenError::Cluster);
        }
        let agents = &self.claims.agent_cidrs;
        if self.cidrs.is_empty() || !are_canonical(&self.cidrs) || !are_canonical(agents) {
            return Err(TokenError::Networks);
        }
        let printable =
            |label: &String| label.len() <= MAX_NAME && !label.chars().any(char::is_control);
        if !self.claims.label.iter().all(printable) {
            return Err(TokenError::Label);
        }
        if self.encoded_len() > MAX_TOKEN {
            return Err(TokenError::Long);
        }
        let mut most = self.claims.max_backends.iter();
        if !most.all(|most| (1..=MAX_BACKENDS).contains(most)) {
            return Err(TokenError::Backends);
        }
        if !(1..=MAX_WEIGHT).contains(&self.max_weight) {
            return Err(TokenError::Weight);
        }
        Ok(())
    }
}

/// Whether networks are few, in order and in canonical form.
fn are_canonical(cidrs: &[IpNet]) -> bool {
    let canonical = |cidr: &IpNet| {
        let mapped = matches!(cidr.addr(), IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        *cidr == cidr.trunc() && !mapped
    };
    let in_order = cidrs.is_sorted_by(|a, b| a < b);
    cidrs.len() <= MAX_CIDRS && in_order && cidrs.iter().all(canonical)
}

/// Decodes the optional claims, of which there must be at least one.
fn decode_claims(rest: &mut &[u8]) -> Result<Claims, TokenError> {
    let [bits] = *take(rest)?;
    if bits == 0 || bits & !(LABEL | BACKENDS | AGENTS) != 0 {
        return Err(TokenError::Claims);
    }
    let mut claims = Claims::default();
    if bits & LABEL != 0 {
        let [length] = *take(rest)?;
        let label = rest
            .split_off(..usize::from(length))
            .ok_or(TokenError::Length)?;
        let label = std::str::from_utf8(label).map_err(|_| TokenError::Label)?;
        claims.label = Some(label.to_owned());
    }
    if bits & BACKENDS != 0 {
        claims.max_backends = Some(u16::from_be_bytes(*take(rest)?));
    }
    if bits & AGENTS != 0 {
        claims.agent_cidrs = decode_networks(rest)?;
        if claims.agent_cidrs.is_empty() {
            return Err(TokenError::Networks);
        }
    }
    Ok(claims)
}

fn decode_networks(rest: &mut &[u8]) -> Result<Vec<IpNet>, TokenError> {
    let [networks] = *take(rest)?;
    if usize::from(networks) > MAX_CIDRS {
        return Err(TokenError::Networks);
    }
    (0..networks).map(|_| decode_network(rest)).collect()
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], TokenError> {
    let (taken, remaining) = rest.split_first_chunk().ok_or(TokenError::Length)?;
    *rest = remaining;
    Ok(taken)
}

/// Number of bytes of an address that a prefix of this length covers, wholly or in part.
fn prefix_bytes(prefix: u8) -> usize {
    usize::from(prefix.div_ceil(8))
}

fn encode_network(cidr: IpNet, out: &mut Vec<u8>) {
    let prefix = cidr.prefix_len();
    match cidr.addr() {
        IpAddr::V4(v4) => {
            out.push(prefix);
            out.extend_from_slice(&v4.octets()[..prefix_bytes(prefix)]);
        }
        IpAddr::V6(v6) => {
            out.push(IPV6 + prefix);
            out.extend_from_slice(&v6.octets()[..prefix_bytes(prefix)]);
        }
    }
}

fn decode_network(rest: &mut &[u8]) -> Result<IpNet, TokenError> {
    let [first] = *take(rest)?;
    let prefix = first.checked_sub(IPV6).unwrap_or(first);
    let kept = rest
        .split_off(..prefix_bytes(prefix))
        .ok_or(TokenError::Length)?;
    let address = if first < IPV6 {
        IpAddr::V4(Ipv4Addr::from(padded(kept)?))
    } else {
        IpAddr::V6(Ipv6Addr::from(padded::<16>(kept)?))
    };
    IpNet::new(address, prefix).map_err(|_| TokenError::Networks)
}

fn padded<const N: usize>(bytes: &[u8]) -> Result<[u8; N], TokenError> {
    let mut whole = [0; N];
    whole
        .get_mut(..bytes.len())
        .ok_or(TokenError::Networks)?
        .copy_from_slice(bytes);
    Ok(whole)
}

#[cfg(test)]
mod tests;
