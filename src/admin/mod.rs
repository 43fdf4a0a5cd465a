//! L3 control: the admin server: read-only, plain HTTP/1.1 over TCP or a Unix socket.
//!
//! | path | response |
//! |---|---|
//! | `/metrics` | Prometheus text, 0.0.4 or OpenMetrics as asked for ([`metrics`]) |
//! | `/healthz` | 200 as long as the process lives |
//! | `/readyz` | 200 while it wants traffic, otherwise 503 with the reason |
//! | `/api/v1/status` | JSON for people and tools ([`status`]) |
//! | `/api/v1/members` | the peer set as JSON, 404 without one ([`members`]) |
//!
//! [`socket`] binds, [`server`] serves, [`lifecycle`] moves the server when a reload does. Everybody who reaches the
//! socket may read all of it; nothing can be changed through it. It shares no thread with the data plane, and however
//! many clients there are, it holds a bounded number of connections and of finished texts.

mod allowed_hosts;
mod connection_limit;
pub(crate) mod lifecycle;
pub(crate) mod members;
pub(crate) mod metrics;
mod process;
pub(crate) mod server;
pub(crate) mod socket;
pub(crate) mod state;
pub(crate) mod status;

pub(crate) use lifecycle::{AdminMove, AdminServer};
pub(crate) use socket::AdminError;
pub(crate) use state::{AdminState, Started};
