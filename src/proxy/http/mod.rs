//! HTTP: what serves a client's connection ([`server`]), where a request goes ([`route`]) and how it is sent there and its
//! response comes back ([`forward`], over [`exchange`]); [`h1`] is HTTP/1's way of saying it.

mod client_address;
pub(crate) mod context;
mod date;
pub(crate) mod exchange;
mod forward;
pub(crate) mod forwarded;
pub(crate) mod h1;
pub(crate) mod head;
mod hops;
mod in_flight;
pub(crate) mod reply;
mod request;
mod route;
pub(crate) mod server;
