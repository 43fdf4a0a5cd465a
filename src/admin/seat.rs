//! The running admin server, as the control plane holds it: started, moved to another address by a reload, stopped.

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::error;

use super::{AdminError, AdminSocket, AdminState, bind, serve};
use crate::model::address::BindAddress;

/// See the module.
#[derive(Debug)]
pub struct AdminServer {
    state: AdminState,
    seat: Option<Seat>,
}

#[derive(Debug)]
struct Seat {
    address: BindAddress,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What a reload asks of the server, with what could fail already done.
#[derive(Debug)]
pub enum Move {
    /// It stays where it is.
    Stay,
    /// It goes to a new address.
    Go(BindAddress, AdminSocket),
    /// It ends.
    Leave,
}

impl AdminServer {
    /// Starts on `address`, if there is one.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn start(address: Option<&BindAddress>, state: AdminState) -> Result<Self, AdminError> {
        let mut server = Self { state, seat: None };
        let step = server.prepare(address)?;
        server.switch(step);
        Ok(server)
    }

    /// Binds what a new configuration asks for; nothing changes yet.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn prepare(&self, address: Option<&BindAddress>) -> Result<Move, AdminError> {
        match address {
            None => Ok(Move::Leave),
            Some(address)
                if self
                    .seat
                    .as_ref()
                    .is_some_and(|seat| seat.address == *address) =>
            {
                Ok(Move::Stay)
            }
            Some(address) => Ok(Move::Go(address.clone(), bind(address)?)),
        }
    }

    /// Makes the prepared move.
    pub fn switch(&mut self, step: Move) {
        match step {
            Move::Stay => {}
            Move::Leave => self.leave(),
            Move::Go(address, socket) => {
                self.leave();
                let (stop, stopped) = watch::channel(false);
                let task = tokio::spawn(serve(socket, self.state.clone(), stopped));
                self.seat = Some(Seat {
                    address,
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
    pub async fn stop(mut self) {
        let Some(seat) = self.seat.take() else { return };
        seat.stop.send_replace(true);
        if let Err(error) = seat.task.await {
            error!(%error, "the admin server failed");
        }
    }
}
