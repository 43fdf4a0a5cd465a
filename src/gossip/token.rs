//! What an operator lets an agent announce: one cluster, some networks, a largest weight, up to a date.
//!
//! A token names the agent's public key and is signed by the operator ([`mint`]); an announcement carries both token
//! and the agent's signature, so a stolen agent can speak for its cluster and networks only. The encoding is canonical:
//! a token has one form, and nothing else is read as one.
//!
//! ```text
//! agent 32 · cluster length 1 · cluster · networks 1 · each: family and prefix 1, its whole bytes · weight 2 ·
//! expires 8 · signature 64; numbers big-endian
//! ```
//!
//! The first byte of a network is the prefix length for IPv4, and 33 more for IPv6. A token of one cluster `api` and
//! one IPv4 /16 has 114 bytes, the largest has [`MAX_TOKEN`].

mod sign;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use thiserror::Error;

pub use sign::{
    AgentCredential, Authority, CredentialError, OperatorKey, OperatorPublic, agent_id, is_proved,
    mint,
};

use super::record::{MAX_NAME, MAX_WEIGHT};

/// Length of a public key, bytes.
pub const PUBLIC_LEN: usize = 32;
/// Length of a signature, bytes.
pub const SIGNATURE_LEN: usize = 64;
/// Most networks of a token.
pub const MAX_CIDRS: usize = 8;
/// Longest token, bytes.
pub const MAX_TOKEN: usize =
    PUBLIC_LEN + 1 + MAX_NAME + 1 + MAX_CIDRS * (1 + 16) + 2 + 8 + SIGNATURE_LEN;
/// How long a token is good after its end, seconds, since clocks differ.
pub const GRACE: u64 = 300;

/// First byte of an IPv6 network of prefix 0.
const IPV6: u8 = 33;

/// Why a token, or what is announced under it, is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum TokenError {
    /// Too few bytes, or too many.
    #[error("the token has not the length that it says")]
    Length,
    /// Of a cluster that cannot be.
    #[error("the cluster is not 1 to {MAX_NAME} bytes without control characters")]
    Cluster,
    /// None, too many, or not as they are written.
    #[error(
        "the networks are not 1 to {MAX_CIDRS} different ones in order, with no bits behind the prefix and \
         no IPv4 in the form of IPv6"
    )]
    Networks,
    /// Out of range.
    #[error("the largest weight is not 1 to {MAX_WEIGHT}")]
    Weight,
    /// Not by this operator.
    #[error("the token is not signed by the operator")]
    Forged,
    /// Too old.
    #[error("the token has expired")]
    Expired,
    /// Not by the agent of the token.
    #[error("the announcement is not signed by the agent of its token")]
    RecordForged,
    /// Announces for another cluster.
    #[error("the token is for another cluster")]
    OtherCluster,
    /// Announces an address outside of the networks.
    #[error("the address is in no network of the token")]
    OtherNetwork,
    /// Announces more than the largest weight.
    #[error("the weight is above the token's largest")]
    TooHeavy,
}

impl TokenError {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Length,
        Self::Cluster,
        Self::Networks,
        Self::Weight,
        Self::Forged,
        Self::Expired,
        Self::RecordForged,
        Self::OtherCluster,
        Self::OtherNetwork,
        Self::TooHeavy,
    ];

    /// Word of log and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Length => "token_length",
            Self::Cluster => "token_cluster",
            Self::Networks => "token_networks",
            Self::Weight => "token_weight",
            Self::Forged => "token_forged",
            Self::Expired => "token_expired",
            Self::RecordForged => "record_forged",
            Self::OtherCluster => "other_cluster",
            Self::OtherNetwork => "other_network",
            Self::TooHeavy => "too_heavy",
        }
    }
}

/// A permission; no secret. Its claims have legal values, and count only once its signature is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    agent: [u8; PUBLIC_LEN],
    cluster: String,
    cidrs: Vec<IpNet>,
    max_weight: u16,
    expires: u64,
    signature: [u8; SIGNATURE_LEN],
}

