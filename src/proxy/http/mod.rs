//! HTTP/1.1 on a worker: [`connection`] walks the steps of an exchange, [`prepare`] makes a request of bytes and
//! finds its route, [`headers`] writes heads anew, [`exchange`] moves a request and its response as a state machine
//! over two streams, [`reply`] is what the proxy answers itself.

pub mod connection;
pub mod exchange;
pub mod headers;
pub mod prepare;
pub mod reply;
