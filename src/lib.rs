//! lbproxy: a Layer-4 and Layer-7 load-balancing proxy.

pub mod admin;
pub mod app;
pub mod balance;
pub mod cli;
pub mod config;
pub mod control;
pub mod discovery;
pub mod health;
pub mod http1;
pub mod logging;
pub mod model;
pub mod proxy;
pub mod route;
pub mod snapshot;
pub mod telemetry;
pub mod transport;
