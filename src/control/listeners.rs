//! The sockets of the listeners of a configuration: kept where the address stays, bound where it is new.

use std::sync::Arc;

use tracing::{info, warn};

use crate::config::schema::{Config, ListenerConfig};
use crate::snapshot::{Listener, Snapshot};
use crate::transport::listen::{BindError, BoundSockets};
use crate::transport::unix::SocketFile;

/// The files of those sockets that have one.
pub(crate) fn socket_files<'s>(
    sockets: impl Iterator<Item = &'s BoundSockets>,
) -> Vec<Arc<SocketFile>> {
    sockets.filter_map(BoundSockets::file).collect()
}

/// The sockets of every listener, in the order of the file: those of `previous` where the address stays, otherwise new
/// ones. All or none.
pub(super) fn bind_all(
    config: &Config,
    workers: usize,
    previous: Option<&Snapshot>,
) -> Result<Vec<Arc<BoundSockets>>, Vec<BindError>> {
    let mut sockets = Vec::with_capacity(config.listeners.len());
    let mut files: Vec<Arc<SocketFile>> = Vec::new();
    let mut errors = Vec::new();
    for listener in &config.listeners {
        let known = previous.and_then(|snapshot| {
            snapshot.listeners.iter().find(|known| {
                // Port 0 is another port each time, so there the name decides.
                known.address == listener.address
                    && (!listener.address.is_any_port() || *known.name == *listener.name)
            })
        });
        match bind_or_keep(listener, workers, known) {
            Ok(bound) => {
                let file = bound.file();
                // Two spellings of one path.
                if file.as_ref().is_some_and(|file| file.collides(&files)) {
                    errors.push(BindError::in_use(&listener.address));
                }
                files.extend(file);
                sockets.push(bound);
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(sockets)
    } else {
        Err(errors)
    }
}

/// The sockets that a listener has already, or new ones. Sockets whose file is gone are replaced if possible.
fn bind_or_keep(
    listener: &ListenerConfig,
    workers: usize,
    known: Option<&Arc<Listener>>,
) -> Result<Arc<BoundSockets>, BindError> {
    let is_lost = |known: &Listener| known.sockets.file().is_some_and(|file| file.is_lost());
    let lost = match known {
        Some(known) if !is_lost(known) => return Ok(Arc::clone(&known.sockets)),
        lost => lost,
    };
    match (BoundSockets::bind(&listener.address, workers), lost) {
        (Ok(bound), _) => {
            info!(listener = %listener.name, address = %bound.address(), "listening");
            Ok(Arc::new(bound))
        }
        (Err(error), Some(lost)) => {
            warn!(listener = %listener.name, %error, "no client can connect: the socket has lost its file");
            Ok(Arc::clone(&lost.sockets))
        }
        (Err(error), None) => Err(error),
    }
}
