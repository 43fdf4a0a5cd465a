//! Addresses of the seeds. Their names are looked up again and again, in a task of their own, so that a look-up that
//! hangs does not delay the member. The last addresses stand while a look-up finds nothing.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, spawn_local};
use tracing::debug;

use crate::discovery::dns::resolve;
use crate::model::address::BackendAddress;

/// Time between two look-ups, before and after the first address was found.
const RESOLVE_EVERY: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(30));

/// Follows the addresses of the seeds.
pub(super) struct Seeds {
    found: mpsc::Receiver<Vec<SocketAddr>>,
    task: AbortHandle,
}

impl Seeds {
    pub(super) fn follow(names: &[BackendAddress]) -> Self {
        let (sender, found) = mpsc::channel(1);
        let task = spawn_local(look_up(names.to_vec(), sender)).abort_handle();
        Self { found, task }
    }

    /// Resolves when other addresses are found; never without names. Cancel-safe.
    pub(super) async fn next(&mut self) -> Vec<SocketAddr> {
        match self.found.recv().await {
            Some(found) => found,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Seeds {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look_up(names: Vec<BackendAddress>, sender: mpsc::Sender<Vec<SocketAddr>>) {
    let mut last = Vec::new();
    loop {
        let mut addresses = Vec::new();
        let mut has_names = false;
        for name in &names {
            match name {
                BackendAddress::Ip(address) => addresses.push(*address),
                // The configuration allows none.
                BackendAddress::Unix(_) => {}
                BackendAddress::Name { .. } => {
                    has_names = true;
                    match resolve(name).await {
                        Ok(found) => addresses.extend(found),
                        Err(error) => {
                            debug!(%name, %error, "gossip: cannot resolve the name of a seed");
                        }
                    }
                }
            }
        }
        // If a look-up finds nothing, the last addresses stand.
        if !addresses.is_empty() && addresses != last {
            last.clone_from(&addresses);
            if sender.send(addresses).await.is_err() {
                return;
            }
        }
        if !has_names {
            return std::future::pending().await;
        }
        let (before, after) = RESOLVE_EVERY;
        tokio::time::sleep(if last.is_empty() { before } else { after }).await;
    }
}
