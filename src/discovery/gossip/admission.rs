//! Pure: which announced backends the file allows.

use std::net::SocketAddr;

use ipnet::IpNet;

use crate::gossip::identity::is_possible;

/// A cluster that discovers its backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription<'a> {
    /// The cluster.
    pub cluster: &'a str,
    /// The name under which agents announce its backends.
    pub gossip: &'a str,
    /// Whether it has an active check.
    pub checked: bool,
}

/// What the file says about candidates.
pub(crate) struct CandidatePolicy<'a> {
    /// At most one for each cluster.
    pub subscriptions: &'a [Subscription<'a>],
    /// Where backends may live. A loopback address is allowed only if it is in one of these networks.
    pub allow_cidrs: &'a [IpNet],
    /// Whether this proxy itself listens at an address, so that traffic would go round in circles.
    pub is_own: &'a dyn Fn(SocketAddr) -> bool,
}

/// Why a record does not make a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CandidateRefusal {
    /// Nothing can be reached there: an unspecified or broadcast address, or port 0.
    Impossible,
    /// It is a multicast address.
    Multicast,
    /// It is a loopback address that is not listed.
    Loopback,
    /// It is in none of `allow_cidrs`.
    OutOfRange,
    /// It is one of the proxy's own listeners.
    OwnListener,
    /// The cluster has [`super::MAX_CANDIDATES`] already.
    ClusterFull,
}

impl CandidateRefusal {
    /// All of them, by [`Self::index`].
    pub(crate) const ALL: [Self; 6] = [
        Self::Impossible,
        Self::Multicast,
        Self::Loopback,
        Self::OutOfRange,
        Self::OwnListener,
        Self::ClusterFull,
    ];

    /// Name in status, log and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Impossible => "impossible",
            Self::Multicast => "multicast",
            Self::Loopback => "loopback",
            Self::OutOfRange => "out_of_range",
            Self::OwnListener => "own_listener",
            Self::ClusterFull => "cluster_full",
        }
    }

    /// Index in [`Self::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// Checks that a backend may live at `address` (IPv4 addresses unmapped).
pub(super) fn admit(
    address: SocketAddr,
    policy: &CandidatePolicy<'_>,
) -> Result<(), CandidateRefusal> {
    let ip = address.ip();
    if ip.is_multicast() {
        return Err(CandidateRefusal::Multicast);
    }
    if !is_possible(address) {
        return Err(CandidateRefusal::Impossible);
    }
    if !policy.allow_cidrs.iter().any(|net| net.contains(&ip)) {
        return Err(if ip.is_loopback() {
            CandidateRefusal::Loopback
        } else {
            CandidateRefusal::OutOfRange
        });
    }
    if (policy.is_own)(address) {
        return Err(CandidateRefusal::OwnListener);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_admitted_or_refused() {
        use CandidateRefusal as R;
        let own: SocketAddr = "10.0.0.9:8080".parse().unwrap();
        let allow: Vec<IpNet> = ["10.0.0.0/8", "127.0.1.0/24", "2001:db8::/32", "0.0.0.0/8"]
            .iter()
            .map(|net| net.parse().unwrap())
            .collect();
        let policy = CandidatePolicy {
            subscriptions: &[],
            allow_cidrs: &allow,
            is_own: &|address| address == own,
        };
        for (text, expected) in [
            ("10.1.2.3:80", Ok(())),
            ("[2001:db8::1]:80", Ok(())),
            ("127.0.1.7:80", Ok(())),
            ("127.0.0.1:80", Err(R::Loopback)),
            ("[::1]:80", Err(R::Loopback)),
            ("192.168.0.1:80", Err(R::OutOfRange)),
            ("[2001:db9::1]:80", Err(R::OutOfRange)),
            ("224.0.0.1:80", Err(R::Multicast)),
            ("[ff02::1]:80", Err(R::Multicast)),
            ("0.0.0.0:80", Err(R::Impossible)),
            ("[::]:80", Err(R::Impossible)),
            ("255.255.255.255:80", Err(R::Impossible)),
            ("10.1.2.3:0", Err(R::Impossible)),
            ("10.0.0.9:8080", Err(R::OwnListener)),
            ("10.0.0.9:8081", Ok(())),
        ] {
            assert_eq!(admit(text.parse().unwrap(), &policy), expected, "{text}");
        }
        for (index, refusal) in R::ALL.into_iter().enumerate() {
            assert_eq!(refusal.index(), index);
        }
    }
}
