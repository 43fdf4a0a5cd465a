//! HTTP/1.1 and HTTP/1.0 on either side of an exchange.

pub(crate) mod backend_side;
pub(crate) mod client_side;
pub(crate) mod encode;
