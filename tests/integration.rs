//! The test program: the built proxy between real clients and real backends, and checks of what the repository holds.
//!
//! One program, so that `support` is compiled and linked once. Four tests run at a time (.cargo/config.toml); those that
//! use all processors, or judge by latency, wait for each other ([`support::alone`]). What needs a process of its own is a
//! program of its own: `memory`, `hostile_load` and `gossip_simulation`.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue stops")]

mod agent;
mod commands;
mod config;
mod corpus;
mod documents;
mod failover;
mod fuzz_corpus;
mod gossip;
mod gossip_network;
mod http_answers;
mod http_basics;
mod http_bodies;
mod http_fields;
mod keys;
mod layers;
mod lifecycle;
mod limits;
mod one_meaning;
mod policies;
mod reload;
mod reload_steady;
mod routes;
mod support;
mod support_itself;
mod tcp;
mod telemetry;
mod upgrade;
