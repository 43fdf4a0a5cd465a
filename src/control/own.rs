//! Which addresses are the proxy's own: a backend there would send its traffic round for ever.
//!
//! A listener on all addresses is at each one of the machine, and those are told by binding a UDP socket to one (it
//! sends nothing). Answers are kept for a moment, since addresses move between machines.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const KEPT: Duration = Duration::from_secs(10);
const MOST_KEPT: usize = 10_000;

/// What is known of the machine's addresses.
#[derive(Debug, Default)]
pub struct LocalAddresses(RefCell<(Option<Instant>, HashMap<IpAddr, bool>)>);

impl LocalAddresses {
    /// Whether `ip` is one of the machine.
    fn has(&self, ip: IpAddr) -> bool {
        let mut known = self.0.borrow_mut();
        let (since, answers) = &mut *known;
        if since.is_none_or(|since| since.elapsed() > KEPT) || answers.len() >= MOST_KEPT {
            *since = Some(Instant::now());
            answers.clear();
        }
        *answers
            .entry(ip)
            .or_insert_with(|| UdpSocket::bind((ip, 0)).is_ok())
    }

    /// Whether one of `listeners` is at `address`. `advertised` is the machine's too, wherever it is translated.
    pub fn is_own(
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

#[cfg(test)]
mod tests {
    use super::*;

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
