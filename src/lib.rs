//! lbproxy: a Layer-4 and Layer-7 load-balancing proxy.
//!
//! # The life of a connection
//!
//! A client's connection waits in one of the listening sockets that every worker has on every address. The kernel
//! chooses the worker; if that one is far busier than another, it hands the connection over ([`proxy::accept`]).
//! From then on the connection belongs to one thread.
//!
//! On an http listener it rests, holding a socket and a deadline, until bytes come. They are read into the worker's
//! scratch buffer and parsed where they lie ([`http1`]); the first route that matches names a cluster ([`route`]); the
//! head that goes on is written anew ([`proxy::http`]). The cluster's policy picks a backend ([`balance`]), a pooled
//! connection or a fresh one leads there ([`proxy::pool`], [`proxy::connect`]), and request and response move until
//! one of them ends the exchange. What came of it is counted and logged once ([`proxy::record`]), the backend's
//! connection goes back to the pool, and the client's rests again. On a tcp listener there is one cluster, and bytes
//! go both ways until both sides have ended ([`proxy::tcp`]).
//!
//! All that a worker sees of the configuration is one immutable [`snapshot`], which it looks for between requests.
//!
//! # Two planes
//!
//! The data plane is [`proxy`]: one thread and one runtime a worker, nothing shared on the path of a request but
//! atomics that belong to a backend. The control plane is one ordinary runtime: [`config`] reads and watches the file,
//! [`discovery`] resolves names and follows the peer set ([`gossip`]) on a thread of its own, [`health`] checks
//! backends, [`admin`] answers operators, [`logging`] writes; and [`control`] is the one writer of snapshots. Neither
//! plane imports the other; [`app`] puts them together, [`cli`] is the command line. [`agent`] is the other life of
//! the program: beside a service, it checks it and announces it to the peer set. Below both stand [`transport`]
//! (sockets), [`files`] (the one reader of files), [`telemetry`] (counters, metrics, the log's line) and [`model`] (the words that all use).

pub(crate) mod admin;
pub(crate) mod agent;
pub(crate) mod app;
pub(crate) mod balance;
pub mod cli;
pub(crate) mod config;
pub(crate) mod control;
pub(crate) mod discovery;
pub(crate) mod files;
pub(crate) mod gossip;
pub(crate) mod health;
pub(crate) mod http1;
#[doc(hidden)]
pub mod internals;
pub(crate) mod logging;
pub(crate) mod model;
pub(crate) mod proxy;
pub(crate) mod route;
pub(crate) mod snapshot;
pub(crate) mod telemetry;
pub(crate) mod transport;
