//! What the proxy says of itself, held against what was seen: refusals and backend errors in the metrics after each
//! delivery, statuses and reasons in the access log at the end.

use std::collections::BTreeMap;

use super::super::metrics::Metrics;
use super::super::process::Proxy;
use super::super::wait::{PATIENCE, wait_until};
use super::wire::{Look, Patience};

/// Labels of a series (listener and reason, or cluster and reason) and its count.
type Counts = BTreeMap<(String, String), u64>;

/// What has been counted and seen so far.
pub struct Ledger {
    requests: u64,
    rejected: Counts,
    errors: Counts,
    /// Status and reason, as the access log must have them.
    seen: BTreeMap<(u16, String), u64>,
}

/// What one delivery must add.
#[derive(Debug, Default)]
pub struct Entry<'c> {
    /// Statuses and reasons of the exchanges.
    pub exchanges: Vec<(u16, Option<&'c str>)>,
    /// Listener whose exchanges they are.
    pub listener: &'c str,
    /// Cluster and label of a backend's error.
    pub error: Option<(&'c str, &'c str)>,
}

impl Ledger {
    /// Of a proxy that has served nothing.
    pub fn open(proxy: &Proxy) -> Self {
        let metrics = proxy.metrics();
        Self {
            requests: metrics.count("lbproxy_requests_total", &[]),
            rejected: rejected(&metrics),
            errors: errors(&metrics),
            seen: BTreeMap::new(),
        }
    }

    /// Enters a delivery and compares the metrics, once the proxy has recorded every exchange.
    ///
    /// # Errors
    /// What differs.
    pub fn enter(
        &mut self,
        proxy: &Proxy,
        entry: &Entry<'_>,
        patience: &mut Patience,
    ) -> Result<(), String> {
        for (status, reason) in &entry.exchanges {
            let key = (*status, reason.unwrap_or_default().to_owned());
            *self.seen.entry(key).or_default() += 1;
            if let Some(reason) = reason {
                add(&mut self.rejected, entry.listener, reason);
            }
        }
        if let Some((cluster, reason)) = entry.error {
            add(&mut self.errors, cluster, reason);
        }
        self.requests += entry.exchanges.len() as u64;
        let metrics = self.recorded(proxy, patience)?;
        same("refusals", &rejected(&metrics), &self.rejected)?;
        same("backend errors", &errors(&metrics), &self.errors)?;
        match metrics.count("lbproxy_panics_total", &[]) {
            0 => Ok(()),
            n => Err(format!("{n} panics")),
        }
    }

    /// The metrics, once as many requests are counted as there were.
    fn recorded(&self, proxy: &Proxy, patience: &mut Patience) -> Result<Metrics, String> {
        let mut last = Metrics::default();
        // What differs in the end is told below, and by the caller.
        let _ = patience.until("every exchange is counted", || {
            last = proxy.metrics();
            let count = last.count("lbproxy_requests_total", &[]);
            // The counters of one exchange are written one after the other, and a scrape may come between them.
            let whole = rejected(&last) == self.rejected && errors(&last) == self.errors;
            Look::of(
                count > self.requests || (count == self.requests && whole),
                false,
            )
        });
        let count = last.count("lbproxy_requests_total", &[]);
        if count == self.requests {
            return Ok(last);
        }
        Err(format!(
            "exchanges counted: {count}, seen: {}; refusals: {:?}",
            self.requests,
            differing(&rejected(&last), &self.rejected)
        ))
    }

    /// Compares the access log with everything that was entered.
    #[track_caller]
    pub fn close(&self, proxy: &Proxy) {
        let wanted: u64 = self.seen.values().sum();
        wait_until(PATIENCE, "the access log has every exchange", || {
            proxy.access_log().len() as u64 >= wanted
        });
        let mut logged = BTreeMap::new();
        for line in proxy.access_log() {
            let status = line["status"].as_u64().unwrap_or_default() as u16;
            let reason = line["reason"].as_str().unwrap_or_default().to_owned();
            *logged.entry((status, reason)).or_default() += 1;
        }
        assert_eq!(logged, self.seen, "the access log, and what was seen");
        assert_eq!(proxy.count("lbproxy_log_dropped_total", &[]), 0);
    }
}

fn add(counts: &mut Counts, owner: &str, reason: &str) {
    let key = (owner.to_owned(), reason.to_owned());
    *counts.entry(key).or_default() += 1;
}

fn rejected(metrics: &Metrics) -> Counts {
    counts(metrics, "lbproxy_rejected_total", "listener")
}

fn errors(metrics: &Metrics) -> Counts {
    counts(metrics, "lbproxy_backend_errors_total", "cluster")
}

fn counts(metrics: &Metrics, name: &str, owner: &str) -> Counts {
    let mut counts = Counts::new();
    for sample in metrics.samples().iter().filter(|s| s.name == name) {
        let key = (
            sample.labels[owner].clone(),
            sample.labels["reason"].clone(),
        );
        *counts.entry(key).or_default() += sample.value as u64;
    }
    counts.retain(|_, count| *count > 0);
    counts
}

fn same(what: &str, have: &Counts, want: &Counts) -> Result<(), String> {
    match differing(have, want) {
        different if different.is_empty() => Ok(()),
        different => Err(format!("{what} counted and expected differ: {different:?}")),
    }
}

/// Labels whose counts differ, with the count and what was expected.
fn differing(have: &Counts, want: &Counts) -> Vec<((String, String), u64, u64)> {
    let of = |counts: &Counts, key| counts.get(key).copied().unwrap_or_default();
    let keys: std::collections::BTreeSet<_> = have.keys().chain(want.keys()).collect();
    keys.into_iter()
        .map(|key| (key.clone(), of(have, key), of(want, key)))
        .filter(|(_, have, want)| have != want)
        .collect()
}
