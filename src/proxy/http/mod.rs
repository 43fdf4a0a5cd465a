//! HTTP/1.1 on a worker: [`connection`] serves the requests of a client one after the other, [`slot`] is where an
//! exchange's future lives meanwhile, [`intake`] keeps what is not yet a request, [`prepare`] makes a request of bytes and
//! finds its route, [`seen`] is the request as its backend will see it, [`forwarding`] tells who the client is,
//! [`headers`] writes heads anew, [`hops`] notices a request that comes back, `attempt` picks, connects and tries again, [`exchange`] moves a request and its response
//! as a state machine over two streams, [`reply`] is what the proxy answers itself, [`date`] the Date of both.

mod attempt;
pub(crate) mod connection;
pub(crate) mod date;
pub(crate) mod exchange;
pub(crate) mod forwarding;
pub(crate) mod headers;
pub(crate) mod hops;
pub(crate) mod intake;
pub(crate) mod prepare;
pub(crate) mod reply;
pub(crate) mod seen;
pub(crate) mod slot;
