//! What becomes of a name in a snapshot: its addresses are backends, or one of them is.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::config;
use crate::config::compile::{World, compile};
use crate::config::schema::Config;
use crate::model::address::BackendAddress;
use crate::model::health::Health;
use crate::snapshot::registry::Registry;
use crate::snapshot::{Departing, Endpoint, Snapshot};
use crate::transport::listen::BoundSockets;

/// One configuration, whose name `a:80` resolves to what is reported.
struct Bench {
    config: Config,
    registry: Registry,
    sockets: Vec<Arc<BoundSockets>>,
    current: Option<Snapshot>,
}

impl Bench {
    fn new(cluster: &str) -> Self {
        let text = format!(
            "[[listener]]\naddress = '127.0.0.1:1'\ncluster = 'c'\n[cluster.c]\n{cluster}\n"
        );
        Self {
            config: config(&text),
            registry: Registry::new(1),
            sockets: vec![Arc::new(BoundSockets::at("127.0.0.1:1".parse().unwrap()))],
            current: None,
        }
    }

    /// The next generation, in which the name has the addresses `10.0.0.n:80`.
    fn resolve(&mut self, answer: &[u8]) -> &mut Self {
        let addresses: Vec<SocketAddr> =
            answer.iter().map(|n| ([10, 0, 0, *n], 80).into()).collect();
        let mut names: HashMap<BackendAddress, Arc<[SocketAddr]>> = HashMap::new();
        if !addresses.is_empty() {
            names.insert("a:80".parse().unwrap(), addresses.into());
        }
        let before = self.current.take();
        let next = compile(
            &self.config,
            World {
                registry: &mut self.registry,
                sockets: &self.sockets,
                names: &names,
                before: before.as_ref().map(|before| (&self.config, before)),
                departing: Departing::default(),
            },
        );
        self.current = Some(next);
        self
    }

    fn endpoints(&self) -> &[Endpoint] {
        &self.current.as_ref().unwrap().clusters[0].endpoints
    }

    fn labels(&self) -> Vec<String> {
        let labels = self.endpoints().iter().map(|e| e.backend.label());
        labels.map(ToString::to_string).collect()
    }

    fn at(&self, n: u8) -> &Endpoint {
        let address: SocketAddr = ([10, 0, 0, n], 80).into();
        let mut endpoints = self.endpoints().iter();
        endpoints
            .find(|e| e.address == Some(address.into()))
            .unwrap()
    }
}

#[test]
fn each_address_is_a_backend_with_the_weight_as_written() {
    let mut bench =
        Bench::new("backends = [{ address = 'a:80', weight = 3, backup = true }, '10.0.0.9:80']");
    bench.resolve(&[1, 2]);
    assert_eq!(
        bench.labels(),
        ["a@10.0.0.1:80", "a@10.0.0.2:80", "10.0.0.9:80"]
    );
    for n in [1, 2] {
        let e = bench.at(n);
        assert_eq!((e.weight, e.backup, &**e.backend.host()), (3, true, "a:80"));
    }
    let members = bench.current.as_ref().unwrap().clusters[0]
        .balancer
        .backends();
    let labels: Vec<_> = members
        .iter()
        .map(|m| m.backend.label().to_string())
        .collect();
    assert_eq!(labels, bench.labels(), "the picker names them by place");
}

#[test]
fn what_stays_keeps_its_state_and_what_leaves_is_gone() {
    let mut bench = Bench::new("backends = ['a:80']");
    bench.resolve(&[1, 2, 3]);
    bench.at(2).backend.set_health(Health::CHECK_DOWN);
    bench.at(2).backend.start();
    bench.at(1).metrics.sheet(0).connections.increment();
    let ids = [bench.at(1).backend.id(), bench.at(2).backend.id()];
    bench.resolve(&[1, 2, 4]);
    assert_eq!(
        bench.labels(),
        ["a@10.0.0.1:80", "a@10.0.0.2:80", "a@10.0.0.4:80"]
    );
    assert_eq!([bench.at(1).backend.id(), bench.at(2).backend.id()], ids);
    assert_eq!(bench.at(2).backend.health(), Health::CHECK_DOWN);
    assert_eq!(bench.at(2).backend.in_flight(), 1);
    assert_eq!(bench.at(1).metrics.sheet(0).connections.get(), 1);
    assert!(bench.at(4).backend.is_healthy());
}

#[test]
fn the_same_answer_is_the_same_cluster() {
    for keys in ["", "resolve = { addresses = 'one' }"] {
        let mut bench = Bench::new(&format!("backends = ['a:80']\n{keys}"));
        let cluster = Arc::clone(&bench.resolve(&[1, 2]).current.as_ref().unwrap().clusters[0]);
        bench.resolve(&[1, 2]);
        let again = &bench.current.as_ref().unwrap().clusters[0];
        assert!(Arc::ptr_eq(&cluster, again), "{keys}");
    }
}

#[test]
fn a_name_without_an_answer_is_an_unresolved_backend() {
    for keys in ["", "resolve = { addresses = 'one' }"] {
        let mut bench = Bench::new(&format!("backends = ['a:80', '10.0.0.9:80']\n{keys}"));
        bench.resolve(&[]);
        assert_eq!(bench.labels(), ["a:80", "10.0.0.9:80"]);
        let unresolved = &bench.endpoints()[0];
        assert_eq!(
            (unresolved.backend.health(), &unresolved.address),
            (Health::UNRESOLVED, &None)
        );
        bench.resolve(&[1]);
        assert!(bench.at(1).backend.is_healthy());
        assert_eq!(bench.endpoints().len(), 2);
    }
}

#[test]
fn one_address_at_a_time_under_the_name_alone() {
    let mut bench =
        Bench::new("backends = ['a:80']\nresolve = { every = '5s', addresses = 'one' }");
    bench.resolve(&[2, 3]);
    assert_eq!(bench.labels(), ["a:80"]);
    let first = Arc::clone(&bench.at(2).backend);
    bench.at(2).metrics.sheet(0).connections.increment();
    // It stays while it is an answer, whatever else is.
    bench.resolve(&[1, 2, 3]);
    assert_eq!(bench.at(2).backend.id(), first.id());
    // Then another takes its place: a state of its own, counters of the name.
    bench.resolve(&[3, 4]);
    let next = bench.at(3);
    assert_ne!(next.backend.id(), first.id());
    assert_eq!(
        (&**next.backend.label(), bench.endpoints().len()),
        ("a:80", 1)
    );
    assert_eq!(next.metrics.sheet(0).connections.get(), 1);
}
