//! `{ send = "…", expect = "…" }`: sends bytes, or none, and expects a text in the response.
//!
//! Passes if the first 64 KiB that the server sends contain the text.

use super::connection::{ProbeConnection, contains};
use super::{ProbeFailure, ProbeSuccess, SuccessCell};

/// Most bytes of a response that are searched.
const MAX_RESPONSE: usize = 64 << 10;

pub(super) async fn ask(
    connection: &mut ProbeConnection,
    send: &str,
    expect: &str,
    success: &SuccessCell,
) -> Result<(), ProbeFailure> {
    connection.send(send.as_bytes()).await?;
    let mut searched = 0;
    loop {
        let is_open = connection.read().await?;
        if contains(&connection.buffer, expect.as_bytes(), searched) {
            success.get_or_init(|| ProbeSuccess::Answer("expected response"));
            return Ok(());
        }
        searched = connection.buffer.len();
        if searched >= MAX_RESPONSE || (!is_open && searched > 0) {
            return Err(ProbeFailure::Unexpected);
        }
        if !is_open {
            return Err(ProbeFailure::Ended("a response"));
        }
    }
}
