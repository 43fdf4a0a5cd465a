//! Configurations into snapshots, without a socket: what a name becomes, what is shared, and that nothing changes
//! before the effects are applied.

use super::*;
use crate::config::load::load;

/// One configuration, whose name `a:80` resolves to what is given.
struct Bench {
    layers: Layers,
    registry: Registry,
    sockets: Vec<Arc<BoundSockets>>,
    names: ResolvedNames,
    current: Option<(Arc<Config>, Snapshot)>,
}

fn config(text: &str) -> Arc<Config> {
    let loaded = load(text);
    let config = loaded.config;
    Arc::new(config.unwrap_or_else(|| panic!("{text}: {:?}", loaded.diagnostics)))
}

fn with_cluster(cluster: &str) -> Arc<Config> {
    config(&format!(
        "[[listener]]\naddress = '127.0.0.1:1'\ncluster = 'c'\n[cluster.c]\n{cluster}\n"
    ))
}

fn added(address: &str, weight: u32) -> BackendConfig {
    BackendConfig {
        address: address.parse().unwrap(),
        weight,
        backup: false,
    }
}

impl Bench {
    fn new(cluster: &str) -> Self {
        Self {
            layers: Layers::of_file(with_cluster(cluster)),
            registry: Registry::new(1),
            sockets: vec![Arc::new(BoundSockets::at("127.0.0.1:1".parse().unwrap()))],
            names: ResolvedNames::new(),
            current: None,
        }
    }

    fn compile(&self) -> Compiled {
        compile(
            &self.layers,
            &CompileInputs {
                registry: &self.registry,
                sockets: &self.sockets,
                names: &self.names,
                previous: self
                    .current
                    .as_ref()
                    .map(|(file, snapshot)| Previous { file, snapshot }),
            },
        )
    }

    /// Compiles and publishes the next generation.
    fn publish(&mut self) -> &Snapshot {
        let Compiled { snapshot, effects } = self.compile();
        effects.apply(&mut self.registry);
        let file = Arc::clone(&self.layers.file);
        &self.current.insert((file, snapshot)).1
    }

    /// The next generation, in which the name has the addresses `10.0.0.n:80`.
    fn resolve(&mut self, answer: &[u8]) -> &mut Self {
        let addresses: Vec<SocketAddr> =
            answer.iter().map(|n| ([10, 0, 0, *n], 80).into()).collect();
        self.names.clear();
        if !addresses.is_empty() {
            let name = "a:80".parse().unwrap();
            self.names.insert(name, addresses.into());
        }
        self.publish();
        self
    }

    fn snapshot(&self) -> &Snapshot {
        &self.current.as_ref().unwrap().1
    }

    fn backend(&self, label: &str) -> Arc<Backend> {
        let mut endpoints = self.endpoints().iter();
        let found = endpoints.find(|e| &**e.backend.label() == label);
        Arc::clone(&found.unwrap().backend)
    }

