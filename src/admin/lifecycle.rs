//! The admin server as the control plane holds it: started, moved to another address by a reload, stopped.

use std::sync::{Arc, Weak};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, warn};

use super::server::serve;
use super::socket::{AdminError, AdminSocket, bind};
use super::state::AdminState;
use crate::model::address::BindAddress;
use crate::transport::listen::BindError;
use crate::transport::unix::SocketFile;

/// The admin server, if the configuration wants one, and what its pages are made from.
#[derive(Debug)]
pub(crate) struct AdminServer {
    state: AdminState,
    running: Option<RunningServer>,
}

#[derive(Debug)]
struct RunningServer {
    address: BindAddress,
    /// The file of a Unix socket, as long as it is open.
    file: Weak<SocketFile>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What becomes of the server at a reload; what could fail is done.
#[derive(Debug)]
pub(crate) enum AdminMove {
    /// It stays where it is.
    Stay,
    /// It moves to a new address.
    To(BindAddress, AdminSocket),
    /// It stops.
    Stop,
}

impl RunningServer {
    /// Whether the file of its Unix socket is gone.
    fn is_lost(&self) -> bool {
        self.file.upgrade().is_some_and(|file| file.is_lost())
    }
}

impl AdminServer {
    /// Starts on `address`, if there is one. `listeners` are the files of the listeners that are Unix sockets.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub(crate) fn start(
        address: Option<&BindAddress>,
        listeners: &[Arc<SocketFile>],
        state: AdminState,
    ) -> Result<Self, AdminError> {
        let mut server = Self {
            state,
            running: None,
        };
        let change = server.prepare(address, listeners)?;
        server.switch(change);
        Ok(server)
    }

    /// Binds what a new configuration asks for; changes nothing yet. `listeners` are the files of its listeners that
    /// are Unix sockets.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub(crate) fn prepare(
        &self,
        address: Option<&BindAddress>,
        listeners: &[Arc<SocketFile>],
    ) -> Result<AdminMove, AdminError> {
        let Some(address) = address else {
            return Ok(AdminMove::Stop);
        };
        let running = self.running.as_ref();
        let running = running.filter(|running| running.address == *address);
        let (change, file) = match running {
            Some(running) if !running.is_lost() => (AdminMove::Stay, running.file.upgrade()),
            lost => match (bind(address), lost) {
                (Ok(socket), _) => {
                    let file = socket.listening.file().upgrade();
                    (AdminMove::To(address.clone(), socket), file)
                }
                (Err(error), Some(_)) => {
                    warn!(%error, "the admin server cannot be reached: its socket has lost its file");
                    (AdminMove::Stay, None)
                }
                (Err(error), None) => return Err(error),
            },
        };
        match file.is_some_and(|file| file.collides(listeners)) {
            true => Err(AdminError(BindError::in_use(address))),
            false => Ok(change),
        }
    }

    /// Makes the prepared move.
    pub(crate) fn switch(&mut self, change: AdminMove) {
        match change {
            AdminMove::Stay => {}
            AdminMove::Stop => self.begin_stop(),
            AdminMove::To(address, socket) => {
                let file = socket.listening.file();
                if let Some(Err(error)) = file.upgrade().map(|file| file.take_over()) {
                    error!(%error, address = %socket.address(), "the admin server cannot take over its path");
                }
                self.begin_stop();
                let (stop, stopped) = watch::channel(false);
                let task = tokio::spawn(serve(socket, self.state.clone(), stopped));
                self.running = Some(RunningServer {
                    address,
                    file,
                    stop,
                    task,
                });
            }
        }
    }

    fn begin_stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.send_replace(true);
        }
    }

    /// Stops, and waits until its socket is closed.
    pub(crate) async fn stop(mut self) {
        let Some(running) = self.running.take() else {
            return;
        };
        running.stop.send_replace(true);
        if let Err(error) = running.task.await {
            error!(%error, "the admin server failed");
        }
    }
}
