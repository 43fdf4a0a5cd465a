//! The one writer of snapshots and the health checks together, fed with peer sets through a channel: the control plane
//! of the program without its workers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::{AdminServer, AdminState, Started};
use crate::config::schema::{Config, GossipConfig};
use crate::control::{
    Control, First, Membership, Peers, Signals, Tried, first_snapshot, read_config,
};
use crate::discovery::gossip::publisher::MemberPublisher;
use crate::gossip::identity::Role;
use crate::gossip::record::{Announced, Record, ServiceState};
use crate::gossip::view::{Liveness, Member, PeerSet};
use crate::logging::access::AccessLogWriter;
use crate::logging::events::EventLog;
use crate::model::peer_set::PeerSetSettings;
use crate::model::settings::AccessLog;
use crate::snapshot::publish::Publisher;
use crate::telemetry::metrics::ProcessMetrics;
use crate::telemetry::readiness::Readiness;
use crate::transport::descriptors::Descriptors;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// What the file says, and what its reader would make of `[gossip]` and `discover`.
fn discovering(path: &Path) -> (Config, Tried) {
    let (mut config, _, tried) = read_config(&[path.to_owned()]).unwrap();
    config.gossip = Some(GossipConfig {
        peer_set: PeerSetSettings {
            insecure_plaintext: true,
            ..PeerSetSettings::new("127.0.0.1:7946".parse().unwrap())
        },
        token_keys: Vec::new(),
        revoked: Vec::new(),
        allow_cidrs: vec!["127.0.0.0/8".parse().unwrap()],
        members_file: None,
    });
    config.clusters[0].discover = Some("web".to_owned());
    (config, tried)
}

fn set(members: &[(SocketAddr, Liveness, ServiceState)]) -> Arc<PeerSet> {
    let member = |&(backend, liveness, state): &(SocketAddr, Liveness, ServiceState)| {
        let record = Record {
            name: "agent".to_owned(),
            cluster: "web".to_owned(),
            backend,
            weight: 1,
            zone: String::new(),
            state,
            build: String::new(),
        };
        Member {
            address: backend,
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
    };
    Arc::new(PeerSet {
        members: members.iter().map(member).collect(),
        ..PeerSet::default()
    })
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "never: {what}");
}

