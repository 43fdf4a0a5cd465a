//! Which addresses are the proxy's own: a backend there would send its traffic round for ever.
//!
//! A listener on all addresses is at each one of the machine. Which those are, the kernel's routing table knows: what it
//! delivers to itself has a route of type `local`, be it a second address of an interface or a whole prefix. To bind a
//! socket there would tell less: with `ip_nonlocal_bind` (usual beside floating addresses) every address can be bound.
//! Answers are kept for a moment, since addresses move between machines.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

const KEPT: Duration = Duration::from_secs(10);
const MOST_KEPT: usize = 10_000;

/// What is known of the machine's addresses.
#[derive(Debug, Default)]
pub(super) struct LocalAddresses(RefCell<(Option<Instant>, HashMap<IpAddr, bool>)>);

impl LocalAddresses {
    /// Whether `ip` is one of the machine.
    fn has(&self, ip: IpAddr) -> bool {
        let mut known = self.0.borrow_mut();
        let (since, answers) = &mut *known;
        if since.is_none_or(|since| since.elapsed() > KEPT) || answers.len() >= MOST_KEPT {
            *since = Some(Instant::now());
            answers.clear();
        }
        *answers.entry(ip).or_insert_with(|| {
            // Where netlink is forbidden, the second-best answer.
            ip.is_loopback() || is_local(ip).unwrap_or_else(|_| UdpSocket::bind((ip, 0)).is_ok())
        })
    }

    /// Whether one of `listeners` is at `address`. `advertised` is the machine's too, wherever it is translated.
    pub(super) fn is_own(
        &self,
        listeners: &[SocketAddr],
        advertised: Option<IpAddr>,
        address: SocketAddr,
    ) -> bool {
        let ip = address.ip().to_canonical();
        listeners.iter().any(|listener| {
            let at = listener.ip().to_canonical();
            let same_family = at.is_ipv6() || ip.is_ipv4();
            listener.port() == address.port()
                && (at == ip
                    || (at.is_unspecified()
                        && same_family
                        && (advertised == Some(ip) || self.has(ip))))
        })
    }
}

/// Asks the kernel (rtnetlink, `RTM_GETROUTE`) whether it would deliver to itself what is sent to `ip`.
fn is_local(ip: IpAddr) -> io::Result<bool> {
    const RTM_NEWROUTE: u16 = 24;
    const RTM_GETROUTE: u16 = 26;
    const NLM_F_REQUEST: u16 = 1;
    const RTA_DST: u16 = 1;
    const RTN_LOCAL: u8 = 2;
    /// The header of a message, and that of a route.
    const HEADERS: usize = 16 + 12;

    let (family, address) = match ip {
        IpAddr::V4(v4) => (libc::AF_INET as u8, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6 as u8, v6.octets().to_vec()),
    };
    let attribute = 4 + address.len();
    let mut ask = Vec::with_capacity(HEADERS + attribute);
    ask.extend(((HEADERS + attribute) as u32).to_ne_bytes());
    ask.extend(RTM_GETROUTE.to_ne_bytes());
    ask.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and port: one question a socket, so there is nothing to tell apart.
    ask.extend([0; 8]);
    ask.extend([family, (8 * address.len()) as u8]);
    ask.extend([0; 10]);
    ask.extend((attribute as u16).to_ne_bytes());
    ask.extend(RTA_DST.to_ne_bytes());
    ask.extend(address);

    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sendto(
        &socket,
        &ask,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    let mut answer = [0; 1024];
    // The kernel has answered before the question returned.
    let (length, _) = recv(&socket, &mut answer, RecvFlags::DONTWAIT)?;
    let answer = &answer[..length];
    // Anything but a route says that there is none.
    let is_route = answer.get(4..6) == Some(&RTM_NEWROUTE.to_ne_bytes());
    Ok(is_route && answer.get(16 + 7) == Some(&RTN_LOCAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Under `sysctl net.ipv4.ip_nonlocal_bind=1` (in a network namespace) too.
    #[test]
    fn the_kernel_tells_its_own_addresses() {
        for (ip, local) in [
            ("127.0.0.1", true),
            ("127.3.3.3", true),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_local(ip.parse().unwrap()).unwrap(), local, "{ip}");
        }
    }

    #[test]
    fn an_address_is_own_where_a_listener_is() {
        let listeners: Vec<SocketAddr> = ["[::]:80", "0.0.0.0:81", "127.0.0.9:82"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let local = LocalAddresses::default();
        for (address, own) in [
            ("127.0.0.1:80", true),
            ("127.3.3.3:81", true),
            ("[::ffff:127.0.0.1]:80", true),
            ("192.0.2.1:80", false),
            ("198.51.100.7:80", true),
            ("127.0.0.1:82", false),
            ("127.0.0.9:82", true),
            ("127.0.0.9:83", false),
            ("[::1]:81", false),
        ] {
            let advertised = Some("198.51.100.7".parse().unwrap());
            for _ in 0..2 {
                assert_eq!(
                    local.is_own(&listeners, advertised, address.parse().unwrap()),
                    own,
                    "{address}"
                );
            }
        }
    }
}
