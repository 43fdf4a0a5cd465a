//! Candidates that the peer set doubts: their health checks are asked to probe them at once, and what those find
//! decides.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::layers::named_addresses;
use crate::config::schema::Config;
use crate::discovery::gossip::LocalHealth;
use crate::discovery::gossip::candidates::Candidates;
use crate::model::backend::{Backend, BackendId, Doubt};
use crate::snapshot::registry::{BackendKey, Registry};

/// Time between two looks at the health of doubted candidates.
const POLL: Duration = Duration::from_millis(100);

/// The candidates whose checks were asked, by the id of their backend.
#[derive(Debug)]
pub(super) struct Doubts {
    doubted: HashMap<BackendId, Doubted>,
    polled: Instant,
    /// Wakes the health checks.
    checks: Arc<Notify>,
}

#[derive(Debug)]
struct Doubted {
    backend: Arc<Backend>,
    checked: bool,
    opinion: LocalHealth,
}

impl Doubts {
    /// No doubts; `checks` wakes the health checks.
    pub(super) fn new(checks: Arc<Notify>) -> Self {
        Self {
            doubted: HashMap::new(),
            polled: Instant::now(),
            checks,
        }
    }

    /// When to look at the doubted ones next; `None` if there are none.
    pub(super) fn next_poll(&self) -> Option<Instant> {
        (!self.doubted.is_empty()).then(|| self.polled + POLL)
    }

    /// Whether what the proxy thinks of a doubted candidate has changed.
    pub(super) fn poll(&mut self) -> bool {
        self.polled = Instant::now();
        let mut doubted = self.doubted.values();
        doubted.any(|doubted| doubted.opinion != opinion_of(&doubted.backend, doubted.checked))
    }

    /// Tells the health checks which candidates are doubted now, and which are no longer. A backend that the file names
    /// too is not among them: its check is the file's business.
    pub(super) fn update(&mut self, config: &Config, candidates: &Candidates, registry: &Registry) {
        let mut doubted = HashMap::new();
        let mut wake = false;
        for cluster in &config.clusters {
            let doubts = candidates.of(&cluster.name).filter(|c| c.doubted);
            let mut doubts = doubts.peekable();
            if doubts.peek().is_none() {
                continue;
            }
            let named = named_addresses(cluster);
            let checked = cluster.settings.check.is_some();
            for candidate in doubts.filter(|c| !named.contains(&c.address)) {
                let key = BackendKey::of_address(candidate.address);
                if let Some(backend) = registry.known_backend(&cluster.name, &key) {
                    wake |= backend.raise_doubt();
                    let entry = Doubted {
                        backend: Arc::clone(backend),
                        checked,
                        opinion: opinion_of(backend, checked),
                    };
                    doubted.insert(backend.id(), entry);
                }
            }
        }
        for (id, previous) in std::mem::replace(&mut self.doubted, doubted) {
            if !self.doubted.contains_key(&id) {
                previous.backend.end_doubt();
            }
        }
        if wake {
            self.checks.notify_one();
        }
    }
}

/// What the proxy thinks of a backend. A verdict from before a doubt does not count.
pub(super) fn opinion_of(backend: &Backend, checked: bool) -> LocalHealth {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::health::Health;

    #[test]
    fn what_the_proxy_thinks_of_a_backend() {
        let backend = || Backend::new("web".into(), "10.0.0.1:80".parse().unwrap());
        for (checked, health, opinion) in [
            (false, Health::empty(), LocalHealth::Unknown),
            (false, Health::CHECK_DOWN, LocalHealth::Unknown),
            (false, Health::REFUSED, LocalHealth::Failing),
            (true, Health::empty(), LocalHealth::Healthy),
            (true, Health::CHECK_DOWN, LocalHealth::Failing),
            (
                true,
                Health::CHECK_DOWN | Health::JOINING,
                LocalHealth::Unknown,
            ),
            (true, Health::REFUSED, LocalHealth::Failing),
        ] {
            let backend = backend();
            backend.set_health(health);
            assert_eq!(
                opinion_of(&backend, checked),
                opinion,
                "{checked} {health:?}"
            );
        }
        let doubted = backend();
        doubted.raise_doubt();
        assert_eq!(opinion_of(&doubted, true), LocalHealth::Unknown);
        doubted.take_doubt();
        doubted.answer_doubt();
        assert_eq!(opinion_of(&doubted, true), LocalHealth::Healthy);
    }
}
