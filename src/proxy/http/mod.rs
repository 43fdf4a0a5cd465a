//! HTTP/1.1 on a worker: [`connection`] serves the requests of a client one after the other, [`prepare`] makes a
//! request of bytes and finds its route, [`headers`] writes heads anew, `attempt` picks, connects and tries again,
//! [`exchange`] moves a request and its response as a state machine over two streams, [`reply`] is what the proxy
//! answers itself.

mod attempt;
pub mod connection;
pub mod exchange;
pub mod headers;
pub mod prepare;
pub mod reply;
