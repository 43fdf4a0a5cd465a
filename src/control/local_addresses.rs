//! Which addresses are the proxy's own: a backend there would send its traffic round for ever.
//!
//! A listener on all addresses is at each one of the machine. Which those are, the kernel's routing table knows: what
//! it delivers to itself has a route of type `local`, be it a second address of an interface or a whole prefix. Binding
//! a socket there would say less: with `ip_nonlocal_bind` (usual beside floating addresses) every address can be bound.
//! Answers are kept for ten seconds, since addresses move between machines.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::mem::{offset_of, size_of};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use linux_raw_sys::netlink::{
    NLM_F_REQUEST, RTM_GETROUTE, RTM_NEWROUTE, RTN_LOCAL, nlmsghdr, rtattr, rtattr_type_t, rtmsg,
};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(10);
/// Answers that are kept at most.
const MOST_KEPT: usize = 10_000;
/// Room for an answer of the kernel; a route takes about a hundred bytes.
const ANSWER: usize = 1024;

/// Which addresses are the machine's, as far as they were asked for.
#[derive(Debug, Default)]
pub(super) struct LocalAddresses(RefCell<Answers>);

#[derive(Debug, Default)]
struct Answers {
    since: Option<Instant>,
    is_local: HashMap<IpAddr, bool>,
}

impl LocalAddresses {
    /// Whether `ip` is an address of the machine.
    fn contains(&self, ip: IpAddr) -> bool {
        let mut answers = self.0.borrow_mut();
        let is_old = answers.since.is_none_or(|since| since.elapsed() > KEPT);
        if is_old || answers.is_local.len() >= MOST_KEPT {
            answers.since = Some(Instant::now());
            answers.is_local.clear();
        }
        *answers.is_local.entry(ip).or_insert_with(|| {
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
            let is_everywhere = at.is_unspecified() && same_family;
            listener.port() == address.port()
                && (at == ip || (is_everywhere && (advertised == Some(ip) || self.contains(ip))))
        })
    }
}

/// Asks the kernel whether it would deliver to itself what is sent to `ip`.
fn is_local(ip: IpAddr) -> io::Result<bool> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(&socket, &route_request(ip), SendFlags::empty(), &kernel)?;
    let mut answer = [0; ANSWER];
    // The kernel has answered before the request returned.
    let (length, _) = recv(&socket, &mut answer, RecvFlags::DONTWAIT)?;
    Ok(is_local_route(&answer[..length]))
}

/// The message that asks for the route to `ip` (rtnetlink(7)).
fn route_request(ip: IpAddr) -> Vec<u8> {
    let (family, address) = match ip {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    let attribute = rtattr {
        rta_len: (size_of::<rtattr>() + address.len()) as u16,
        rta_type: rtattr_type_t::RTA_DST as u16,
    };
    let route = rtmsg {
        rtm_family: family as u8,
        rtm_dst_len: (8 * address.len()) as u8,
        rtm_src_len: 0,
        rtm_tos: 0,
        rtm_table: 0,
        rtm_protocol: 0,
        rtm_scope: 0,
        rtm_type: 0,
        rtm_flags: 0,
    };
    let header = nlmsghdr {
        nlmsg_len: (size_of::<nlmsghdr>() + size_of::<rtmsg>()) as u32
            + u32::from(attribute.rta_len),
        nlmsg_type: RTM_GETROUTE as u16,
        nlmsg_flags: NLM_F_REQUEST as u16,
        // One request a socket, so there is nothing to tell apart.
        nlmsg_seq: 0,
        nlmsg_pid: 0,
    };
    let mut message = Vec::with_capacity(header.nlmsg_len as usize);
    message.extend(header.nlmsg_len.to_ne_bytes());
    message.extend(header.nlmsg_type.to_ne_bytes());
    message.extend(header.nlmsg_flags.to_ne_bytes());
    message.extend(header.nlmsg_seq.to_ne_bytes());
    message.extend(header.nlmsg_pid.to_ne_bytes());
    message.extend([
        route.rtm_family,
        route.rtm_dst_len,
        route.rtm_src_len,
        route.rtm_tos,
        route.rtm_table,
        route.rtm_protocol,
        route.rtm_scope,
        route.rtm_type,
    ]);
    message.extend(route.rtm_flags.to_ne_bytes());
    message.extend(attribute.rta_len.to_ne_bytes());
    message.extend(attribute.rta_type.to_ne_bytes());
    message.extend(address);
    message
}

/// Whether an answer is a route of type `local`. Anything but a route means that there is none.
fn is_local_route(answer: &[u8]) -> bool {
    let kind = offset_of!(nlmsghdr, nlmsg_type);
    let kind = answer.get(kind..kind + size_of::<u16>());
    let route_type = answer.get(size_of::<nlmsghdr>() + offset_of!(rtmsg, rtm_type));
    kind == Some(&(RTM_NEWROUTE as u16).to_ne_bytes()[..]) && route_type == Some(&(RTN_LOCAL as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Under `sysctl net.ipv4.ip_nonlocal_bind=1` (in a network namespace) too.
    #[test]
    fn the_kernel_knows_its_own_addresses() {
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
    fn what_is_not_a_whole_route_is_not_local() {
        assert!(!is_local_route(&[]));
        let request = route_request("127.0.0.1".parse().unwrap());
        assert_eq!(request.len(), 36);
        assert!(!is_local_route(&request), "a request is not an answer");
        let mut route = request.clone();
        route[offset_of!(nlmsghdr, nlmsg_type)] = RTM_NEWROUTE as u8;
        assert!(!is_local_route(&route));
        route[size_of::<nlmsghdr>() + offset_of!(rtmsg, rtm_type)] = RTN_LOCAL as u8;
        assert!(is_local_route(&route));
        assert!(!is_local_route(&route[..size_of::<nlmsghdr>()]));
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
