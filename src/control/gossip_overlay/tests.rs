//! The peer set through a channel, into layers and snapshots; no socket but a listener's stand-in.

use tokio::time::timeout;

use super::*;
use crate::config::compile::{CompileInputs, Previous, compile};
use crate::config::load::load_bytes;
use crate::config::schema::GossipConfig;
use crate::gossip::identity::Role;
use crate::gossip::record::{Announced, Record, ServiceState};
use crate::gossip::view::{Liveness, Member};
use crate::model::backend::{Backend, Doubt};
use crate::model::health::Health;
use crate::model::peer_set::PeerSetSettings;
use crate::snapshot::Snapshot;

const FILE: &str = r#"
[[listener]]
address = "127.0.0.1:8080"
cluster = "web"

[cluster.web]
backends = ["10.0.0.1:80"]
check = { tcp = true }
"#;

fn config(text: &str) -> Arc<Config> {
    let mut config = load_bytes(text.as_bytes()).config.unwrap();
    config.gossip = Some(GossipConfig {
        peer_set: PeerSetSettings {
            insecure_plaintext: true,
            ..PeerSetSettings::new("127.0.0.1:7946".parse().unwrap())
        },
        token_keys: Vec::new(),
        revoked: Vec::new(),
        allow_cidrs: vec![
            "10.0.0.0/8".parse().unwrap(),
            "127.0.0.0/8".parse().unwrap(),
        ],
        members_file: None,
    });
    config.clusters[0].discover = Some("web".to_owned());
    Arc::new(config)
}

fn member(backend: &str, liveness: Liveness, state: ServiceState) -> Member {
    let backend: SocketAddr = backend.parse().unwrap();
    let record = Record {
        name: "agent".to_owned(),
        cluster: "web".to_owned(),
        backend,
        weight: 2,
        zone: "a".to_owned(),
        state,
        build: String::new(),
    };
    Member {
        address: SocketAddr::new(backend.ip(), 7946),
        epoch: 1,
        role: Role::Agent,
        liveness,
        changed: Duration::ZERO,
        records: vec![Announced {
            record: Arc::new(record),
            epoch: 1,
            version: 1,
            accepted: Duration::ZERO,
            expires: None,
            revoked: None,
        }],
    }
}

fn set(members: Vec<Member>) -> Arc<PeerSet> {
    Arc::new(PeerSet {
        members,
        ..PeerSet::default()
    })
}

fn ready(backends: &[&str]) -> Arc<PeerSet> {
    let one = |b: &&str| member(b, Liveness::Alive, ServiceState::Ready);
    set(backends.iter().map(one).collect())
}

/// What control does with a [`GossipOverlay`].
struct Bench {
    file: Arc<Config>,
    overlay: GossipOverlay,
    sender: watch::Sender<Arc<PeerSet>>,
    registry: Registry,
    sockets: Vec<Arc<BoundSockets>>,
    built: Option<Snapshot>,
    /// The file that it was built from.
    built_from: Arc<Config>,
    reports: Arc<Notify>,
    root: tempfile::TempDir,
}

impl Bench {
    fn new(mut file: Arc<Config>) -> Self {
        let root = tempfile::tempdir().unwrap();
        Arc::make_mut(&mut file).state_dir = Some(root.path().join("state"));
        let (sender, source) = watch::channel(Arc::default());
        let reports = Arc::new(Notify::new());
        let path = root.path().join("lb.toml");
        let overlay =
            GossipOverlay::start(&path, &file, source, Arc::clone(&reports), Arc::default());
        let mut bench = Self {
            built_from: Arc::clone(&file),
            file,
            overlay,
            sender,
            registry: Registry::new(1),
            sockets: vec![Arc::new(BoundSockets::at(
                "127.0.0.1:8080".parse().unwrap(),
            ))],
            built: None,
            reports,
            root,
        };
        bench.update();
        bench.build();
        bench
    }

    fn update(&mut self) -> bool {
        self.overlay
            .update(&self.file, &self.sockets, &self.registry)
    }

