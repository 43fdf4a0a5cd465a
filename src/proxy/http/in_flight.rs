//! All that one request holds while it is under way, in one piece that a worker uses again for the next one.

use super::exchange::Exchange;
use super::h1::backend_side::BackendState;
use super::h1::client_side::ClientState;
use super::head::ForwardHead;
use super::request::RequestContext;
use crate::proxy::buffer::Unsent;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// What is known of the request.
    pub request: RequestContext,
    /// Its head, as it is forwarded.
    pub head: ForwardHead,
    /// How far it and its response are.
    pub exchange: Exchange,
    /// The client's side.
    pub client: ClientState,
    /// The backend's side.
    pub backend: BackendState,
}

impl InFlight {
    /// Whether the request may be sent again.
    pub(crate) fn may_repeat(&self) -> bool {
        self.exchange.may_repeat(self.request.info)
    }

    /// What the client has not taken yet.
    pub(crate) fn take_unsent(&mut self) -> Unsent {
        std::mem::take(&mut self.client.unsent)
    }

    /// Forgets the request and gives back memory that is not worth keeping. The exchange and its sides are begun again with
    /// the next request.
    pub(crate) fn clear(&mut self) {
        self.request.clear();
        self.head.clear();
        self.exchange.release();
        self.client.release();
        self.backend.release();
    }
}
