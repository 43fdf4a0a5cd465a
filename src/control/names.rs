//! The host names of backends: which of them must be resolved, what they resolve to, and which address is in use where
//! only one is (`addresses = "one"`).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::info;

use crate::config::compile::ResolvedNames;
use crate::config::schema::Config;
use crate::discovery::dns::{Resolved, Resolver, resolve_all};
use crate::model::address::BackendAddress;
use crate::snapshot::registry::{BackendKey, Registry};

/// How long a start or a reload waits for the first answers.
const FIRST_LOOK_UP: Duration = Duration::from_secs(1);
/// Answers that may wait; the tasks that look names up wait beyond that.
const QUEUE: usize = 1024;

/// The names of the configuration in force, kept fresh.
#[derive(Debug)]
pub(super) struct BackendNames {
    resolved: ResolvedNames,
    resolver: Resolver,
    answers: mpsc::Receiver<Resolved>,
    failovers: Failovers,
}

/// When each name of which one address is used moved on to the next one.
#[derive(Debug, Default)]
struct Failovers(HashMap<(String, BackendAddress), Instant>);

/// Looks up every name of a configuration that `known` does not have, and leaves out what the configuration does not
/// name. Names without an answer in a second are missing, and are asked for again later.
pub(super) async fn look_up(config: &Config, known: &ResolvedNames) -> ResolvedNames {
    let mut resolved = ResolvedNames::new();
    let mut unknown = Vec::new();
    for name in names_of(config).into_keys() {
        match known.get(&name) {
            Some(addresses) => drop(resolved.insert(name, Arc::clone(addresses))),
            None => unknown.push(name),
        }
    }
    if !unknown.is_empty() {
        resolved.extend(resolve_all(unknown.into_iter(), FIRST_LOOK_UP).await);
    }
    resolved
}

/// Every name of a configuration, with the shortest interval that a cluster asks for.
fn names_of(config: &Config) -> HashMap<BackendAddress, Duration> {
    let mut names: HashMap<BackendAddress, Duration> = HashMap::new();
    for cluster in &config.clusters {
        let every = cluster.settings.resolve.every;
        for backend in &cluster.backends {
            if matches!(backend.address, BackendAddress::Name { .. }) {
                let interval = names.entry(backend.address.clone()).or_insert(every);
                *interval = (*interval).min(every);
            }
        }
    }
    names
}

impl BackendNames {
    /// Keeps the names of a configuration fresh; `resolved` is what is known of them. Must run on a runtime.
    pub(super) fn start(config: &Config, resolved: ResolvedNames) -> Self {
        let (sender, answers) = mpsc::channel(QUEUE);
        let mut names = Self {
            resolved: ResolvedNames::new(),
            resolver: Resolver::new(sender),
            answers,
            failovers: Failovers::default(),
        };
        names.follow(config, resolved);
        names
    }

    /// Keeps the names of another configuration fresh.
    pub(super) fn follow(&mut self, config: &Config, resolved: ResolvedNames) {
        self.resolved = resolved;
        self.resolver.follow(&names_of(config), &self.resolved);
    }

    /// What the names resolve to.
    pub(super) fn resolved(&self) -> &ResolvedNames {
        &self.resolved
    }

    /// Waits until a name resolves to something else, and remembers it. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        match self.answers.recv().await {
            Some(answer) => self.take(answer),
            None => std::future::pending().await,
        }
    }

    /// Remembers the answers that have come meanwhile.
    pub(super) fn take_waiting(&mut self) {
        while let Ok(answer) = self.answers.try_recv() {
            self.take(answer);
        }
    }

    fn take(&mut self, answer: Resolved) {
        self.resolved.insert(answer.name, answer.addresses);
    }

    /// Moves each name whose address in use is down on to its next address, at most once in the time between two
    /// look-ups. Whether one has moved; O(backends).
    pub(super) fn fail_over(
        &mut self,
        config: &Config,
        registry: &mut Registry,
        now: Instant,
    ) -> bool {
        self.failovers
            .fail_over(config, &self.resolved, registry, now)
    }
}

