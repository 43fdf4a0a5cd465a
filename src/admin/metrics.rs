//! What `/metrics` shows: the sheets of a snapshot's listeners, clusters and backends, summed over the workers, and
//! what the peer set reports.
//!
//! A reason that never came up has no series; everything else that is configured has one from the start, but for the
//! codes and latencies of backends that no worker has used yet (a site with thousands of idle backends would pay
//! for them with every scrape). What departs is shown until its drain ends. The work is linear in the number of
//! series, and the text is the only thing that grows with it.

mod gossip;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use super::process::ProcSelf;
use crate::gossip::view::Report;
use crate::snapshot::{Endpoint, ListenerKind, Snapshot};
use crate::telemetry::counters::{CodeCounters, HistogramTotal};
use crate::telemetry::exposition::{Families, Labels, Series};
use crate::telemetry::metrics::{ListenerMetrics, ProcessMetrics, RouteMetrics};
use crate::telemetry::outcome::{BackendError, Reason, RetryReason};

/// What one scrape reads.
#[derive(Debug, Clone)]
pub(crate) struct Scrape {
    /// The generation that is shown.
    pub snapshot: Arc<Snapshot>,
    /// What the process counts.
    pub process: Arc<ProcessMetrics>,
    /// When the process started.
    pub started: SystemTime,
    /// What this member of a peer set reports, if it is one.
    pub gossip: Option<Arc<Report>>,
}

impl Scrape {
    /// Writes every family.
    pub(crate) fn write(&self, families: &mut Families<'_>) -> fmt::Result {
        self.listeners(families)?;
        self.routes(families)?;
        self.backends(families)?;
        self.clusters(families)?;
        gossip::write(self.gossip.as_deref(), &self.process.peer_set, families)?;
        self.own(families)?;
        self.process(families)
    }

    fn listeners(&self, f: &mut Families<'_>) -> fmt::Result {
        let all = each_listener(&self.snapshot);
        f.counter("lbproxy_connections", "Connections accepted.", |s| {
            all.iter().try_for_each(|l| {
                let sum = l.sheets().map(|sheet| sheet.connections.get()).sum();
                s.put(&name(l), sum)
            })
        })?;
        f.gauge(
            "lbproxy_connections_active",
            "Client connections open now.",
            |s| all.iter().try_for_each(|l| s.put(&name(l), l.active())),
        )?;
        f.counter(
            "lbproxy_requests",
            "Requests answered, by status code.",
            |s| {
                let mut codes = Codes::default();
                all.iter().try_for_each(|l| {
                    codes.sum(l.sheets().map(|sheet| &sheet.requests));
                    codes.write(s, &name(l))
                })
            },
        )?;
        let help = "Request head complete to answer sent.";
        f.histogram("lbproxy_request_duration_seconds", help, |h| {
            all.iter().try_for_each(|l| {
                let mut total = HistogramTotal::default();
                l.sheets()
                    .for_each(|sheet| sheet.duration.add_to(&mut total));
                h.put(&name(l), &total)
            })
        })?;
        let help = "Bytes from clients (in) and to clients (out).";
        f.counter("lbproxy_bytes", help, |s| {
            all.iter().try_for_each(|l| {
                let bytes_in = l.sheets().map(|sheet| sheet.bytes_in.get()).sum();
                let bytes_out = l.sheets().map(|sheet| sheet.bytes_out.get()).sum();
                s.put(&[("listener", &l.name), ("direction", "in")], bytes_in)?;
                s.put(&[("listener", &l.name), ("direction", "out")], bytes_out)
            })
        })?;
        let help = "Requests and connections that the proxy refused, cut or answered with an error itself.";
        f.counter("lbproxy_rejected", help, |s| {
            all.iter().try_for_each(|l| {
                Reason::ALL.iter().try_for_each(|reason| {
                    let sum = l.sheets().map(|t| t.rejected[reason.index()].get()).sum();
                    let labels = [("listener", &*l.name), ("reason", reason.as_str())];
                    put_counted(s, &labels, sum)
                })
            })
        })
    }

    fn routes(&self, f: &mut Families<'_>) -> fmt::Result {
        let all = each_named_route(&self.snapshot);
        let help = "Requests that a named route took, by status code.";
        f.counter("lbproxy_route_requests", help, |s| {
            let mut codes = Codes::default();
            all.iter().try_for_each(|route| {
                codes.sum(route.sheets().map(|sheet| &sheet.requests));
                codes.write(s, &[("route", &route.name)])
            })
        })
    }