impl Token {
    /// The agent's public key.
    pub fn agent(&self) -> &[u8; PUBLIC_LEN] {
        &self.agent
    }

    /// For which cluster it speaks.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Where its backends may live; in order.
    pub fn cidrs(&self) -> &[IpNet] {
        &self.cidrs
    }

    /// The most that a backend may weigh.
    pub fn max_weight(&self) -> u16 {
        self.max_weight
    }

    /// Its end, Unix seconds.
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// Whether a backend may be announced under it. Signature and date are another question.
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

    /// The token that is all of these bytes. No more than 8 networks and 64 bytes of name are allocated.
    pub fn decode(bytes: &[u8]) -> Result<Self, TokenError> {
        let mut rest = bytes;
        let agent = *take(&mut rest)?;
        let [length] = *take(&mut rest)?;
        let cluster = rest
            .split_off(..usize::from(length))
            .ok_or(TokenError::Length)?;
        let cluster = std::str::from_utf8(cluster).map_err(|_| TokenError::Cluster)?;
        let [networks] = *take(&mut rest)?;
        if usize::from(networks) > MAX_CIDRS {
            return Err(TokenError::Networks);
        }
        let mut cidrs = Vec::with_capacity(networks.into());
        for _ in 0..networks {
            cidrs.push(decode_network(&mut rest)?);
        }
        let max_weight = u16::from_be_bytes(*take(&mut rest)?);
        let expires = u64::from_be_bytes(*take(&mut rest)?);
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
            signature,
        };
        token.check()?;
        Ok(token)
    }

    /// What the operator signs.
    fn encode_claims(&self, out: &mut Vec<u8>) {
        let short = |length: usize| u8::try_from(length).expect("the claims are checked");
        out.extend_from_slice(&self.agent);
        out.push(short(self.cluster.len()));
        out.extend_from_slice(self.cluster.as_bytes());
        out.push(short(self.cidrs.len()));
        for cidr in &self.cidrs {
            encode_network(*cidr, out);
        }
        out.extend_from_slice(&self.max_weight.to_be_bytes());
        out.extend_from_slice(&self.expires.to_be_bytes());
    }

    /// Whether the claims are such as a token can have.
    fn check(&self) -> Result<(), TokenError> {
        let name = &self.cluster;
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(TokenError::Cluster);
        }
        let written_so = |cidr: &IpNet| {
            let mapped = matches!(cidr.addr(), IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
            *cidr == cidr.trunc() && !mapped
        };
        let in_order = self.cidrs.is_sorted_by(|a, b| a < b);
        let number = self.cidrs.len();
        if number == 0 || number > MAX_CIDRS || !in_order || !self.cidrs.iter().all(written_so) {
            return Err(TokenError::Networks);
        }
        if !(1..=MAX_WEIGHT).contains(&self.max_weight) {
            return Err(TokenError::Weight);
        }
        Ok(())
    }
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], TokenError> {
    let (taken, behind) = rest.split_first_chunk().ok_or(TokenError::Length)?;
    *rest = behind;
    Ok(taken)
}

/// Bytes of an address that a prefix of this length touches.
fn touched(prefix: u8) -> usize {
    usize::from(prefix.div_ceil(8))
}

fn encode_network(cidr: IpNet, out: &mut Vec<u8>) {
    let prefix = cidr.prefix_len();
    match cidr.addr() {
        IpAddr::V4(v4) => {
            out.push(prefix);
            out.extend_from_slice(&v4.octets()[..touched(prefix)]);
        }
        IpAddr::V6(v6) => {
            out.push(IPV6 + prefix);
            out.extend_from_slice(&v6.octets()[..touched(prefix)]);
        }
    }
}

fn decode_network(rest: &mut &[u8]) -> Result<IpNet, TokenError> {
    let [first] = *take(rest)?;
    let prefix = first.checked_sub(IPV6).unwrap_or(first);
    let kept = rest
        .split_off(..touched(prefix))
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
