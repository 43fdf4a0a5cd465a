//! Identifies a member: its advertised address, and the epoch of its run.
//!
//! The address is the name. Two runs at one address are the same member, and the one with the higher epoch is the later
//! run. An epoch starts at the wall clock's milliseconds, so that a restart gets a higher one without asking anybody; a
//! member that learns of a higher epoch for its own address (its clock was set back) continues in one above that.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Length of an encoded [`Identity`], bytes.
pub(crate) const IDENTITY_LEN: usize = 27;

/// Largest epoch; as a time it lies in the year 2248. A member whose clock is set refuses much earlier ones too, see
/// [`Horizon`].
pub(crate) const MAX_EPOCH: u64 = 1 << 43;

/// How far an epoch may be ahead of the wall clock, milliseconds: a year, since clocks differ.
const AHEAD: u64 = 366 * 86_400 * 1_000;
/// Start of the year 2026 in Unix seconds: a clock that shows less has not been set.
const CLOCK_IS_SET: u64 = 1_767_225_600;

/// A member's address as on the wire, which tells members apart: `ip (16, IPv4 mapped) · port (2)`.
pub(crate) type MemberKey = [u8; 18];

/// The last epoch that a member accepts. Without a bound one false message would use up all epochs; a bound that moves
/// with the clock always leaves room above those accepted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Horizon(u64);

impl Horizon {
    /// The horizon at this wall-clock time, Unix seconds; [`MAX_EPOCH`] if the clock is not set.
    pub(crate) fn at(unix: u64) -> Self {
        let known = unix >= CLOCK_IS_SET;
        let last = unix.saturating_mul(1_000).saturating_add(AHEAD);
        Self(if known {
            last.min(MAX_EPOCH)
        } else {
            MAX_EPOCH
        })
    }

    /// Whether an epoch lies beyond it.
    pub(crate) fn excludes(self, epoch: u64) -> bool {
        epoch > self.0
    }
}

impl Default for Horizon {
    fn default() -> Self {
        Self(MAX_EPOCH)
    }
}

/// What a member does. On the wire this is a byte of flags, of which only bit 0 is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Announces a service, and stores no other member's record.
    Agent,
    /// Stores every record.
    Proxy,
}

impl Role {
    /// Name in status, log and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Proxy => "proxy",
        }
    }
}

/// A member's run, as on the wire: 27 bytes without padding, since a member stores one for each other member.
///
/// `ip (16, IPv4 mapped) · port (2) · epoch (8) · role (1)`, numbers big-endian.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity([u8; IDENTITY_LEN]);

impl Identity {
    /// The run `epoch` of the member at `address`.
    pub fn new(address: SocketAddr, epoch: u64, role: Role) -> Self {
        let mut bytes = [0; IDENTITY_LEN];
        bytes[..18].copy_from_slice(&pack_address(address));
        bytes[18..26].copy_from_slice(&epoch.to_be_bytes());
        bytes[26] = u8::from(role == Role::Proxy);
        Self(bytes)
    }

    /// Decodes an identity; `None` if no member can have it (port 0, unspecified or multicast address, epoch above
    /// [`MAX_EPOCH`], unknown role).
    pub fn from_bytes(bytes: &[u8; IDENTITY_LEN]) -> Option<Self> {
        let identity = Self(*bytes);
        let address = identity.address();
        let possible = bytes[26] <= 1 && identity.epoch() <= MAX_EPOCH && is_possible(address);
        possible.then_some(identity)
    }

    /// The bytes on the wire.
    pub fn as_bytes(&self) -> &[u8; IDENTITY_LEN] {
        &self.0
    }

    /// Where the member is reached; a mapped address is returned as IPv4.
    pub fn address(&self) -> SocketAddr {
        unpack_address(&self.key())
    }

    /// The address as on the wire.
    #[inline]
    pub fn key(&self) -> MemberKey {
        *self.0.first_chunk().expect("27 bytes")
    }

    /// Which run it is.
    #[inline]
    pub fn epoch(&self) -> u64 {
        u64::from_be_bytes(*self.0[18..].first_chunk().expect("27 bytes"))
    }

    /// What the member does.
    pub fn role(&self) -> Role {
        if self.0[26] == 1 {
            Role::Proxy
        } else {
            Role::Agent
        }
    }