    fn backends(&self, f: &mut Families<'_>) -> fmt::Result {
        let all = each_endpoint(&self.snapshot);
        f.counter(
            "lbproxy_backend_requests",
            "Answers of a backend, by status code.",
            |s| {
                let mut codes = Codes::default();
                all.iter().try_for_each(|e| {
                    codes.sum(e.metrics.sheets().map(|sheet| &sheet.requests));
                    codes.write(s, &labels(e))
                })
            },
        )?;
        let help = "Request sent to response head.";
        f.histogram("lbproxy_backend_response_seconds", help, |h| {
            all.iter().try_for_each(|e| {
                if e.metrics.sheets().next().is_none() {
                    return Ok(());
                }
                let mut total = HistogramTotal::default();
                e.metrics
                    .sheets()
                    .for_each(|sheet| sheet.response.add_to(&mut total));
                h.put(&labels(e), &total)
            })
        })?;
        f.counter(
            "lbproxy_backend_connections",
            "Connections opened to a backend.",
            |s| {
                all.iter().try_for_each(|e| {
                    let sum = e
                        .metrics
                        .sheets()
                        .map(|sheet| sheet.connections.get())
                        .sum();
                    s.put(&labels(e), sum)
                })
            },
        )?;
        let help = "Requests and sessions that are with a backend now.";
        f.gauge("lbproxy_backend_in_flight", help, |s| {
            all.iter()
                .try_for_each(|e| s.put(&labels(e), u64::from(e.backend.in_flight())))
        })?;
        f.counter("lbproxy_backend_errors", "Failures of a backend.", |s| {
            all.iter().try_for_each(|e| {
                BackendError::ALL.iter().try_for_each(|error| {
                    let sum = e
                        .metrics
                        .sheets()
                        .map(|t| t.errors[error.index()].get())
                        .sum();
                    let [cluster, backend] = labels(e);
                    put_counted(s, &[cluster, backend, ("reason", error.as_str())], sum)
                })
            })
        })?;
        f.gauge(
            "lbproxy_backend_up",
            "1 if a backend is healthy, else 0.",
            |s| {
                all.iter()
                    .try_for_each(|e| s.put(&labels(e), u64::from(e.backend.is_healthy())))
            },
        )
    }

    fn clusters(&self, f: &mut Families<'_>) -> fmt::Result {
        let all = &self.snapshot.clusters;
        f.counter(
            "lbproxy_retries",
            "Requests that were tried once more.",
            |s| {
                all.iter().try_for_each(|c| {
                    RetryReason::ALL.iter().try_for_each(|reason| {
                        let sheets = c.metrics.sheets();
                        let sum = sheets
                            .map(|sheet| sheet.retries[reason.index()].get())
                            .sum();
                        put_counted(s, &[("cluster", &c.name), ("reason", reason.as_str())], sum)
                    })
                })
            },
        )?;
        let help = "1 while all backends of a cluster are used because too few are healthy.";
        f.gauge("lbproxy_cluster_panic", help, |s| {
            all.iter()
                .try_for_each(|c| s.put(&[("cluster", &c.name)], u64::from(c.in_panic())))
        })
    }

    fn own(&self, f: &mut Families<'_>) -> fmt::Result {
        let own = &self.process;
        f.counter("lbproxy_log_dropped", "Log lines that were lost.", |s| {
            s.put(&[("log", "access")], own.access_log_dropped.get())?;
            s.put(&[("log", "events")], own.events_dropped.get())
        })?;
        f.counter(
            "lbproxy_config_reloads",
            "Reloads of the configuration.",
            |s| {
                s.put(&[("result", "ok")], own.reloads_ok.get())?;
                s.put(&[("result", "rejected")], own.reloads_rejected.get())
            },
        )?;
        let help = "Configuration files applied, the first included.";
        f.gauge("lbproxy_config_generation", help, |s| {
            s.put(&[], own.config_generation.get())
        })?;
        let help = "1 if the newest configuration is the one in use, else 0.";
        f.gauge("lbproxy_config_last_reload_success", help, |s| {
            s.put(
                &[],
                u64::from(own.last_reload_success.load(Ordering::Relaxed)),
            )
        })?;
        f.counter("lbproxy_panics", "Panics that were caught.", |s| {
            s.put(&[], own.panics.get())
        })?;
        f.gauge(
            "lbproxy_build_info",
            "Always 1; the version is a label.",
            |s| s.put(&[("version", env!("CARGO_PKG_VERSION"))], 1),
        )
    }