    fn build(&mut self) {
        let inputs = CompileInputs {
            registry: &self.registry,
            sockets: &self.sockets,
            names: &HashMap::new(),
            previous: self.built.as_ref().map(|snapshot| Previous {
                file: &self.built_from,
                snapshot,
            }),
        };
        let compiled = compile(&self.overlay.layers(&self.file), &inputs);
        compiled.effects.apply(&mut self.registry);
        self.built = Some(compiled.snapshot);
        self.built_from = Arc::clone(&self.file);
    }

    /// Publishes `set`, waits as control does, looks and builds; says whether something changed.
    async fn take(&mut self, set: Arc<PeerSet>) -> bool {
        self.sender.send_replace(set);
        self.wait().await;
        let changed = self.update();
        if changed {
            self.build();
        }
        changed
    }

    async fn wait(&mut self) {
        timeout(Duration::from_secs(600), self.overlay.changed())
            .await
            .unwrap();
    }

    /// Whether nothing is due for a second.
    async fn rests(&mut self) -> bool {
        timeout(Duration::from_secs(1), self.overlay.changed())
            .await
            .is_err()
    }

    fn backends(&self) -> Vec<(String, u32, Health)> {
        let snapshot = self.built.as_ref().unwrap();
        let shown = |e: &crate::snapshot::Endpoint| {
            (e.backend.label().to_string(), e.weight, e.backend.health())
        };
        snapshot.clusters[0].endpoints.iter().map(shown).collect()
    }

    fn backend(&self, label: &str) -> Arc<Backend> {
        let snapshot = self.built.as_ref().unwrap();
        let mut endpoints = snapshot.clusters[0].endpoints.iter();
        let found = endpoints.find(|e| &**e.backend.label() == label).unwrap();
        Arc::clone(&found.backend)
    }
}

const JOINS: Health = Health::CHECK_DOWN.union(Health::JOINING);

fn row(label: &str, weight: u32, health: Health) -> (String, u32, Health) {
    (label.to_owned(), weight, health)
}

#[tokio::test(start_paused = true)]
async fn members_are_appended_behind_the_file_and_come_in_through_their_check() {
    let mut bench = Bench::new(config(FILE));
    let all = ready(&[
        "10.0.0.1:80",
        "10.0.0.3:80",
        "10.0.0.2:80",
        "127.0.0.1:8080",
    ]);
    assert!(bench.take(Arc::clone(&all)).await);
    let joined = [
        row("10.0.0.1:80", 1, Health::empty()),
        row("10.0.0.2:80", 2, JOINS),
        row("10.0.0.3:80", 2, JOINS),
    ];
    assert_eq!(
        bench.backends(),
        joined,
        "the file wins, and its own listener is no backend"
    );
    let refused = bench.overlay.process.peer_set.refused();
    assert_eq!(
        refused[CandidateRefusal::OwnListener.index()],
        ("own_listener", 1)
    );
    assert!(!bench.take(all).await, "the same again");

    // What passed its check keeps its health when the file changes.
    bench.backend("10.0.0.2:80").clear_health(JOINS);
    let larger = FILE.replace(
        r#""10.0.0.1:80""#,
        r#""10.0.0.1:80", "10.0.0.9:80", "10.0.0.3:80""#,
    );
    bench.file = config(&larger);
    bench.update();
    bench.build();
    let kept = [
        row("10.0.0.1:80", 1, Health::empty()),
        row("10.0.0.9:80", 1, Health::empty()),
        row("10.0.0.3:80", 1, JOINS),
        row("10.0.0.2:80", 2, Health::empty()),
    ];
    assert_eq!(bench.backends(), kept);

    let drained = member("10.0.0.2:80", Liveness::Alive, ServiceState::Draining);
    let two = bench.backend("10.0.0.2:80");
    assert!(bench.take(set(vec![drained])).await);
    assert_eq!(bench.backends(), kept[..3]);
    // As the drains do; it comes back while it drains.
    two.set_departed(true);
    assert!(bench.take(ready(&["10.0.0.2:80"])).await);
    assert_eq!(bench.backends()[3], row("10.0.0.2:80", 2, JOINS));
    assert!(!two.has_departed());
}

