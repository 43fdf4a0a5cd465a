//! `{ send = "…", expect = "…" }`: bytes to send, which may be none, and a text in what comes back.
//!
//! Passes when the first 64 KiB of what the server sends contain the text.

use super::wire::{Wire, contains};
use super::{Failed, Passed, Verdict};

/// How much of an answer is searched.
const MOST: usize = 64 << 10;

pub(super) async fn ask(
    wire: &mut Wire,
    send: &str,
    expect: &str,
    verdict: &Verdict,
) -> Result<(), Failed> {
    wire.send(send.as_bytes()).await?;
    let mut looked = 0;
    loop {
        let is_open = wire.read().await?;
        if contains(&wire.buffer, expect.as_bytes(), looked) {
            verdict.get_or_init(|| Passed::Answer("the expected answer"));
            return Ok(());
        }
        looked = wire.buffer.len();
        if looked >= MOST || (!is_open && looked > 0) {
            return Err(Failed::Unexpected);
        }
        if !is_open {
            return Err(Failed::Ended("an answer"));
        }
    }
}
