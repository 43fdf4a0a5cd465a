//! What the health of a cluster's endpoints adds up to.

use super::Cluster;
use crate::model::health::Health;

/// How many endpoints of a cluster are healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Healthy {
    /// Healthy endpoints that take traffic at all times (weight above 0, not a backup).
    pub primaries: usize,
    /// All such endpoints, healthy or not.
    pub primaries_in_all: usize,
    /// Healthy backups with a weight above 0.
    pub backups: usize,
    /// All backups with a weight above 0.
    pub backups_in_all: usize,
    /// Primaries with a weight above 0 whose health is not known yet: they wait for their first address or their first
    /// check.
    pub primaries_awaited: usize,
}

impl Healthy {
    /// Whether the share of healthy primaries is under `threshold`. A cluster without primaries has no share.
    pub fn is_under(&self, threshold: f64) -> bool {
        self.primaries_in_all > 0
            && (self.primaries as f64) < threshold * self.primaries_in_all as f64
    }

    /// Whether there are endpoints that could take traffic and none of them is healthy.
    pub fn is_none(&self) -> bool {
        self.primaries + self.backups == 0 && self.primaries_in_all + self.backups_in_all > 0
    }
}

impl Cluster {
    /// Counts the healthy endpoints as they are now; O(endpoints). One that joins and waits for its first check counts
    /// neither way: a cluster that grows is not a sick cluster.
    pub fn healthy(&self) -> Healthy {
        let mut count = Healthy::default();
        for endpoint in self.endpoints.iter().filter(|e| e.weight > 0) {
            let health = endpoint.backend.health();
            let awaited =
                !endpoint.backup && health.intersects(Health::JOINING | Health::UNRESOLVED);
            count.primaries_awaited += usize::from(awaited);
            if health.is_joining() {
                continue;
            }
            let healthy = usize::from(health.is_healthy());
            if endpoint.backup {
                count.backups += healthy;
                count.backups_in_all += 1;
            } else {
                count.primaries += healthy;
                count.primaries_in_all += 1;
            }
        }
        count
    }

    /// Whether all endpoints are used, healthy or not: fewer are healthy than `panic_threshold` demands, or none at
    /// all, backups included; never if the cluster forbids it. O(endpoints).
    pub fn in_panic(&self) -> bool {
        self.settings.panic_threshold.is_some()
            && (self.state.in_panic() || self.healthy().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{cluster, endpoint};
    use crate::model::health::Health;

    /// Endpoints by letter: `P` and `B` are a healthy primary and backup, `p` and `b` sick ones, `0` has weight 0, `j`
    /// joins.
    fn in_panic(letters: &str, threshold: f64) -> bool {
        let endpoints = letters.chars().enumerate().map(|(i, letter)| {
            let mut e = endpoint("web", &format!("10.0.0.1:{}", i + 1));
            e.backup = letter.eq_ignore_ascii_case(&'b');
            e.weight = u32::from(letter != '0');
            if letter.is_ascii_lowercase() {
                e.backend.set_health(Health::CHECK_DOWN);
            }
            if letter == 'j' {
                e.backend.set_health(Health::JOINING);
            }
            e
        });
        let cluster = cluster("web", endpoints.collect());
        cluster
            .state
            .set_panic(cluster.healthy().is_under(threshold));
        cluster.in_panic()
    }

    #[test]
    fn panic_is_too_few_or_none() {
        for (letters, threshold, expected) in [
            ("PPPP", 0.5, false),
            ("PPpp", 0.5, false),
            ("Pppp", 0.5, true),
            ("Pppp", 0.0, false),
            ("pppp", 0.0, true),
            ("ppppB", 0.0, false),
            ("ppppb", 0.0, true),
            ("PPppbbbb", 0.5, false),
            ("P0000", 1.0, false),
            ("p0", 0.0, true),
            ("0", 1.0, false),
            ("B", 1.0, false),
            ("b", 0.0, true),
            ("PPjjjjjj", 0.5, false),
            ("Ppppjjjj", 0.5, true),
            ("ppjj", 0.0, true),
            ("jjj", 1.0, false),
            ("", 1.0, false),
        ] {
            assert_eq!(
                in_panic(letters, threshold),
                expected,
                "{letters} {threshold}"
            );
        }
    }
}
