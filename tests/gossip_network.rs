//! The peer set with real processes over a network that loses, delays, and carries only one way; and what can be seen
//! on the wire.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::support::agent::{Agent, write_key};
use crate::support::backend::Backend;
use crate::support::port::Port;
use crate::support::process::Proxy;
use crate::support::relay::{Relay, Weather};
use crate::support::wait::{PATIENCE, holds_for, wait_until};

/// A member of the set: the address that it binds, and the relay through which the others reach it.
struct Seat {
    port: Port,
    relay: Relay,
}

impl Seat {
    fn new(ip: &str) -> Self {
        let port = Port::reserve(ip);
        let relay = Relay::start(ip, port.addr);
        Self { port, relay }
    }
}

/// A proxy and three agents, each behind a relay.
struct Set {
    dir: tempfile::TempDir,
    seats: Vec<Seat>,
    proxy: Proxy,
    services: Vec<Backend>,
    _agents: Vec<Agent>,
}

const ZONE: &str = "zone-of-the-secret";

impl Set {
    /// Starts them in `127.0.NET.0/24`.
    fn start(net: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("a.key");
        write_key(&key);
        let seats: Vec<Seat> = (1..=4)
            .map(|i| Seat::new(&format!("127.0.{net}.{i}")))
            .collect();
        let seed = seats[0].relay.addr;
        let proxy = Proxy::start(&format!(
            "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\ncluster = \"shop\"\n\
             [cluster.shop]\ndiscover = {{ gossip = \"shop\" }}\n\
             [gossip]\naddress = \"{}\"\nadvertise = \"{seed}\"\nkey_files = [\"{}\"]\n\
             label = \"label-of-the-secret\"\nallow_cidrs = [\"127.0.0.0/8\"]\n",
            seats[0].port.addr,
            key.display(),
        ));
        let services: Vec<Backend> = (0..3).map(|i| Backend::start(&format!("b{i}"))).collect();
        let agents = seats[1..]
            .iter()
            .zip(&services)
            .map(|(seat, service)| {
                let flags = format!(
                    "--cluster shop --backend {} --zone {ZONE} --name host-of-the-secret \
                     --label label-of-the-secret --key-file {} --seeds {seed} --address {} --advertise {}",
                    service.addr,
                    key.display(),
                    seat.port.addr,
                    seat.relay.addr,
                );
                Agent::start(&flags, &[])
            })
            .collect();
        Self {
            dir,
            seats,
            proxy,
            services,
            _agents: agents,
        }
    }

    /// Waits until the proxy uses all three services and finds all members alive.
    #[track_caller]
    fn wait_whole(&self) {
        let expected: BTreeSet<String> = self.services.iter().map(|s| s.addr.to_string()).collect();
        wait_until(PATIENCE, "all are used", || used(&self.proxy) == expected);
        wait_until(PATIENCE, "all are alive", || self.members("alive") == 4);
    }

    fn members(&self, state: &str) -> u64 {
        self.proxy
            .count("lbproxy_gossip_members", &[("state", state)])
    }

    fn set_all(&self, weather: &Weather) {
        for seat in &self.seats {
            seat.relay.set(weather.clone());
        }
    }
}

