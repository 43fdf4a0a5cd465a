//! Members of the peer set: what they add to the file's clusters.
//!
//! The whole set comes in through a watch channel and goes through [`Candidates`], at most once in [`PAUSE`]: when it
//! changed, when time alone may change something, and when the check of a doubted candidate has answered. Their
//! backends are a layer above the file ([`Peers::layers`]). Doubts are handed to the health checks
//! here; those on a backend that the file names too are not, since its check is the file's business.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::own::LocalAddresses;
use super::state::{state_dir, usual_state_dir};
use crate::config::layers::{AddedBackends, Layers, named_addresses};
use crate::config::schema::{BackendConfig, Config, GossipConfig};
use crate::discovery::gossip::candidates::{Candidates, LastGood};
use crate::discovery::gossip::members_file::{self, Wanted};
use crate::discovery::gossip::{CandidatePolicy, CandidateRefusal, LocalHealth, Subscription, log};
use crate::gossip::view::PeerSet;
use crate::model::address::{BackendAddress, BindAddress};
use crate::model::backend::{Backend, BackendId, Doubt};
use crate::snapshot::registry::{BackendKey, Registry};
use crate::telemetry::metrics::ProcessMetrics;
use crate::transport::listen::BoundSockets;

/// Between two looks at the set at the least.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two looks at the health of the doubted ones.
const DOUBT_LOOK: Duration = Duration::from_millis(100);

/// A candidate whose check was asked.
#[derive(Debug)]
struct Doubted {
    backend: Arc<Backend>,
    checked: bool,
    opinion: LocalHealth,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Peers {
    /// Of the configuration.
    path: PathBuf,
    /// Where state lies if the configuration does not say, as it was at the start.
    usual: Option<PathBuf>,
    source: Option<watch::Receiver<Arc<PeerSet>>>,
    set: Arc<PeerSet>,
    candidates: Candidates,
    /// Zero of the candidates' time.
    began: Instant,
    looked: Option<Instant>,
    /// A look is due, and waits for its turn.
    due: bool,
    doubted: HashMap<BackendId, Doubted>,
    polled: Instant,
    reports: Arc<Notify>,
    local: LocalAddresses,
    keep: watch::Sender<Wanted>,
    /// What is kept.
    kept: LastGood,
    /// Whether tokens were asked for when it was; not known at the start.
    kept_by_tokens: Option<bool>,
    /// Something changed since the set was kept.
    unkept: bool,
    process: Arc<ProcessMetrics>,
}

impl Peers {
    /// Follows `source`, and starts with the last good set on disk, which it reads (blocking). `path` is that of the
    /// configuration; `reports` wakes the health checks. Must run on a runtime.
    pub(crate) fn start(
        path: &Path,
        config: &Config,
        source: Option<watch::Receiver<Arc<PeerSet>>>,
        reports: Arc<Notify>,
        process: Arc<ProcessMetrics>,
    ) -> Self {
        let usual = usual_state_dir();
        let last_good = config
            .gossip
            .as_ref()
            .filter(|_| config.clusters.iter().any(|c| c.discover.is_some()))
            .map_or_else(LastGood::new, |gossip| {
                let places = members_paths(path, config, gossip, usual.as_deref());
                let there = places.iter().find_map(|place| members_file::read(place));
                there.unwrap_or_default()
            });
        let (keep, wanted) = watch::channel(None);
        tokio::spawn(members_file::keep(wanted));
        let now = Instant::now();
        Self {
            path: path.to_owned(),
            usual,
            source,
            set: Arc::default(),
            candidates: Candidates::with_last_good(last_good.clone()),
            began: now,
            looked: None,
            due: false,
            doubted: HashMap::new(),
            polled: now,
            reports,
            local: LocalAddresses::default(),
            keep,
            kept: last_good,
            kept_by_tokens: None,
            unkept: false,
            process,
        }
    }

    /// Waits until a look may find something new, and its turn has come. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        let deadline = self.candidates.next_deadline().map(|at| self.began + at);
        while !self.due {
            tokio::select! {
                open = next(self.source.as_mut()) => {
                    if open {
                        self.due = true;
                    } else {
                        // The set stays as it was; checks go on.
                        self.source = None;
                    }
                }
                () = until(deadline), if deadline.is_some() => self.due = true,
                () = sleep_until(self.polled + DOUBT_LOOK), if !self.doubted.is_empty() => {
                    self.polled = Instant::now();
                    self.due = self.doubted.values().any(|doubted| {
                        doubted.opinion != opinion_of(&doubted.backend, doubted.checked)
                    });
                }
            }
        }
        until(self.looked.map(|looked| looked + PAUSE)).await;
    }

