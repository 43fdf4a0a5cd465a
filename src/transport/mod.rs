//! L2: sockets: listening, dialling, options, and what the kernel says about them.

pub mod listen;