/// The backends that a proxy sends requests to.
fn used(proxy: &Proxy) -> BTreeSet<String> {
    let status = proxy.status();
    let backends = status["clusters"][0]["backends"].as_array().unwrap();
    let up = backends.iter().filter(|b| b["state"] == "up");
    up.map(|b| b["address"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn loss_delay_and_a_one_way_link_remove_no_backend() {
    let set = Set::start(5);
    set.wait_whole();
    let whole = used(&set.proxy);
    for (what, loss, delay, deaf_to) in [
        ("a fifth is lost", 0.2, 0, vec![]),
        ("all take 50 ms, a twentieth is lost", 0.05, 50, vec![]),
        (
            "the proxy does not hear one agent's datagrams",
            0.0,
            0,
            vec![set.seats[1].port.addr],
        ),
    ] {
        set.set_all(&Weather {
            loss,
            delay: Duration::from_millis(delay),
            deaf_to: Vec::new(),
        });
        set.seats[0].relay.set(Weather {
            loss,
            delay: Duration::from_millis(delay),
            deaf_to,
        });
        holds_for(Duration::from_secs(12), what, || {
            used(&set.proxy) == whole && set.members("down") == 0
        });
    }
    set.set_all(&Weather::default());
    set.wait_whole();
}

#[test]
fn nothing_on_the_wire_can_be_read() {
    let set = Set::start(6);
    set.wait_whole();
    // A member that joins does a push-pull; a reload makes the proxy leave and join again.
    let config = std::fs::read_to_string(set.proxy.config_path()).unwrap();
    set.proxy
        .reload_ok(&config.replace("label-of-the-secret", "another-of-the-secret"));
    set.proxy.reload_ok(&config);
    set.wait_whole();
    let key = std::fs::read_to_string(set.dir.path().join("a.key")).unwrap();
    let mut secrets: Vec<Vec<u8>> = [
        "of-the-secret",
        "shop",
        "127.0.",
        key.trim().rsplit('.').next().unwrap(),
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    for addr in set
        .services
        .iter()
        .map(|service| service.addr)
        .chain(set.seats.iter().map(|seat| seat.relay.addr))
    {
        secrets.push(packed(addr));
    }
    let mut carried = 0;
    for seat in &set.seats {
        let bytes = seat.relay.carried();
        carried += bytes.len();
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(
                !found,
                "{:?} is on the wire in clear",
                secret.escape_ascii().to_string()
            );
        }
    }
    println!(
        "{carried} bytes on the wire, none of {} secrets in them",
        secrets.len()
    );
    assert!(carried > 5_000, "something was said: {carried} bytes");
}

/// An address as binary protocols write it: four bytes and the port.
fn packed(addr: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(v4) = addr else {
        panic!("{addr}")
    };
    let mut bytes = v4.ip().octets().to_vec();
    bytes.extend_from_slice(&v4.port().to_be_bytes());
    bytes
}

#[test]
fn junk_is_dropped_and_counted_and_a_stream_that_stays_open_blocks_nobody() {
    let set = Set::start(7);
    set.wait_whole();
    let whole = used(&set.proxy);
    let proxy = set.seats[0].port.addr;
    let strangers: Vec<std::net::TcpStream> = (0..200)
        .map(|_| std::net::TcpStream::connect(proxy).unwrap())
        .collect();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut recorded = set.seats[0].relay.carried();
    recorded.truncate(1_000);
    let dropped = |reason| {
        set.proxy
            .count("lbproxy_gossip_dropped_total", &[("reason", reason)])
    };
    let cpu = set.proxy.cpu_time();
    for round in 0..5_000u32 {
        let mut junk = round.to_be_bytes().repeat(50);
        junk[0] = 1;
        junk[1] = 1;
        socket.send_to(&junk, proxy).unwrap();
        socket.send_to(&recorded, proxy).unwrap();
        socket.send_to(&[1, 1, 0], proxy).unwrap();
        socket.send_to(&vec![1; 2_000], proxy).unwrap();
    }
    wait_until(PATIENCE, "all kinds are counted", || {
        dropped("unknown_key") > 0 && dropped("truncated") > 0 && dropped("oversized") > 0
    });
    println!(
        "20,000 datagrams of junk took {:?}",
        set.proxy.cpu_time() - cpu
    );
    holds_for(Duration::from_secs(3), "nobody is out", || {
        used(&set.proxy) == whole && set.members("down") == 0
    });
    // The unverified streams sent nothing, and were closed.
    for stream in &strangers {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let closed = std::io::Read::read(&mut &*stream, &mut [0; 1]);
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    }
    set.wait_whole();
}
