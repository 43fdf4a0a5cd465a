//! The access log's line.
