//! L1: what is counted and written about the traffic. No sockets, no runtime.
//!
//! Every worker counts in sheets of its own ([`counters`]) with plain loads and stores, so counting costs no
//! contended cache line; the control plane sums them when somebody asks. [`metrics`] holds the sheets of a
//! listener, a cluster and a backend under their labels, [`exposition`] writes them as Prometheus text,
//! [`outcome`] is the record of one finished request or session, [`access_log`] writes it as a line, [`readiness`]
//! says whether the process wants traffic, [`seldom`] bounds lines of the log that outsiders can bring about.

pub(crate) mod access_log;
#[cfg(test)]
pub(crate) mod capture;
pub(crate) mod counters;
pub(crate) mod exposition;
pub(crate) mod metrics;
pub(crate) mod outcome;
pub(crate) mod readiness;
pub(crate) mod seldom;
