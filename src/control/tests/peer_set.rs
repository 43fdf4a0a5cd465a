//! The one writer of snapshots and the health checks together, fed with peer sets through a channel.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::{Bench, eventually};
use crate::control::commands::ReloadOutcome;
use crate::gossip::identity::Role;
use crate::gossip::record::{Announced, Record, ServiceState};
use crate::gossip::view::{Liveness, Member, PeerSet};
use crate::model::backend::Doubt;

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
    let gossip = UdpSocket::bind("127.88.3.1:0").and_then(|socket| socket.local_addr());
    let gossip = gossip.unwrap();
    // The interval is so long that whatever happens is a first probe or a doubt.
    let text = format!(
        "drain_timeout = \"1s\"\nwatch = false\n[[listener]]\naddress = \"127.0.0.1:0\"\ncluster = \"web\"\n\
         [cluster.web]\nbackends = [\"{fixed}\"]\ncheck = {{ tcp = true, interval = \"1h\", rise = 1, fall = 3 }}\n"
    );
    let bench = Bench::start(|directory| {
        format!(
            "state_dir = \"{directory}\"\ngossip = {{ address = \"{gossip}\", insecure_plaintext = true, \
             allow_cidrs = [\"127.0.0.0/8\"] }}\n{text}discover = {{ gossip = \"web\" }}\n"
        )
    })
    .await;
    let own = bench.publisher.current().listeners[0]
        .sockets
        .address()
        .ip();
    let own = own.unwrap();
    // Addresses and whether they are healthy.
    let backends = || -> Vec<(String, bool)> {
        let snapshot = bench.publisher.current();
        let endpoints = snapshot.clusters[0].endpoints.iter();
        endpoints
            .map(|e| (e.backend.label().to_string(), e.backend.is_healthy()))
            .collect()
    };
    let row = |address: SocketAddr| (address.to_string(), true);

    let ((served, one), (_other, two)) = (service().await, service().await);
    let (alive, doubted) = ((one, Alive, Ready), (one, Down, Ready));
    bench
        .peer_sets
        .send_replace(set(&[alive, (two, Alive, Ready), (own, Alive, Ready)]));
    let mut expected = vec![row(one), row(two)];
    expected.sort_by_key(|(address, _)| address.parse::<SocketAddr>().unwrap());
    expected.insert(0, row(fixed));
    eventually("both are up", || backends() == expected).await;

    let generation = bench.publisher.generation();
    bench
        .peer_sets
        .send_replace(set(&[doubted, (two, Alive, Ready)]));
    let backend = || {
        let snapshot = bench.publisher.current();
        let mut endpoints = snapshot.clusters[0].endpoints.iter();
        let found = endpoints.find(|e| **e.backend.label() == *one.to_string());
        Arc::clone(&found.unwrap().backend)
    };
    eventually("the doubt is answered", || {
        backend().doubt() == Doubt::Answered
    })
    .await;
    assert_eq!(backends(), expected, "its check passes, so it stays");
    assert_eq!(
        bench.publisher.generation(),
        generation,
        "and nothing was published"
    );
    bench
        .peer_sets
        .send_replace(set(&[alive, (two, Alive, Draining)]));
    let left = [row(fixed), row(one)];
    eventually("a drain is obeyed", || backends() == left).await;
    let departed = |address: SocketAddr| {
        let snapshot = bench.publisher.current();
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
    bench.peer_sets.send_replace(set(&[doubted, other]));
    let kept = [row(fixed), row(two)];
    eventually("its check fails", || backends() == kept).await;

    // It comes back, and a file that discovers no more takes it away.
    let _served = TcpListener::bind(one).await.unwrap();
    bench.peer_sets.send_replace(set(&[alive, other]));
    eventually("it is back", || backends() == expected).await;
    let outcome = bench.reload(&text).await;
    assert_eq!(outcome, ReloadOutcome::Applied { generation: 2 });
    assert_eq!(backends(), [row(fixed)], "the file rules");
    bench.end().await;
}
