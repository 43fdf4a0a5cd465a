//! What members of the peer set add to the clusters of the file.
//!
//! The whole set comes in through a watch channel and goes through [`Candidates`], at most once in [`PAUSE`]: when it
//! has changed, when time alone may change something, and when the check of a doubted candidate has answered. The
//! candidates that are accepted are a layer above the file ([`GossipOverlay::layers`]).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::doubts::{Doubts, opinion_of};
use super::last_good::LastGoodFile;
use super::local_addresses::LocalAddresses;
use crate::config::layers::{AddedBackends, Layers};
use crate::config::schema::{BackendConfig, Config};
use crate::discovery::gossip::candidates::Candidates;
use crate::discovery::gossip::{CandidatePolicy, CandidateRefusal, LocalHealth, Subscription, log};
use crate::gossip::view::PeerSet;
use crate::model::address::{BackendAddress, BindAddress};
use crate::snapshot::registry::{BackendKey, Registry};
use crate::telemetry::metrics::ProcessMetrics;
use crate::transport::listen::BoundSockets;

/// Least time between two looks at the set.
const PAUSE: Duration = Duration::from_millis(100);

/// The peer set, and the candidates among its members.
#[derive(Debug)]
pub(super) struct GossipOverlay {
    source: Option<watch::Receiver<Arc<PeerSet>>>,
    set: Arc<PeerSet>,
    candidates: Candidates,
    /// Zero of the candidates' time.
    began: Instant,
    /// When the set was looked at last.
    updated: Option<Instant>,
    /// A look is due, and waits for its turn.
    is_due: bool,
    doubts: Doubts,
    local: LocalAddresses,
    last_good: LastGoodFile,
    process: Arc<ProcessMetrics>,
}

impl GossipOverlay {
    /// Follows `source`, and starts with the last good set on disk, which it reads (blocking). `path` is that of the
    /// configuration; `checks` wakes the health checks. Must run on a runtime.
    pub(super) fn start(
        path: &Path,
        config: &Config,
        source: watch::Receiver<Arc<PeerSet>>,
        checks: Arc<Notify>,
        process: Arc<ProcessMetrics>,
    ) -> Self {
        let last_good = LastGoodFile::open(path, config);
        Self {
            source: Some(source),
            set: Arc::default(),
            candidates: Candidates::with_last_good(last_good.kept().clone()),
            began: Instant::now(),
            updated: None,
            is_due: false,
            doubts: Doubts::new(checks),
            local: LocalAddresses::default(),
            last_good,
            process,
        }
    }

    /// Waits until a look may find something new, and its turn has come. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        let deadline = self.candidates.next_deadline().map(|at| self.began + at);
        while !self.is_due {
            tokio::select! {
                open = next(self.source.as_mut()) => {
                    if open {
                        self.is_due = true;
                    } else {
                        // The set stays as it was; checks continue.
                        self.source = None;
                    }
                }
                () = until(deadline) => self.is_due = true,
                () = until(self.doubts.next_poll()) => self.is_due = self.doubts.poll(),
            }
        }
        if let Some(updated) = self.updated {
            sleep_until(updated + PAUSE).await;
        }
    }

    /// Looks at the newest set by the rules of `config`, whose listeners have `sockets`. Whether the candidates are
    /// others now.
    pub(super) fn update(
        &mut self,
        config: &Config,
        sockets: &[Arc<BoundSockets>],
        registry: &Registry,
    ) -> bool {
        self.is_due = false;
        self.updated = Some(Instant::now());
        if let Some(source) = &mut self.source {
            self.set = Arc::clone(&source.borrow_and_update());
        }
        let gossip = config.gossip.as_ref();
        let wishes: Vec<Subscription<'_>> = gossip.map_or_else(Vec::new, |_| wishes(config));
        let listeners = own_addresses(config, sockets);
        let advertised = gossip.map(|gossip| gossip.peer_set.advertise.ip().to_canonical());
        let rules = CandidatePolicy {
            subscriptions: &wishes,
            allow_cidrs: gossip.map_or(&[], |gossip| &gossip.allow_cidrs),
            is_own: &|address| self.local.is_own(&listeners, advertised, address),
        };
        let checked: HashMap<&str, bool> = wishes.iter().map(|w| (w.cluster, w.checked)).collect();
        let opinion = |cluster: &str, address: SocketAddr| {
            let known = registry.known_backend(cluster, &BackendKey::of_address(address));
            let checked = checked.get(cluster) == Some(&true);
            known.map_or(LocalHealth::Unknown, |backend| opinion_of(backend, checked))
        };
        let now = self.began.elapsed();
        let update = self.candidates.update(now, &self.set, &rules, &opinion);
        log(&update.events);
        self.doubts.update(config, &self.candidates, registry);
        self.show();
        let candidates = &mut self.candidates;
        self.last_good
            .update(config, candidates, now, update.changed);
        update.changed
    }

    /// The file with the candidates as a layer above it.
    pub(super) fn layers(&self, file: &Arc<Config>) -> Layers {
        let mut gossip = AddedBackends::new();
        for cluster in &file.clusters {
            let candidates = self.candidates.of(&cluster.name);
            let found = candidates.map(|candidate| BackendConfig {
                address: BackendAddress::Ip(candidate.address),
                weight: candidate.weight.into(),
                backup: false,
            });
            let found: Vec<_> = found.collect();
            if !found.is_empty() {
                gossip.insert(cluster.name.clone(), found);
            }
        }
        Layers {
            file: Arc::clone(file),
            gossip,
        }
    }

    fn show(&self) {
        let shown = &self.process.peer_set;
        let stale = self.candidates.is_stale();
        shown.stale.store(stale, Ordering::Relaxed);
        let reasons = CandidateRefusal::ALL
            .into_iter()
            .map(CandidateRefusal::as_str);
        shown.set_refused(reasons.zip(self.candidates.refusals().iter().copied()));
    }
}

/// The clusters that take candidates.
fn wishes(config: &Config) -> Vec<Subscription<'_>> {
    let clusters = config.clusters.iter();
    clusters
        .filter_map(|cluster| {
            Some(Subscription {
                cluster: &cluster.name,
                gossip: cluster.discover.as_deref()?,
                checked: cluster.settings.check.is_some(),
            })
        })
        .collect()
}

/// Every address where this proxy accepts connections: listeners, admin server, gossip.
fn own_addresses(config: &Config, sockets: &[Arc<BoundSockets>]) -> Vec<SocketAddr> {
    let admin = match &config.admin {
        Some(BindAddress::Tcp(address)) => {
            let all = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            Some(SocketAddr::new(address.ip().unwrap_or(all), address.port()))
        }
        Some(BindAddress::Unix(_)) | None => None,
    };
    let gossip = config.gossip.as_ref();
    let gossip = gossip.map(|gossip| [gossip.peer_set.address, gossip.peer_set.advertise]);
    let sockets = sockets.iter().filter_map(|socket| socket.address().ip());
    sockets
        .chain(admin)
        .chain(gossip.into_iter().flatten())
        .collect()
}

/// Waits for a newer set; false if there will be none.
async fn next(source: Option<&mut watch::Receiver<Arc<PeerSet>>>) -> bool {
    match source {
        Some(source) => source.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}

/// Waits until then; for ever if there is no such time.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
