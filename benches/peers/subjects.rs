//! Who takes part in a scenario, with which task and which requests, and the backends behind them all.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use crate::backend;
use crate::launch::{Child, Cores, read_ports};
use crate::load::{Work, request};
use crate::proxies::{Programs, Proxy, Task};
use crate::reload;
use crate::scenarios::Plan;

/// One who takes part.
pub struct Subject {
    pub label: String,
    pub proxy: Proxy,
    pub task: Task,
    pub work: Work,
}

/// The backends of a whole run.
pub struct Backends {
    child: Child,
    http: Vec<SocketAddr>,
    echo: Vec<SocketAddr>,
    source: Vec<SocketAddr>,
    everywhere: Option<u16>,
}

impl Backends {
    pub fn start(cores: &Cores, programs: &Programs) -> io::Result<Self> {
        let log = programs.directory.join("backends.log");
        let (child, mut out) = Child::role(&cores.others, &["backend".to_owned()], &log)?;
        let mut addresses = |word| -> io::Result<Vec<SocketAddr>> {
            let ports = read_ports(&mut out, word)?;
            Ok(ports
                .into_iter()
                .map(|port| (Ipv4Addr::LOCALHOST, port).into())
                .collect())
        };
        Ok(Self {
            http: addresses("http")?,
            echo: addresses("echo")?,
            source: addresses("source")?,
            everywhere: addresses("everywhere")?.first().map(SocketAddr::port),
            child,
        })
    }

    /// The process that plays them.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Who takes part, before it is asked whether each can; or why nobody does.
    pub fn subjects(&self, plan: Plan) -> Result<Vec<Subject>, String> {
        let task = |http, backends: &[SocketAddr]| Task {
            http,
            backends: backends.to_vec(),
            workers: 1,
            routes: 0,
            by_key: false,
            numbered: false,
        };
        let two = task(true, &self.http[..2]);
        let (task, work) = match plan {
            Plan::Http {
                length,
                backends,
                reconnect,
                ..
            } => (
                task(true, &self.http[..backends.min(backend::HTTP)]),
                Work::Http {
                    requests: vec![request(&format!("/{length}"), "")],
                    length,
                    reconnect,
                },
            ),
            Plan::HalfLoad | Plan::Idle => (two, Work::get("/128", 128)),
            Plan::PingPong { bytes, .. } => (task(false, &self.echo), Work::PingPong(bytes)),
            Plan::Bulk { .. } => (task(false, &self.source), Work::Bulk),
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
                    let paths =
                        (0..64).map(|n| request(&format!("/r{}/128", n * 7919 % routes), ""));
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
                let Some(port) = self.everywhere else {
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
        Ok(Proxy::ALL.into_iter().map(subject).collect())
    }
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
