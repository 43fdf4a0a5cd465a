//! L3 control: the admin server: read-only, plain HTTP/1.1 over TCP or a unix socket.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | Prometheus text, 0.0.4 or OpenMetrics as asked for ([`metrics`]) |
//! | `/healthz` | 200 as long as the process lives |
//! | `/readyz` | 200 while it wants traffic, else 503 with the reason |
//! | `/api/v1/status` | JSON for people and tools ([`status`]) |
//! | `/api/v1/members` | the peer set as JSON, 404 while there is none ([`members`]) |
//!
//! [`socket`] binds, [`server`] serves. Whoever reaches the socket may read all of it; nothing can be changed
//! through it. It shares no thread with the data plane, and however many ask, it holds a bounded number of
//! connections and of finished texts.

pub(crate) mod members;
pub(crate) mod metrics;
mod names;
mod places;
mod process;
mod seat;
pub(crate) mod server;
pub(crate) mod socket;
pub(crate) mod status;

pub(crate) use seat::{AdminMove, AdminServer};
pub(crate) use server::{AdminState, Started, serve};
pub(crate) use socket::{AdminError, AdminSocket, bind};
