//! The listening sockets of this process, so that a reload can distinguish them from those of other programs.
//!
//! A reload may move a listener between `127.0.0.1:80`, `0.0.0.0:80`, `[::]:80` and `:80` while its old socket still
//! listens, and the kernel only reports that the address is in use. So every listening socket is registered here, with
//! the inode number that `/proc/net/tcp` has for it.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// Number of listening sockets, which is read at each accept.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static OURS: LazyLock<Mutex<Vec<Entry>>> = LazyLock::new(Mutex::default);

#[derive(Debug, Clone, Copy)]
struct Entry {
    address: SocketAddr,
    both_families: bool,
    inode: u64,
}

fn ours() -> MutexGuard<'static, Vec<Entry>> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The registration of a listening socket of this process. It ends when this is dropped, which must not be before the
/// socket is closed.
#[derive(Debug)]
pub(crate) struct Ours(Option<u64>);

impl Ours {
    /// Registers a socket that is bound to `address`.
    ///
    /// # Errors
    /// The system does not report its inode number.
    pub(crate) fn remember(
        socket: impl AsFd,
        address: SocketAddr,
        both_families: bool,
    ) -> io::Result<Self> {
        let inode = rustix::fs::fstat(socket)?.st_ino;
        ours().push(Entry {
            address,
            both_families,
            inode,
        });
        COUNT.fetch_add(1, Ordering::Relaxed);
        Ok(Self(Some(inode)))
    }

    /// Counts a socket whose address cannot overlap with another, such as a Unix socket.
    pub(crate) fn count() -> Self {
        COUNT.fetch_add(1, Ordering::Relaxed);
        Self(None)
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        if let Some(inode) = self.0 {
            ours().retain(|entry| entry.inode != inode);
        }
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Number of listening sockets of this process.
pub(crate) fn count() -> usize {
    COUNT.load(Ordering::Relaxed)
}

/// Whether `address` overlaps with that of a listening socket of this process, and with none of another program.
///
/// # Errors
/// The system does not report the listening sockets.
pub(crate) fn shares_with_ours_alone(address: SocketAddr, both_families: bool) -> io::Result<bool> {
    let known: HashSet<u64> = {
        let ours = ours();
        let mut overlapping = ours.iter().filter(|entry| {
            overlap(
                (address, both_families),
                (entry.address, entry.both_families),
            )
        });
        if overlapping.next().is_none() {
            return Ok(false);
        }
        ours.iter().map(|entry| entry.inode).collect()
    };
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let table = match File::open(table) {
            Ok(table) => table,
            // The machine has no IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table.ends_with('6') => {
                continue;
            }
            Err(error) => return Err(error),
        };
        for line in BufReader::new(table).lines().skip(1) {
            let Some((other, inode)) = listening(&line?) else {
                continue;
            };
            // A socket on all IPv6 addresses may also listen on all IPv4 addresses.
            let other_both = other.is_ipv6() && other.ip().is_unspecified();
            if !known.contains(&inode) && overlap((address, both_families), (other, other_both)) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Whether two sockets on these addresses would compete for connections. The second of each pair says whether a socket
/// on all IPv6 addresses also listens on all IPv4 addresses.
fn overlap(one: (SocketAddr, bool), other: (SocketAddr, bool)) -> bool {
    let covers = |(wide, both): (SocketAddr, bool), narrow: SocketAddr| match wide.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => narrow.is_ipv4(),
        IpAddr::V6(ip) if ip.is_unspecified() => both || narrow.is_ipv6(),
        ip => ip.to_canonical() == narrow.ip().to_canonical(),
    };
    one.0.port() == other.0.port() && (covers(one, other.0) || covers(other, one.0))
}

/// Address and inode number from a line of `/proc/net/tcp` or `tcp6` about a listening socket (proc_net_tcp(5)).
fn listening(line: &str) -> Option<(SocketAddr, u64)> {
    const LISTEN: &str = "0A";
    let mut words = line.split_ascii_whitespace();
    let local = words.nth(1)?;
    let _remote = words.next()?;
    if words.next()? != LISTEN {
        return None;
    }
    let inode = words.nth(5)?.parse().ok()?;
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // The address consists of groups of 32 bits in the byte order of the machine.
    let group = |at: usize| {
        let digits = ip.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip = if ip.len() == 8 {
        IpAddr::V4(Ipv4Addr::from(group(0)?))
    } else {
        let mut bytes = [0; 16];
        for at in 0..4 {
            bytes[at * 4..at * 4 + 4].copy_from_slice(&group(at)?);
        }
        IpAddr::V6(Ipv6Addr::from(bytes))
    };
    Some((SocketAddr::new(ip, port), inode))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn overlapping_addresses_are_found() {
        let both = ("[::]:80".parse().unwrap(), true);
        let at = |text: &str| (text.parse().unwrap(), false);
        for (one, other, expected) in [
            (at("127.0.0.1:80"), at("127.0.0.1:80"), true),
            (at("127.0.0.1:80"), at("127.0.0.1:81"), false),
            (at("127.0.0.1:80"), at("127.0.0.2:80"), false),
            (at("127.0.0.1:80"), at("0.0.0.0:80"), true),
            (at("127.0.0.1:80"), at("[::]:80"), false),
            (at("127.0.0.1:80"), both, true),
            (at("0.0.0.0:80"), both, true),
            (at("0.0.0.0:80"), at("[::]:80"), false),
            (at("[::1]:80"), at("[::]:80"), true),
            (at("[::1]:80"), both, true),
            (at("[::1]:80"), at("0.0.0.0:80"), false),
            (at("[::]:80"), both, true),
        ] {
            assert_eq!(overlap(one, other), expected, "{one:?} {other:?}");
            assert_eq!(overlap(other, one), expected, "{other:?} {one:?}");
        }
    }

    #[test]
    fn lines_of_proc_are_parsed() {
        let v4 = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0";
        let v6 = "   1: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A \
                  00000000:00000000 00:00000000 00000000     0        0 4712 1 0";
        if cfg!(target_endian = "little") {
            assert_eq!(
                listening(v4),
                Some(("127.0.0.1:8080".parse().unwrap(), 4711))
            );
            assert_eq!(listening(v6), Some(("[::1]:80".parse().unwrap(), 4712)));
        }
        assert_eq!(listening(&v4.replace(" 0A ", " 01 ")), None);
        for end in 0..v4.len() {
            // A truncated line must not panic.
            let _ = listening(&v4[..end]);
        }
    }

    #[test]
    fn our_sockets_are_distinguished_from_those_of_others() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let all = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
        assert!(
            !shares_with_ours_alone(all, false).unwrap(),
            "the socket is not registered"
        );
        let before = count();
        let ours = Ours::remember(&socket, address, false).unwrap();
        assert!(count() > 0);
        assert!(shares_with_ours_alone(all, false).unwrap());
        let other = TcpListener::bind(("127.0.0.2", address.port())).unwrap();
        assert!(
            !shares_with_ours_alone(all, false).unwrap(),
            "an unregistered socket has part of the address"
        );
        drop(other);
        assert!(shares_with_ours_alone(all, false).unwrap());
        drop((socket, ours));
        assert!(count() <= before + 16, "other tests listen too");
        assert!(!shares_with_ours_alone(all, false).unwrap());
    }
}