async fn service() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_in_by_their_check_and_leave_by_order_or_by_their_check() {
    use Liveness::{Alive, Down};
    use ServiceState::{Draining, Ready};

    let (_fixed, fixed) = service().await;
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("lb.toml");
    // The interval is so long that whatever happens is a first probe or a doubt.
    let text = format!(
        "drain_timeout = \"1s\"\nwatch = false\n[[listener]]\naddress = \"127.0.0.1:0\"\ncluster = \"web\"\n\
         [cluster.web]\nbackends = [\"{fixed}\"]\ncheck = {{ tcp = true, interval = \"1h\", rise = 1, fall = 3 }}\n"
    );
    std::fs::write(&path, &text).unwrap();
    let (config, tried) = discovering(&path);
    let process = Arc::new(ProcessMetrics::default());
    let first = First {
        config: Arc::new(config),
        targets: watch::Sender::new(tried.targets()),
        tried,
        named: vec![path.clone()],
        path: path.clone(),
        process: Arc::clone(&process),
    };
    let events = EventLog::detached();
    let access = AccessLogWriter::start(&AccessLog::Off, Arc::clone(&process)).unwrap();
    let (peer_sets, source) = watch::channel(Arc::default());
    let reports = Arc::new(Notify::new());
    let mut peers = Peers::start(
        &path,
        &first.config,
        Some(source),
        Arc::clone(&reports),
        Arc::clone(&process),
    );
    let (snapshot, registry, names) = first_snapshot(&first.config, &mut peers, 1).await.unwrap();
    let own = snapshot.listeners[0].sockets.address().ip().unwrap();
    let snapshot = Arc::new(snapshot);
    let publisher = Arc::new(Publisher::new(Arc::clone(&snapshot), 1));
    let (snapshots, followed) = watch::channel(snapshot);
    tokio::spawn(crate::health::run(followed, reports, 256, Arc::new(|_| ())));
    let state = AdminState {
        publisher: Arc::clone(&publisher),
        process,
        readiness: Arc::new(Readiness::default()),
        started: Started::now(),
        workers: 1,
        connections: 16,
        gossip: watch::channel(None).1,
    };
    let admin = AdminServer::start(None, &[], state).unwrap();
    let shown = Arc::clone(&publisher);
    let reload = Arc::new(Notify::new());
    let signals = Signals {
        reload: Arc::clone(&reload),
        file_event: Arc::default(),
        reopen: Arc::default(),
    };
    let (stop, stopped) = watch::channel(false);
    let membership = Membership::new(&path, MemberPublisher::default());
    let control = Control::new(
        first,
        registry,
        names,
        peers,
        membership,
        publisher,
        snapshots,
        Arc::new(Descriptors::raise()),
        events,
        access,
        admin,
    );
    let control = tokio::spawn(control.run(signals, stopped));
    // Addresses and whether they are healthy.
    let backends = || -> Vec<(String, bool)> {
        let snapshot = shown.current();
        let endpoints = snapshot.clusters[0].endpoints.iter();
        endpoints
            .map(|e| (e.backend.label().to_string(), e.backend.is_healthy()))
            .collect()
    };
    let row = |address: SocketAddr| (address.to_string(), true);

    let ((served, one), (_other, two)) = (service().await, service().await);
    let (alive, doubted) = ((one, Alive, Ready), (one, Down, Ready));
    peer_sets.send_replace(set(&[alive, (two, Alive, Ready), (own, Alive, Ready)]));
    let mut expected = vec![row(one), row(two)];
    expected.sort_by_key(|(address, _)| address.parse::<SocketAddr>().unwrap());
    expected.insert(0, row(fixed));
    eventually("both are up", || backends() == expected).await;

    let generation = shown.generation();
    peer_sets.send_replace(set(&[doubted, (two, Alive, Ready)]));
    let backend = || {
        let snapshot = shown.current();
        let mut endpoints = snapshot.clusters[0].endpoints.iter();
        let found = endpoints.find(|e| **e.backend.label() == *one.to_string());
        Arc::clone(&found.unwrap().backend)
    };
    eventually("the doubt is answered", || {
        backend().doubt() == crate::model::backend::Doubt::Answered
    })
    .await;
    assert_eq!(backends(), expected, "its check passes, so it stays");
    assert_eq!(shown.generation(), generation, "and nothing was published");
    peer_sets.send_replace(set(&[alive, (two, Alive, Draining)]));
    let left = [row(fixed), row(one)];
    eventually("a drain is obeyed", || backends() == left).await;
    let departed = |address: SocketAddr| {
        let snapshot = shown.current();
        let mut departing = snapshot.departing.endpoints.iter();
        departing.any(|e| **e.backend.label() == *address.to_string())
    };
    eventually("nothing is in flight, so it is forgotten", || {
        !departed(two)
    })
    .await;

    // The service dies with its agent: one failed probe is enough, long before its turn.
    drop(served);
    let other = (two, Alive, Ready);
    peer_sets.send_replace(set(&[doubted, other]));
    let kept = [row(fixed), row(two)];
    eventually("its check fails", || backends() == kept).await;

    // It comes back, and a file that discovers no more takes it away.
    let _served = TcpListener::bind(one).await.unwrap();
    peer_sets.send_replace(set(&[alive, other]));
    eventually("it is back", || backends() == expected).await;
    reload.notify_one();
    eventually("the file rules", || backends() == [row(fixed)]).await;

    stop.send_replace(true);
    let access = control.await.unwrap();
    assert!(access.close(PATIENCE));
}