    /// Looks at the newest set by the rules of `config`, whose listeners have `sockets`. True if the effective
    /// configuration is another one now.
    pub(crate) fn look(
        &mut self,
        config: &Config,
        sockets: &[Arc<BoundSockets>],
        registry: &Registry,
    ) -> bool {
        self.due = false;
        self.looked = Some(Instant::now());
        if let Some(source) = &mut self.source {
            self.set = Arc::clone(&source.borrow_and_update());
        }
        let gossip = config.gossip.as_ref();
        let wishes: Vec<Subscription<'_>> = gossip.map_or_else(Vec::new, |_| wishes(config));
        let listeners = listening(config, sockets);
        let advertised = gossip.map(|gossip| gossip.peer_set.advertise.ip().to_canonical());
        let rules = CandidatePolicy {
            subscriptions: &wishes,
            allow_cidrs: gossip.map_or(&[], |gossip| &gossip.allow_cidrs),
            is_own: &|address| self.local.is_own(&listeners, advertised, address),
        };
        let checked: HashMap<&str, bool> = wishes.iter().map(|w| (w.cluster, w.checked)).collect();
        let opinion = |cluster: &str, address: SocketAddr| {
            registry
                .known_backend(cluster, &BackendKey::of_address(address))
                .map_or(LocalHealth::Unknown, |backend| {
                    opinion_of(backend, checked.get(cluster) == Some(&true))
                })
        };
        let update = self
            .candidates
            .update(self.began.elapsed(), &self.set, &rules, &opinion);
        log(&update.events);
        self.hand_over_doubts(config, registry);
        self.show();
        self.unkept |= update.changed;
        self.keep_last_good(config);
        update.changed
    }

    /// Has a good state written, if there is a new one.
    fn keep_last_good(&mut self, config: &Config) {
        let gossip = config.gossip.as_ref();
        let tokens = gossip.map(|gossip| !gossip.token_keys.is_empty());
        self.unkept |= tokens != self.kept_by_tokens;
        let (Some(gossip), Some(asks), true) = (gossip, tokens, self.unkept) else {
            return;
        };
        let Some(next) = self
            .candidates
            .next_last_good(self.began.elapsed(), &self.kept)
        else {
            return;
        };
        // What is held back is kept when it is good again, which need be no change.
        self.unkept = self.candidates.is_troubled();
        if next != self.kept || tokens != self.kept_by_tokens {
            self.kept.clone_from(&next);
            self.kept_by_tokens = tokens;
            let mut paths = members_paths(&self.path, config, gossip, self.usual.as_deref());
            self.keep
                .send_replace(Some((paths.swap_remove(0), next, asks)));
        }
    }

    /// The file with the candidates as a layer above it.
    pub(crate) fn layers(&self, file: &Arc<Config>) -> Layers {
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

    /// Tells the health checks which backends are doubted, and which are no more.
    fn hand_over_doubts(&mut self, config: &Config, registry: &Registry) {
        let mut doubted = HashMap::new();
        let mut wake = false;
        for cluster in &config.clusters {
            let mut doubts = self
                .candidates
                .of(&cluster.name)
                .filter(|c| c.doubted)
                .peekable();
            if doubts.peek().is_none() {
                continue;
            }
            let named = named_addresses(cluster);
            let checked = cluster.settings.check.is_some();
            for candidate in doubts.filter(|c| !named.contains(&c.address)) {
                let key = BackendKey::of_address(candidate.address);
                if let Some(backend) = registry.known_backend(&cluster.name, &key) {
                    wake |= backend.raise_doubt();
                    let opinion = opinion_of(backend, checked);
                    let backend = Arc::clone(backend);
                    let entry = Doubted {
                        backend,
                        checked,
                        opinion,
                    };
                    doubted.insert(entry.backend.id(), entry);
                }
            }
        }
        for (id, before) in std::mem::replace(&mut self.doubted, doubted) {
            if !self.doubted.contains_key(&id) {
                before.backend.end_doubt();
            }
        }
        if wake {
            self.reports.notify_one();
        }
    }

    fn show(&self) {
        let shown = &self.process.peer_set;
        shown
            .stale
            .store(self.candidates.is_stale(), Ordering::Relaxed);
        let reasons = CandidateRefusal::ALL
            .into_iter()
            .map(CandidateRefusal::as_str);
        shown.set_refused(reasons.zip(self.candidates.refusals().iter().copied()));
    }
}

/// What the proxy thinks of a backend. A verdict from before a doubt is none.
fn opinion_of(backend: &Backend, checked: bool) -> LocalHealth {
    let health = backend.health();
    if !checked {
        return if health.is_refused() {
            LocalHealth::Failing
        } else {
            LocalHealth::Unknown
        };
    }
    if health.is_joining() {
        return LocalHealth::Unknown;
    }
    if health.is_down() {
        return LocalHealth::Failing;
    }
    match backend.doubt() {
        Doubt::Raised | Doubt::Probing => LocalHealth::Unknown,
        Doubt::None | Doubt::Answered => LocalHealth::Healthy,
    }
}

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

/// Wherever this proxy can be spoken to.
fn listening(config: &Config, sockets: &[Arc<BoundSockets>]) -> Vec<SocketAddr> {
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

/// Where the last good set is kept, and then where it may lie from before: where `members_file` says, relative to the
/// directory of the configuration; else in the directory for state (`usual` if the configuration does not say), else
/// beside the configuration. Looks at no file: it is asked on the control task, where a file system that hangs would end
/// all reloads.
pub(super) fn members_paths(
    path: &Path,
    config: &Config,
    gossip: &GossipConfig,
    usual: Option<&Path>,
) -> Vec<PathBuf> {
    if let Some(file) = &gossip.members_file {
        return vec![path.parent().unwrap_or(Path::new("")).join(file)];
    }
    let beside = path.with_extension("members.json");
    let kept = state_dir(config, usual).zip(beside.file_name());
    let kept = kept.map(|(directory, name)| directory.join(name));
    kept.into_iter().chain([beside]).collect()
}

/// Whether there is a newer set; false if there will be none.
async fn next(source: Option<&mut watch::Receiver<Arc<PeerSet>>>) -> bool {
    match source {
        Some(source) => source.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    if let Some(at) = at {
        sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests;