    /// The same member in another run.
    pub fn with_epoch(&self, epoch: u64) -> Self {
        let mut bytes = self.0;
        bytes[18..26].copy_from_slice(&epoch.to_be_bytes());
        Self(bytes)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}#{} ({})",
            self.address(),
            self.epoch(),
            self.role().as_str()
        )
    }
}

/// What foca tells members apart by, in a form that compares fast: foca searches whole lists of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(u128, u16);

impl foca::Identity for Identity {
    type Addr = Address;

    fn renew(&self) -> Option<Self> {
        // Nobody accepts an epoch above the largest.
        let next = self.epoch().checked_add(1).filter(|e| *e <= MAX_EPOCH)?;
        Some(self.with_epoch(next))
    }

    #[inline]
    fn addr(&self) -> Address {
        let ip = *self.0.first_chunk().expect("27 bytes");
        Address(
            u128::from_ne_bytes(ip),
            u16::from_ne_bytes([self.0[16], self.0[17]]),
        )
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.epoch() > adversary.epoch()
    }
}

/// Whether a packet can be sent to an address: it has a port and is neither unspecified nor multicast nor broadcast.
pub(crate) fn is_possible(address: SocketAddr) -> bool {
    let ip = address.ip();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// Encodes an address as a member's key: `ip (16, IPv4 mapped) · port (2)`.
pub fn pack_address(address: SocketAddr) -> MemberKey {
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&address.port().to_be_bytes());
    bytes
}

/// The reverse of [`pack_address`]; a mapped address is returned as IPv4.
pub(crate) fn unpack_address(bytes: &MemberKey) -> SocketAddr {
    let octets: [u8; 16] = std::array::from_fn(|i| bytes[i]);
    let ip = Ipv6Addr::from(octets).to_canonical();
    SocketAddr::new(ip, u16::from_be_bytes([bytes[16], bytes[17]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use foca::Identity as _;

    #[test]
    fn an_identity_is_its_bytes() {
        for text in ["10.0.0.1:7946", "[2001:db8::1]:7946"] {
            let address: SocketAddr = text.parse().unwrap();
            let identity = Identity::new(address, 77, Role::Proxy);
            assert_eq!(identity.address(), address);
            assert_eq!(
                (identity.epoch(), identity.role()),
                (77, Role::Proxy),
                "{text}"
            );
            assert_eq!(
                Identity::from_bytes(identity.as_bytes()),
                Some(identity),
                "{text}"
            );
        }
        let mapped = Identity::new("[::ffff:10.0.0.1]:1".parse().unwrap(), 1, Role::Agent);
        assert_eq!(
            mapped,
            Identity::new("10.0.0.1:1".parse().unwrap(), 1, Role::Agent)
        );
        for text in [
            "0.0.0.0:1",
            "10.0.0.1:0",
            "224.0.0.1:9",
            "255.255.255.255:9",
            "[ff02::1]:9",
            "[::]:9",
        ] {
            let identity = Identity::new(text.parse().unwrap(), 1, Role::Agent);
            assert_eq!(Identity::from_bytes(identity.as_bytes()), None, "{text}");
        }
        let mut unknown = *mapped.as_bytes();
        unknown[26] = 2;
        assert_eq!(Identity::from_bytes(&unknown), None);
    }

    #[test]
    fn an_epoch_may_be_a_year_ahead_of_a_clock_that_is_set() {
        const NOW: u64 = 1_790_000_000;
        for (unix, epoch, excluded) in [
            (NOW, NOW * 1_000, false),
            (NOW, NOW * 1_000 + AHEAD, false),
            (NOW, NOW * 1_000 + AHEAD + 1, true),
            (NOW, 0, false),
            (0, MAX_EPOCH, false),
            (CLOCK_IS_SET - 1, MAX_EPOCH, false),
            (u64::MAX, MAX_EPOCH, false),
            (u64::MAX, MAX_EPOCH + 1, true),
        ] {
            assert_eq!(
                Horizon::at(unix).excludes(epoch),
                excluded,
                "{unix} {epoch}"
            );
        }
    }

    #[test]
    fn the_later_run_wins() {
        let first = Identity::new("10.0.0.1:1".parse().unwrap(), 5, Role::Agent);
        let next = first.renew().unwrap();
        assert_eq!(next.addr(), first.addr());
        assert!(next.win_addr_conflict(&first) && !first.win_addr_conflict(&next));
        assert_eq!(first.with_epoch(u64::MAX).renew(), None);
    }
}