#[tokio::test(start_paused = true)]
async fn without_a_check_they_are_in_at_once_and_go_in_time() {
    let mut bench = Bench::new(config(&FILE.replace("check = { tcp = true }", "")));
    let all = || ready(&["10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"]);
    let others = || ready(&["10.0.0.3:80", "10.0.0.4:80"]);
    bench.take(all()).await;
    assert_eq!(bench.backends()[1], row("10.0.0.2:80", 2, Health::empty()));
    assert!(!bench.take(others()).await);
    let lost = Instant::now();
    bench.wait().await;
    assert!(bench.update(), "nothing but time woke it");
    assert_eq!(lost.elapsed().as_secs(), 30);

    bench.build();
    bench.take(all()).await;
    bench.take(others()).await;
    bench.backend("10.0.0.2:80").report_refused();
    let refused = Instant::now();
    bench.wait().await;
    assert!(bench.update());
    assert!(
        refused.elapsed() < Duration::from_secs(1),
        "{:?}",
        refused.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_doubt_is_handed_over_and_its_answer_decides() {
    let mut bench = Bench::new(config(FILE));
    bench.take(ready(&["10.0.0.1:80", "10.0.0.2:80"])).await;
    let (own, found) = (bench.backend("10.0.0.1:80"), bench.backend("10.0.0.2:80"));
    found.clear_health(JOINS);
    let down = || {
        let one = |b| member(b, Liveness::Down, ServiceState::Ready);
        set(vec![one("10.0.0.1:80"), one("10.0.0.2:80")])
    };
    assert!(!bench.take(down()).await);
    assert_eq!(own.doubt(), Doubt::None, "the file names it");
    timeout(Duration::ZERO, bench.reports.notified())
        .await
        .expect("the health checks are woken");
    assert!(found.take_doubt());
    assert!(bench.rests().await, "the probe runs");
    found.answer_doubt();
    bench.wait().await;
    assert!(!bench.update(), "it passed, so it stays");
    assert!(bench.rests().await);
    found.set_health(Health::CHECK_DOWN);
    bench.wait().await;
    assert!(bench.update(), "it failed, so it goes");
    bench.build();
    assert_eq!(bench.backends().len(), 1);
    assert_eq!(found.doubt(), Doubt::None);
    assert!(bench.rests().await);
}

#[tokio::test(start_paused = true)]
async fn agents_that_say_that_all_fail_have_it_checked_at_once_and_leave_a_panic_to_serve() {
    let mut bench = Bench::new(config(FILE));
    let found = ["10.0.0.2:80", "10.0.0.3:80"];
    bench.take(ready(&found)).await;
    for backend in found {
        bench.backend(backend).clear_health(JOINS);
    }
    let failing = |b: &&str| member(b, Liveness::Alive, ServiceState::Failing);
    let failing = set(found.iter().map(failing).collect());
    assert!(!bench.take(Arc::clone(&failing)).await);
    timeout(Duration::ZERO, bench.reports.notified())
        .await
        .expect("the health checks are woken");
    for backend in found {
        assert!(bench.backend(backend).take_doubt(), "{backend}");
    }
    for (backend, _, _) in bench.backends() {
        bench.backend(&backend).set_health(Health::CHECK_DOWN);
    }
    bench.wait().await;
    assert!(!bench.update(), "they stay");
    assert!(!bench.take(failing).await);
    assert_eq!(bench.backends().len(), 3);
    let snapshot = bench.built.as_ref().unwrap();
    assert!(snapshot.clusters[0].in_panic());
}

#[tokio::test(start_paused = true)]
async fn changes_come_together_and_the_end_of_the_source_ends_nothing() {
    let mut bench = Bench::new(config(FILE));
    let start = Instant::now();
    for i in 0..20 {
        bench.take(ready(&[&format!("10.0.0.{}:80", 2 + i)])).await;
    }
    assert!(
        start.elapsed() >= Duration::from_millis(1900),
        "{:?}",
        start.elapsed()
    );
    let (sender, _) = watch::channel(Arc::default());
    bench.sender = sender;
    assert!(bench.rests().await);
    assert!(bench.overlay.source.is_none());
}

#[tokio::test]
async fn the_last_good_set_is_kept_and_used_at_a_start_without_peers() {
    let mut bench = Bench::new(config(FILE));
    bench.take(ready(&["10.0.0.2:80", "10.0.0.3:80"])).await;
    let path = bench.root.path().join("state/lb.members.json");
    let written = async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), written).await.unwrap();

    let (sender, source) = watch::channel(Arc::default());
    // It lies beside the configuration of the other one.
    let file = bench.root.path().join("state/lb.toml");
    let mut next = Bench::new(config(FILE));
    next.overlay = GossipOverlay::start(&file, &next.file, source, Arc::default(), Arc::default());
    next.sender = sender;
    (next.registry, next.built) = (Registry::new(1), None);
    next.update();
    next.build();
    let used = [
        row("10.0.0.1:80", 1, Health::empty()),
        row("10.0.0.2:80", 2, Health::empty()),
        row("10.0.0.3:80", 2, Health::empty()),
    ];
    assert_eq!(next.backends(), used, "used at once");
    let stale = &next.overlay.process.peer_set.stale;
    assert!(stale.load(Ordering::Relaxed));
    assert!(!next.take(ready(&[])).await, "nobody there");
    // What is new beside them comes in through its check.
    assert!(next.take(ready(&["10.0.0.2:80", "10.0.0.4:80"])).await);
    assert_eq!(next.backends()[3], row("10.0.0.4:80", 2, JOINS));
    assert_eq!(next.backends()[..3], used);
}

