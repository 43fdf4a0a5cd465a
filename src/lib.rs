//! lbproxy: a Layer-4 and Layer-7 load-balancing proxy. The library is the program: only its command line is public.
//!
#![doc = include_str!("README.md")]

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
pub(crate) mod limit;
pub(crate) mod logging;
pub(crate) mod model;
pub(crate) mod proxy;
pub(crate) mod route;
pub(crate) mod snapshot;
pub(crate) mod telemetry;
pub(crate) mod transport;
