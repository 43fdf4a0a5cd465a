//! A round-robin HTTP proxy on Pingora, configured like the others: one thread, connections to backends kept, no log.
//!
//! `pingora-peer LISTEN BACKEND BACKEND…`, all as ip:port. It runs until it is ended from outside.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;

struct RoundRobin {
    backends: Vec<SocketAddr>,
    next: AtomicUsize,
}

#[async_trait]
impl ProxyHttp for RoundRobin {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let backend = self.backends[turn % self.backends.len()];
        Ok(Box::new(HttpPeer::new(backend, false, String::new())))
    }
}

fn main() {
    let mut words = std::env::args().skip(1);
    let listen = words.next().expect("the address to listen on");
    let backends: Vec<SocketAddr> = words
        .map(|word| word.parse().expect("a backend is ip:port"))
        .collect();
    assert!(!backends.is_empty(), "at least one backend");

    let conf = ServerConf {
        threads: 1,
        work_stealing: false,
        upstream_keepalive_pool_size: 256,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let proxy = RoundRobin {
        backends,
        next: AtomicUsize::new(0),
    };
    let mut service = http_proxy_service(&Arc::clone(&server.configuration), proxy);
    service.add_tcp(&listen);
    server.add_service(service);
    server.run_forever();
}
