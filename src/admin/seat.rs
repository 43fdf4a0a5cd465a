//! The running admin server, as the control plane holds it: started, moved to another address by a reload, stopped.

use std::sync::{Arc, Weak};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, warn};

use super::{AdminError, AdminSocket, AdminState, bind, serve};
use crate::model::address::BindAddress;
use crate::transport::listen::BindError;
use crate::transport::unix::SocketFile;

/// See the module.
#[derive(Debug)]
pub(crate) struct AdminServer {
    state: AdminState,
    seat: Option<Seat>,
}

#[derive(Debug)]
struct Seat {
    address: BindAddress,
    /// That of a Unix socket, as long as it is open.
    file: Weak<SocketFile>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What a reload asks of the server, with what could fail already done.
#[derive(Debug)]
pub(crate) enum AdminMove {
    /// It stays where it is.
    Stay,
    /// It goes to a new address.
    Go(BindAddress, AdminSocket),
    /// It ends.
    Leave,
}

impl Seat {
    fn is_lost(&self) -> bool {
        self.file.upgrade().is_some_and(|file| file.is_lost())
    }
}

impl AdminServer {
    /// Starts on `address`, if there is one. `listeners` are the files of those that are Unix sockets.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub(crate) fn start(
        address: Option<&BindAddress>,
        listeners: &[Arc<SocketFile>],
        state: AdminState,
    ) -> Result<Self, AdminError> {
        let mut server = Self { state, seat: None };
        let step = server.prepare(address, listeners)?;
        server.switch(step);
        Ok(server)
    }

    /// Binds what a new configuration asks for; nothing changes yet. `listeners` are the files of its listeners that are
    /// Unix sockets.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub(crate) fn prepare(
        &self,
        address: Option<&BindAddress>,
        listeners: &[Arc<SocketFile>],
    ) -> Result<AdminMove, AdminError> {
        let Some(address) = address else {
            return Ok(AdminMove::Leave);
        };
        let seat = self.seat.as_ref().filter(|seat| seat.address == *address);
        let (step, file) = match seat {
            Some(seat) if !seat.is_lost() => (AdminMove::Stay, seat.file.upgrade()),
            lost => match (bind(address), lost) {
                (Ok(socket), _) => {
                    let file = socket.listening.file().upgrade();
                    (AdminMove::Go(address.clone(), socket), file)
                }
                (Err(error), Some(_)) => {
                    warn!(%error, "nobody can ask the admin server: its socket has lost its file");
                    (AdminMove::Stay, None)
                }
                (Err(error), None) => return Err(error),
            },
        };
        match file.is_some_and(|file| file.collides(listeners)) {
            true => Err(AdminError(BindError::in_use(address))),
            false => Ok(step),
        }
    }

    /// Makes the prepared move.
    pub(crate) fn switch(&mut self, step: AdminMove) {
        match step {
            AdminMove::Stay => {}
            AdminMove::Leave => self.leave(),
            AdminMove::Go(address, socket) => {
                let file = socket.listening.file();
                if let Some(Err(error)) = file.upgrade().map(|file| file.take_over()) {
                    error!(%error, address = %socket.address(), "the admin server cannot take over its path");
                }
                self.leave();
                let (stop, stopped) = watch::channel(false);
                let task = tokio::spawn(serve(socket, self.state.clone(), stopped));
                self.seat = Some(Seat {
                    address,
                    file,
                    stop,
                    task,
                });
            }
        }
    }

    fn leave(&mut self) {
        if let Some(seat) = self.seat.take() {
            seat.stop.send_replace(true);
        }
    }

    /// Stops, and waits until its socket is closed.
    pub(crate) async fn stop(mut self) {
        let Some(seat) = self.seat.take() else { return };
        seat.stop.send_replace(true);
        if let Err(error) = seat.task.await {
            error!(%error, "the admin server failed");
        }
    }
}