    fn process(&self, f: &mut Families<'_>) -> fmt::Result {
        let process = ProcSelf::read();
        let started = self.started.duration_since(UNIX_EPOCH).ok();
        f.counter("process_cpu_seconds", "User and system time used.", |s| {
            process.cpu_seconds.map_or(Ok(()), |v| s.put_float(&[], v))
        })?;
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Resident memory.",
                process.resident_bytes,
            ),
            (
                "process_open_fds",
                "Open file descriptors.",
                process.open_fds,
            ),
            (
                "process_max_fds",
                "Limit of open file descriptors.",
                process.max_fds,
            ),
        ];
        for (name, help, value) in gauges {
            f.gauge(name, help, |s| value.map_or(Ok(()), |v| s.put(&[], v)))?;
        }
        let help = "When the process started, since the epoch.";
        f.gauge("process_start_time_seconds", help, |s| {
            started.map_or(Ok(()), |v| s.put_float(&[], v.as_secs_f64()))
        })
    }
}

fn name(listener: &ListenerMetrics) -> [(&'static str, &str); 1] {
    [("listener", &*listener.name)]
}

fn labels(endpoint: &Endpoint) -> [(&'static str, &str); 2] {
    let metrics = &endpoint.metrics;
    [
        ("cluster", &*metrics.cluster),
        ("backend", &*metrics.backend),
    ]
}

/// A series that is there only if it counted something.
fn put_counted(s: &mut Series<'_>, labels: Labels<'_>, sum: u64) -> fmt::Result {
    if sum == 0 { Ok(()) } else { s.put(labels, sum) }
}

/// Listeners, then those that depart; a name comes once.
fn each_listener(snapshot: &Snapshot) -> Vec<&ListenerMetrics> {
    let mut seen: HashSet<&str> = HashSet::new();
    let listed = snapshot.listeners.iter().map(|l| &*l.metrics);
    let departing = snapshot.departing.listeners.iter().map(|l| &**l);
    listed
        .chain(departing)
        .filter(|l| seen.insert(&l.name))
        .collect()
}

/// A name comes once, on however many routes and listeners it stands.
fn each_named_route(snapshot: &Snapshot) -> Vec<&RouteMetrics> {
    let listeners = snapshot.listeners.iter();
    let rules = listeners.filter_map(|listener| match &listener.kind {
        ListenerKind::Http(http) => Some(http.routes.rules()),
        ListenerKind::Tcp(_) => None,
    });
    let rules = rules.flatten();
    let mut seen = HashSet::new();
    rules
        .filter_map(|rule| rule.target.metrics.as_deref())
        .filter(|route| seen.insert(&*route.name))
        .collect()
}

/// Backends, then those that depart; a pair of labels comes once.
fn each_endpoint(snapshot: &Snapshot) -> Vec<&Endpoint> {
    let of_clusters = snapshot.clusters.iter().flat_map(|c| &c.endpoints);
    let mut all: Vec<&Endpoint> = of_clusters.collect();
    if !snapshot.departing.endpoints.is_empty() {
        let key = |e: &Endpoint| (e.metrics.cluster.clone(), e.metrics.backend.clone());
        let mut seen: HashSet<_> = all.iter().map(|e| key(e)).collect();
        let departing = snapshot.departing.endpoints.iter();
        all.extend(departing.filter(|e| seen.insert(key(e))));
    }
    all
}

/// Counts by status code, summed over sheets; few codes are in use at a time.
#[derive(Default)]
struct Codes(Vec<(u16, u64)>);

impl Codes {
    fn sum<'a>(&mut self, sheets: impl Iterator<Item = &'a CodeCounters>) {
        self.0.clear();
        for sheet in sheets {
            sheet.for_each(
                |code, count| match self.0.binary_search_by_key(&code, |c| c.0) {
                    Ok(place) => self.0[place].1 += count,
                    Err(place) => self.0.insert(place, (code, count)),
                },
            );
        }
    }

    fn write(&self, s: &mut Series<'_>, labels: Labels<'_>) -> fmt::Result {
        for &(code, count) in &self.0 {
            let mut digits = itoa::Buffer::new();
            let mut labels = labels.to_vec();
            labels.push(("code", digits.format(code)));
            s.put(&labels, count)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