impl Failovers {
    fn fail_over(
        &mut self,
        config: &Config,
        resolved: &ResolvedNames,
        registry: &mut Registry,
        now: Instant,
    ) -> bool {
        let has_several = |name: &BackendAddress| {
            let addresses = resolved.get(name);
            addresses.filter(|addresses| addresses.len() > 1)
        };
        self.0.retain(|(_, name), _| has_several(name).is_some());
        let mut moved = false;
        for cluster in config.clusters.iter().filter(|c| c.settings.resolve.one) {
            for backend in &cluster.backends {
                let name = &backend.address;
                let Some(addresses) = has_several(name) else {
                    continue;
                };
                let key = (cluster.name.clone(), name.clone());
                let last = self.0.get(&key);
                if last.is_some_and(|last| now < *last + cluster.settings.resolve.every) {
                    continue;
                }
                if let Some((from, to)) = next_address(&cluster.name, name, addresses, registry) {
                    info!(cluster = cluster.name, %name, %from, %to, "the address in use is down; switching to the next one");
                    registry.use_address(&cluster.name, name, to);
                    self.0.insert(key, now);
                    moved = true;
                }
            }
        }
        moved
    }
}

/// The address in use, if it is down, and the one that follows it.
fn next_address(
    cluster: &str,
    name: &BackendAddress,
    addresses: &[SocketAddr],
    registry: &Registry,
) -> Option<(SocketAddr, SocketAddr)> {
    let used = registry.address_in_use(cluster, name, addresses)?;
    let key = BackendKey {
        written: name.clone(),
        resolved: Some(used.into()),
        single: true,
    };
    let health = registry.known_backend(cluster, &key)?.health();
    let after = addresses.iter().position(|address| *address == used)? + 1;
    let next = addresses[after % addresses.len()];
    health.is_down().then_some((used, next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::load;
    use crate::model::health::Health;

    #[test]
    fn a_name_has_the_shortest_interval_that_is_asked_for() {
        let text = "[[listener]]\naddress = '127.0.0.1:1'\ncluster = 'a'\n\
                    [cluster.a]\nbackends = ['x:80', '10.0.0.9:80']\nresolve = '20s'\n\
                    [cluster.b]\nbackends = ['x:80', 'y:80']\n";
        let names = names_of(&load(text).config.unwrap());
        let seconds = |name: &str| names[&name.parse::<BackendAddress>().unwrap()].as_secs();
        assert_eq!((names.len(), seconds("x:80"), seconds("y:80")), (2, 10, 10));
    }

    #[test]
    fn a_name_moves_on_when_its_address_is_down_and_not_too_often() {
        let text = "[[listener]]\naddress = '127.0.0.1:1'\ncluster = 'c'\n[cluster.c]\nbackends = ['a:80', '10.0.0.9:80']\n\
                    resolve = { every = '10s', addresses = 'one' }\n";
        let config = load(text).config.unwrap();
        let name: BackendAddress = "a:80".parse().unwrap();
        let addresses = [1, 2].map(|n| SocketAddr::from(([10, 0, 0, n], 80)));
        let mut resolved = ResolvedNames::from([(name.clone(), Arc::from(addresses))]);
        let mut registry = Registry::new(1);
        let backend = |registry: &mut Registry, address: SocketAddr| {
            let key = BackendKey {
                written: name.clone(),
                resolved: Some(address.into()),
                single: true,
            };
            let mut draft = registry.draft();
            let backend = draft.backend("c", &key).0;
            let new = draft.into_new();
            registry.adopt(new);
            backend
        };
        let in_use = |registry: &Registry| registry.address_in_use("c", &name, &addresses);
        let now = Instant::now();
        let mut failovers = Failovers::default();
        let first = backend(&mut registry, addresses[0]);
        assert!(!failovers.fail_over(&config, &resolved, &mut registry, now));
        first.set_health(Health::CHECK_DOWN);
        assert!(failovers.fail_over(&config, &resolved, &mut registry, now));
        assert_eq!(in_use(&registry), Some(addresses[1]));
        backend(&mut registry, addresses[1]).set_health(Health::REFUSED);
        let soon = now + Duration::from_secs(9);
        assert!(!failovers.fail_over(&config, &resolved, &mut registry, soon));
        let later = now + Duration::from_secs(10);
        assert!(failovers.fail_over(&config, &resolved, &mut registry, later));
        assert_eq!(in_use(&registry), Some(addresses[0]));
        // A name with a single address has nowhere to move.
        resolved.insert(name.clone(), Arc::from([addresses[0]]));
        let later = now + Duration::from_secs(60);
        assert!(!failovers.fail_over(&config, &resolved, &mut registry, later));
    }
}