#[tokio::test(start_paused = true)]
async fn a_bad_state_is_not_written() {
    let mut bench = Bench::new(config(FILE));
    let all = || ready(&["10.0.0.2:80", "10.0.0.3:80"]);
    bench.take(all()).await;
    let count = |bench: &Bench| -> usize {
        let wanted = bench.overlay.last_good.wanted();
        wanted.map_or(0, |kept| kept["web"].len())
    };
    assert_eq!(count(&bench), 2);
    let mut mistaken = Config::clone(&bench.file);
    mistaken.gossip.as_mut().unwrap().allow_cidrs.clear();
    let right = std::mem::replace(&mut bench.file, Arc::new(mistaken));
    assert!(bench.update(), "nobody is allowed");
    bench.build();
    assert_eq!((bench.backends().len(), count(&bench)), (1, 2));
    bench.file = right;
    assert!(bench.update());
    bench.build();
    // It is alone, and all fail.
    bench.take(set(Vec::new())).await;
    for backend in ["10.0.0.2:80", "10.0.0.3:80"] {
        bench.backend(backend).clear_health(JOINS);
        bench.backend(backend).set_health(Health::CHECK_DOWN);
    }
    bench.wait().await;
    bench.update();
    bench.wait().await;
    assert!(bench.update(), "the hold is over");
    bench.build();
    assert_eq!((bench.backends().len(), count(&bench)), (1, 2));
    bench
        .take(ready(&["10.0.0.2:80", "10.0.0.4:80", "10.0.0.5:80"]))
        .await;
    assert_eq!(count(&bench), 3, "and a good one is");
}

#[tokio::test(start_paused = true)]
async fn where_the_proxy_can_be_spoken_to_is_no_backend() {
    for admin in ["127.0.0.1:9900", ":9900"] {
        let mut file = Config::clone(&config(&format!("admin.address = \"{admin}\"\n{FILE}")));
        let gossip = file.gossip.as_mut().unwrap();
        gossip.peer_set.address = "0.0.0.0:7946".parse().unwrap();
        gossip.peer_set.advertise = "10.0.0.7:7947".parse().unwrap();
        let mut bench = Bench::new(Arc::new(file));
        let own = [
            "127.0.0.1:8080",
            "127.0.0.1:9900",
            "127.0.0.1:7946",
            "10.0.0.7:7947",
        ];
        bench.take(ready(&own)).await;
        let refused = bench.overlay.process.peer_set.refused();
        assert_eq!(
            refused[CandidateRefusal::OwnListener.index()],
            ("own_listener", 4),
            "{admin}"
        );
        assert_eq!(
            bench.backends(),
            [row("10.0.0.1:80", 1, Health::empty())],
            "{admin}"
        );
    }
}
