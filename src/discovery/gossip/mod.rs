//! The peer set over sockets.

mod driver;
pub mod peers;
pub mod secrets;
mod streams;
