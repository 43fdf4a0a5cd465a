//! Who takes part in a scenario, with which task and which requests.

use std::net::{Ipv4Addr, SocketAddr};

use crate::backend::{self, Addresses};
use crate::load::{Work, request};
use crate::proxies::{Proxy, Task};
use crate::reload;
use crate::scenarios::Plan;

/// One who takes part.
pub(crate) struct Subject {
    pub label: String,
    pub proxy: Proxy,
    pub task: Task,
    pub work: Work,
}

/// Who takes part, before it is asked whether each can; or why nobody does.
pub(crate) fn subjects(backends: &Addresses, plan: Plan) -> Result<Vec<Subject>, String> {
    let task = |http, backends: &[SocketAddr]| Task {
        http,
        backends: backends.to_vec(),
        workers: 1,
        routes: 0,
        by_key: false,
        numbered: false,
        large_pipes: false,
    };
    let two = task(true, &backends.http[..2]);
    let (task, work) = match plan {
        Plan::Http {
            length,
            backends: count,
            reconnect,
            ..
        } => (
            task(true, &backends.http[..count.min(backend::HTTP)]),
            Work::Http {
                requests: vec![request(&format!("/{length}"), "")],
                length,
                reconnect,
            },
        ),
        Plan::HalfLoad | Plan::Idle => (two, Work::get("/128", 128)),
        Plan::PingPong { bytes, .. } => (task(false, &backends.echo), Work::PingPong(bytes)),
        Plan::Bulk { up: false, .. } => (task(false, &backends.source), Work::Bulk),
        Plan::Bulk { up: true, .. } => (task(false, &backends.sink), Work::Upload),
        Plan::Workers => {
            let variants = [(1, "1 worker"), (2, "2 workers")];
            return Ok(own(variants, |workers| {
                (
                    Task {
                        workers,
                        ..two.clone()
                    },
                    Work::get("/128", 128),
                )
            }));
        }
        Plan::Routes => {
            let variants = [(10, "10 routes"), (10_000, "10000 routes")];
            return Ok(own(variants, |routes| {
                let paths = (0..64).map(|n| request(&format!("/r{}/128", n * 7919 % routes), ""));
                (
                    Task {
                        routes,
                        ..two.clone()
                    },
                    keyed(paths.collect()),
                )
            }));
        }
        Plan::Backends => {
            let Some(port) = backends.everywhere else {
                return Err("the backends may not bind to the loopback device".to_owned());
            };
            let variants = [(10, "10 backends"), (10_000, "10000 backends")];
            return Ok(own(variants, |count| {
                let task = Task {
                    backends: many(count, port),
                    by_key: true,
                    ..two.clone()
                };
                let keys = (0..64).map(|n| request("/128", &format!("x-key: key-{n}")));
                (task, keyed(keys.collect()))
            }));
        }
        Plan::Reload => {
            let variants = [
                (10_000, 2, false, "10000 routes"),
                (0, 10_000, false, "10000 backends"),
                (0, 10_000, true, "ring of 10000"),
            ];
            let reloaded =
                |(routes, backends, by_key, label): (usize, usize, bool, &str)| Subject {
                    label: label.to_owned(),
                    proxy: Proxy::Lbproxy,
                    task: Task {
                        routes,
                        backends: many(backends, reload::PORT),
                        by_key,
                        numbered: true,
                        ..two.clone()
                    },
                    work: Work::get(reload::PATH, reload::DIGITS as u64),
                };
            return Ok(variants.into_iter().map(reloaded).collect());
        }
    };
    let subject = |proxy: Proxy| Subject {
        label: proxy.name().to_owned(),
        proxy,
        task: task.clone(),
        work: work.clone(),
    };
    let mut all: Vec<Subject> = Proxy::ALL.into_iter().map(subject).collect();
    if let Plan::Bulk { .. } = plan {
        let mut large = subject(Proxy::Haproxy);
        large.label = "haproxy 1 MiB".to_owned();
        large.task.large_pipes = true;
        all.push(large);
    }
    Ok(all)
}

/// Backends on one port of so many loopback addresses.
fn many(count: usize, port: u16) -> Vec<SocketAddr> {
    let first = Ipv4Addr::new(127, 1, 0, 1).to_bits();
    (0..count as u32)
        .map(|n| (Ipv4Addr::from_bits(first + n), port).into())
        .collect()
}

/// Requests that differ by connection, with the small answer.
fn keyed(requests: Vec<Vec<u8>>) -> Work {
    Work::Http {
        requests,
        length: 128,
        reconnect: false,
    }
}

/// lbproxy in two variants.
fn own(variants: [(usize, &str); 2], make: impl Fn(usize) -> (Task, Work)) -> Vec<Subject> {
    let subject = |(size, label): (usize, &str)| {
        let (task, work) = make(size);
        Subject {
            label: label.to_owned(),
            proxy: Proxy::Lbproxy,
            task,
            work,
        }
    };
    variants.into_iter().map(subject).collect()
}
