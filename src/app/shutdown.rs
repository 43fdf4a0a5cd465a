//! The running proxy, and its end in order: not ready → `shutdown_delay` → listeners and admin close, what is idle
//! closes, the rest gets `drain_timeout` → logs → exit. Signals are heard through all of it, and whatever hangs at the
//! end is left behind.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::signals::EndRequests;
use crate::logging::access::AccessLogWriter;
use crate::model::units::show_duration;
use crate::proxy::worker::Workers;
use crate::snapshot::publish::Publisher;
use crate::telemetry::readiness::{Readiness, Stage};

/// How long the access log may take to write what is queued when the process ends.
const LOG_CLOSE: Duration = Duration::from_secs(2);
/// How long the rest may take to end once the sessions have ended.
const CLOSE_BOUND: Duration = Duration::from_secs(10);
/// The same once the end was requested twice.
const SECOND_REQUEST_BOUND: Duration = Duration::from_secs(1);
/// From the time at which workers end sessions to the end of the wait for them.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
/// Time between two looks at the workers while they drain.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// A proxy that serves.
pub(super) struct RunningProxy {
    /// The data plane.
    pub workers: Workers,
    /// The control plane; gives back the access log, which is closed last.
    pub control: JoinHandle<AccessLogWriter>,
    /// Ends the control plane.
    pub stop: watch::Sender<bool>,
    /// Requests to end.
    pub ends: EndRequests,
    /// Whether the process wants traffic.
    pub readiness: Arc<Readiness>,
    /// Has the current snapshot.
    pub publisher: Arc<Publisher>,
    /// How long listeners still accept after the first request to end.
    pub shutdown_delay: Duration,
}

impl RunningProxy {
    /// Serves until it is told to stop, then ends in order.
    ///
    /// # Errors
    /// The control plane has failed, or the end was requested twice.
    pub(super) async fn run_to_end(mut self) -> anyhow::Result<()> {
        let control_failed = tokio::select! {
            () = self.ends.requested(1) => false,
            _ = &mut self.control => true,
        };
        if control_failed {
            // It ends only by a bug before it is told to. Traffic continues as it was; an operator must know.
            error!("the control plane failed: nothing is reloaded any more until a restart");
            self.ends.requested(1).await;
        }
        self.readiness.advance(Stage::Draining);
        info!(delay = %show_duration(self.shutdown_delay), "stopping");
        let mut ends = self.ends.clone();
        let drained = tokio::select! {
            () = self.drain() => true,
            () = ends.requested(2) => false,
        };
        self.stop.send_replace(true);
        anyhow::ensure!(!control_failed, "the control plane had failed");
        let closed = if drained {
            tokio::select! {
                closed = tokio::time::timeout(CLOSE_BOUND, close(self.control)) => closed,
                () = ends.requested(2) => return Err(requested_twice()),
            }
        } else {
            tokio::time::timeout(SECOND_REQUEST_BOUND, close(self.control)).await
        };
        match closed {
            Ok(closed) => closed?,
            Err(_) => warn!("something hangs at shutdown and is left behind"),
        }
        info!("stopped");
        if drained {
            Ok(())
        } else {
            Err(requested_twice())
        }
    }

    /// Waits for those who send traffic to turn away, then lets live sessions end, for at most `drain_timeout`. From
    /// then on no reload opens anything, and the admin server gives up its address.
    async fn drain(&self) {
        let bound = self.publisher.current().drain_timeout + DRAIN_GRACE;
        self.workers.announce_close();
        tokio::time::sleep(self.shutdown_delay).await;
        self.stop.send_replace(true);
        self.workers.drain();
        let ended = async {
            let mut poll = tokio::time::interval(DRAIN_POLL);
            while !self.workers.have_ended() {
                poll.tick().await;
            }
        };
        if tokio::time::timeout(bound, ended).await.is_err() {
            warn!("some sessions did not end in time");
        }
    }
}

fn requested_twice() -> anyhow::Error {
    anyhow::anyhow!("asked to stop twice: ended without waiting for live sessions")
}

/// Waits for what ends after the sessions.
async fn close(control: JoinHandle<AccessLogWriter>) -> anyhow::Result<()> {
    let access = control.await.context("the control plane failed")?;
    let closed = tokio::task::spawn_blocking(move || access.close(LOG_CLOSE)).await;
    if !closed.unwrap_or(false) {
        warn!("the access log did not take all lines in time");
    }
    Ok(())
}
