//! HTTP/1.1 on a worker: [`connection`] serves the requests of a client one after the other, [`slot`] is where an
//! exchange's future lives meanwhile, [`intake`] keeps what is not yet a request, [`prepare`] makes a request of bytes and
//! finds its route, [`seen`] is the request as its backend will see it, [`forwarding`] tells who the client is,
//! [`headers`] writes heads anew, [`hops`] notices a request that comes back, `attempt` picks, connects and tries again, [`exchange`] moves a request and its response
//! as a state machine over two streams, [`reply`] is what the proxy answers itself, [`date`] the Date of both.

mod attempt;
pub mod connection;
pub mod date;
pub mod exchange;
pub mod forwarding;
pub mod headers;
pub mod hops;
pub mod intake;
pub mod prepare;
pub mod reply;
pub mod seen;
pub mod slot;
