//! `{ http = "/path" }`: one `GET`, whose answer is read as traffic reads it, with the same limits.
//!
//! Passes when the final head is one that traffic takes and its status is among those expected, redirects are not
//! followed, and, with `expect`, when the first 64 KiB of the decoded body contain that text. Of a body without `expect`
//! the same 64 KiB are read, so that the backend sees its answer taken: one that hangs changes nothing, one whose
//! framing traffic would refuse, or that ends before its length, fails.

use super::wire::{Wire, contains};
use super::{Failed, Passed, Verdict};
use crate::http1::body::BodyReader;
use crate::http1::head::HeadEnd;
use crate::http1::response::{self, ResponseHead};
use crate::model::settings::ListenerLimits;

/// How much of a body is taken.
pub(super) const MAX_BODY: usize = 64 << 10;
pub(super) const USER_AGENT: &str = concat!("lbproxy-check/", env!("CARGO_PKG_VERSION"));

/// The request for `path`.
pub(super) fn request(path: &str, host: &str) -> Result<Vec<u8>, Failed> {
    let is_valid = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !path.starts_with('/') || !is_valid(path) || !is_valid(host) {
        return Err(Failed::Request);
    }
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {USER_AGENT}\r\naccept: */*\r\nconnection: close\r\n\r\n"
    );
    Ok(request.into_bytes())
}

/// Sends `request` and judges the answer.
pub(super) async fn ask(
    wire: &mut Wire,
    request: &[u8],
    expected: &[(u16, u16)],
    text: Option<&str>,
    verdict: &Verdict,
) -> Result<(), Failed> {
    wire.send(request).await?;
    let (status, mut body) = final_head(wire).await?;
    if !expected
        .iter()
        .any(|&(from, to)| (from..=to).contains(&status))
    {
        return Err(Failed::Status(status));
    }
    let passed = Passed::Status(status);
    if text.is_none() {
        verdict.get_or_init(|| passed);
    }
    match (read_body(wire, &mut body, text).await?, text) {
        (false, Some(_)) => Err(Failed::Unexpected),
        _ => {
            verdict.get_or_init(|| passed);
            Ok(())
        }
    }
}

/// Takes heads up to the final one: its status, and the reader of its body. Interim ones are dropped, however many the
/// time of the check has room for.
async fn final_head(wire: &mut Wire) -> Result<(u16, BodyReader), Failed> {
    let mut fields = Vec::new();
    loop {
        let head = match response::parse(&wire.buffer, false, &mut fields) {
            Ok(Some(head)) => head,
            Ok(None) => {
                more_of_a_head(wire).await?;
                continue;
            }
            Err(refusal) => return Err(Failed::Refused(refusal)),
        };
        let ResponseHead { status, len, .. } = head;
        let body = BodyReader::for_response(
            head.framing,
            ListenerLimits::default().trailer_bytes,
            head.forwards_trailers,
        );
        wire.take(len);
        match status {
            101 => return Err(Failed::Protocol("status 101, which nobody asked for")),
            100..200 => {}
            _ => return Ok((status, body)),
        }
    }
}

/// Reads until another look at the head is worth the while.
async fn more_of_a_head(wire: &mut Wire) -> Result<(), Failed> {
    let mut end = HeadEnd::after(&wire.buffer);
    loop {
        if !wire.read().await? {
            return Err(Failed::Ended("an answer"));
        }
        if end.is_due(&wire.buffer, response::LIMITS.bytes) {
            return Ok(());
        }
    }
}

/// Reads the body up to [`MAX_BODY`], or until it contains `text`; whether it did.
async fn read_body(
    wire: &mut Wire,
    body: &mut BodyReader,
    text: Option<&str>,
) -> Result<bool, Failed> {
    let mut payload = Vec::new();
    let mut taken = 0;
    loop {
        let bytes = &mut wire.buffer;
        taken += bytes.len();
        let piece = body
            .read_in_place(bytes, &mut Vec::new())
            .map_err(Failed::Refused)?;
        if let Some(text) = text {
            let looked = payload.len();
            payload.extend_from_slice(&bytes[..piece.payload]);
            if contains(&payload, text.as_bytes(), looked) {
                return Ok(true);
            }
        }
        bytes.clear();
        if body.is_done() || taken >= MAX_BODY {
            return Ok(false);
        }
        if !wire.read().await? {
            let is_whole = body.end_of_connection();
            return match is_whole {
                true => Ok(false),
                false => Err(Failed::Ended("the end of the body")),
            };
        }
    }
}