    fn endpoints(&self) -> &[Endpoint] {
        &self.snapshot().clusters[0].endpoints
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

fn http(listener: &Listener) -> &HttpListener {
    match &listener.kind {
        ListenerKind::Http(http) => http,
        ListenerKind::Tcp(_) => panic!("{} speaks tcp", listener.name),
    }
}

fn tcp_cluster(listener: &Listener) -> ClusterIndex {
    match &listener.kind {
        ListenerKind::Tcp(tcp) => tcp.cluster.unwrap(),
        ListenerKind::Http(_) => panic!("{} speaks http", listener.name),
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
    let members = bench.snapshot().clusters[0].balancer.backends();
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
        let cluster = Arc::clone(&bench.resolve(&[1, 2]).snapshot().clusters[0]);
        bench.resolve(&[1, 2]);
        let again = &bench.snapshot().clusters[0];
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

#[test]
fn nothing_changes_before_the_effects_are_applied() {
    let mut bench = Bench::new("backends = ['a:80', '10.0.0.9:80']\ncheck = { tcp = true }");
    bench.resolve(&[1]);
    let (named, fixed) = (bench.backend("a@10.0.0.1:80"), bench.backend("10.0.0.9:80"));
    fixed.set_departed(true);
    bench.names.clear();
    let gossip = &mut bench.layers.gossip;
    gossip.insert("c".to_owned(), vec![added("10.0.0.2:80", 1)]);
    let before = format!("{:?}", bench.registry);
    let Compiled { snapshot, effects } = bench.compile();
    let endpoints = &snapshot.clusters[0].endpoints;
    assert_eq!(endpoints.len(), 3);
    assert_eq!(format!("{:?}", bench.registry), before);
    assert!(fixed.has_departed() && named.is_healthy());
    assert!(endpoints[0].backend.is_healthy(), "not even a new backend");

    effects.apply(&mut bench.registry);
    let health: Vec<Health> = endpoints.iter().map(|e| e.backend.health()).collect();
    assert_eq!(
        health,
        [
            Health::UNRESOLVED,
            Health::empty(),
            Health::CHECK_DOWN | Health::JOINING
        ]
    );
    assert!(!fixed.has_departed());
    let key = BackendKey::of_address("10.0.0.2:80".parse().unwrap());
    assert!(bench.registry.known_backend("c", &key).is_some());
}

#[test]
fn only_what_the_peer_set_adds_later_to_a_checked_cluster_joins() {
    for (check, health) in [
        (
            "check = { tcp = true }",
            Health::CHECK_DOWN | Health::JOINING,
        ),
        ("", Health::empty()),
    ] {
        let mut bench = Bench::new(&format!("backends = ['10.0.0.1:80']\n{check}"));
        let mut gossip = vec![added("10.0.0.2:80", 1)];
        bench.layers.gossip.insert("c".to_owned(), gossip.clone());
        bench.publish();
        assert!(bench.backend("10.0.0.2:80").is_healthy(), "the first ones");
        gossip.push(added("10.0.0.3:80", 1));
        bench.layers.gossip.insert("c".to_owned(), gossip);
        bench.publish();
        assert!(bench.backend("10.0.0.2:80").is_healthy());
        assert_eq!(bench.backend("10.0.0.3:80").health(), health, "{check}");
        // The file takes it over, and its health stays.
        bench.layers.file = with_cluster(&format!(
            "backends = ['10.0.0.1:80', '10.0.0.3:80']\n{check}"
        ));
        bench.publish();
        assert_eq!(bench.backend("10.0.0.3:80").health(), health);
        assert_eq!(bench.endpoints().len(), 3);
    }
}

#[test]
fn a_cluster_is_shared_until_a_setting_a_weight_or_an_address_changes() {
    let mut bench = Bench::new("backends = ['10.0.0.1:80']");
    let mut last = Arc::clone(&bench.publish().clusters[0]);
    let mut is_shared = |bench: &mut Bench| {
        let now = Arc::clone(&bench.publish().clusters[0]);
        let same = Arc::ptr_eq(&last, &now);
        last = now;
        same
    };
    assert!(is_shared(&mut bench));
    for cluster in [
        "backends = ['10.0.0.1:80']\nretry = { attempts = 3 }",
        "backends = ['10.0.0.1:80']\npolicy = 'random'",
        "backends = ['10.0.0.2:80']",
        "backends = [{ address = '10.0.0.2:80', weight = 2 }]",
        "backends = [{ address = '10.0.0.2:80', weight = 2, backup = true }]",
        "backends = ['10.0.0.1:80', '10.0.0.2:80']",
    ] {
        bench.layers.file = with_cluster(cluster);
        assert!(!is_shared(&mut bench), "{cluster}");
        assert!(is_shared(&mut bench), "{cluster}");
    }
    let gossip = &mut bench.layers.gossip;
    gossip.insert("c".to_owned(), vec![added("10.0.0.3:80", 1)]);
    assert!(!is_shared(&mut bench));
    bench.layers.gossip.clear();
    assert!(!is_shared(&mut bench));
    assert_eq!(bench.snapshot().generation, 16);
}

#[test]
fn routes_name_clusters_by_their_place_and_keep_their_counters() {
    let text = "[[listener]]\nname = 'web'\naddress = '127.0.0.1:1'\nrespond = { status = 404 }\n\
                [[listener]]\nname = 'db'\naddress = '127.0.0.1:2'\nprotocol = 'tcp'\ncluster = 'b'\n\
                [[route]]\nname = 'api'\npath = '/api'\ncluster = 'b'\n\
                [[route]]\npath = '/old'\nredirect = 'https://{host}/new'\n\
                [cluster.a]\nbackends = ['10.0.0.1:80']\n[cluster.b]\nbackends = ['10.0.0.2:80']\n";
    let mut bench = Bench::new("backends = ['10.0.0.1:80']");
    bench.layers = Layers::of_file(config(text));
    let sockets = ["127.0.0.1:1", "127.0.0.1:2"];
    bench.sockets = sockets
        .map(|address| Arc::new(BoundSockets::at(address.parse().unwrap())))
        .into();
    let snapshot = bench.publish();
    let [web, db] = &snapshot.listeners[..] else {
        panic!("{snapshot:?}")
    };
    assert_eq!(&*snapshot.cluster(tcp_cluster(db)).name, "b");
    assert!(matches!(
        http(web).fallback,
        Some(RouteAction::Redirect { .. } | RouteAction::Respond { .. })
    ));
    let rules = http(web).routes.rules().iter();
    let targets: Vec<_> = rules.map(|rule| &rule.target).collect();
    let index = targets[0].action.cluster();
    assert_eq!(&*snapshot.cluster(*index.unwrap()).name, "b");
    assert!(targets[1].action.cluster().is_none());
    assert!(targets[1].metrics.is_none(), "it has no name");
    let counters = Arc::clone(targets[0].metrics.as_ref().unwrap());
    let again = &http(&bench.publish().listeners[0]).routes.rules()[0];
    assert!(Arc::ptr_eq(
        &counters,
        again.target.metrics.as_ref().unwrap()
    ));
}

/// Two http listeners, one of them at two addresses, before two clusters.
const ROUTES: &str = "
[[listener]]
name = 'web'
address = ['127.0.0.1:1', '127.0.0.1:2']
cluster = 'a'
[[listener]]
name = 'other'
address = '127.0.0.1:3'
cluster = 'b'
[[route]]
path = '/a'
listeners = 'web'
cluster = 'a'
[[route]]
path = '/b'
cluster = 'b'
[cluster.a]
backends = ['10.0.0.1:80', 'a:80']
[cluster.b]
backends = ['10.0.0.2:80']
";

#[test]
fn routes_are_shared_until_a_route_or_the_index_of_a_cluster_changes() {
    let mut bench = Bench::new("backends = ['10.0.0.1:80']");
    let sockets = (1..=3).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    bench.sockets = sockets.map(|at| Arc::new(BoundSockets::at(at))).collect();
    bench.layers = Layers::of_file(config(ROUTES));
    let routes = |snapshot: &Snapshot| -> Vec<Arc<Table<RouteTarget>>> {
        let listeners = snapshot.listeners.iter();
        listeners.map(|l| Arc::clone(&http(l).routes)).collect()
    };
    let mut last = routes(bench.publish());
    assert!(Arc::ptr_eq(&last[0], &last[1]), "one listener");
    assert_eq!((last[0].rules().len(), last[2].rules().len()), (2, 1));
    let mut are_shared = |bench: &mut Bench| {
        let now = routes(bench.publish());
        let same = now.iter().zip(&last).all(|(a, b)| Arc::ptr_eq(a, b));
        last = now;
        same
    };
    let name = "a:80".parse().unwrap();
    bench
        .names
        .insert(name, Arc::from([SocketAddr::from(([10, 0, 0, 7], 80))]));
    assert!(are_shared(&mut bench), "another answer for a name");
    for (from, to, expected) in [
        ("10.0.0.2:80", "10.0.0.3:80", true),
        (
            "cluster = 'a'\n[[listener]]",
            "cluster = 'b'\n[[listener]]",
            true,
        ),
        (
            "[cluster.a]",
            "[cluster.0]\nbackends = ['10.0.0.9:80']\n[cluster.a]",
            false,
        ),
        ("path = '/b'", "path = '/c'", false),
        ("listeners = 'web'", "listeners = 'other'", false),
    ] {
        let text = ROUTES.replace(from, to);
        assert_ne!(text, ROUTES, "{from}");
        bench.layers.file = config(ROUTES);
        bench.publish();
        are_shared(&mut bench);
        bench.layers.file = config(&text);
        assert_eq!(are_shared(&mut bench), expected, "{to}");
        let snapshot = bench.snapshot();
        let rules = http(&snapshot.listeners[2]).routes.rules().iter();
        for rule in rules.filter(|rule| rule.target.name.ends_with('b')) {
            let index = rule.target.action.cluster();
            assert_eq!(&*snapshot.cluster(*index.unwrap()).name, "b");
        }
    }
    let text = format!("{ROUTES}[cluster.c]\nbackends = ['10.0.0.9:80']\n");
    bench.layers.file = config(ROUTES);
    are_shared(&mut bench);
    bench.layers.file = config(&text);
    assert!(are_shared(&mut bench), "a cluster at the end");
}
