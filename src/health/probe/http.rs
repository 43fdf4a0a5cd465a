//! `{ http = "/path" }`: one `GET`, whose response is parsed like those of live traffic, with the same limits.
//!
//! Passes if live traffic would accept the final head, its status is expected (redirects are not followed) and, with
//! `expect`, the first 64 KiB of the decoded body contain that text. Without `expect` the same 64 KiB of the body are
//! read, so that the backend sees its response being read: a body that stalls changes nothing; one with framing that
//! live traffic would refuse, or that ends before its length, fails.

use super::connection::{ProbeConnection, contains};
use super::{ProbeFailure, ProbeSuccess, SuccessCell};
use crate::http1::body::BodyReader;
use crate::http1::head::HeadEnd;
use crate::http1::response::{self, ResponseHead};
use crate::model::settings::ListenerLimits;

/// Most bytes of a body that are read.
pub(super) const MAX_BODY: usize = 64 << 10;
pub(super) const USER_AGENT: &str = concat!("lbproxy-check/", env!("CARGO_PKG_VERSION"));

/// Builds the request for `path`.
pub(super) fn request(path: &str, host: &str) -> Result<Vec<u8>, ProbeFailure> {
    let is_valid = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !path.starts_with('/') || !is_valid(path) || !is_valid(host) {
        return Err(ProbeFailure::Request);
    }
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {USER_AGENT}\r\naccept: */*\r\nconnection: close\r\n\r\n"
    );
    Ok(request.into_bytes())
}

/// Sends `request` and evaluates the response.
pub(super) async fn ask(
    connection: &mut ProbeConnection,
    request: &[u8],
    expected: &[(u16, u16)],
    text: Option<&str>,
    success: &SuccessCell,
) -> Result<(), ProbeFailure> {
    connection.send(request).await?;
    let (status, mut body) = final_head(connection).await?;
    if !expected
        .iter()
        .any(|&(from, to)| (from..=to).contains(&status))
    {
        return Err(ProbeFailure::Status(status));
    }
    let passed = ProbeSuccess::Status(status);
    if text.is_none() {
        success.get_or_init(|| passed);
    }
    match (read_body(connection, &mut body, text).await?, text) {
        (false, Some(_)) => Err(ProbeFailure::Unexpected),
        _ => {
            success.get_or_init(|| passed);
            Ok(())
        }
    }
}

/// Reads heads up to the final one; returns its status, and a reader for its body. Interim responses are dropped,
/// limited only by the timeout of the check.
async fn final_head(connection: &mut ProbeConnection) -> Result<(u16, BodyReader), ProbeFailure> {
    let mut fields = Vec::new();
    loop {
        let head = match response::parse(&connection.buffer, false, &mut fields) {
            Ok(Some(head)) => head,
            Ok(None) => {
                read_more_of_head(connection).await?;
                continue;
            }
            Err(refusal) => return Err(ProbeFailure::Refused(refusal)),
        };
        let ResponseHead { status, len, .. } = head;
        let body = BodyReader::for_response(
            head.framing,
            ListenerLimits::default().trailer_bytes,
            head.forwards_trailers,
        );
        connection.take(len);
        match status {
            101 => return Err(ProbeFailure::Protocol("unrequested status 101")),
            100..200 => {}
            _ => return Ok((status, body)),
        }
    }
}

/// Reads until the head is worth parsing again.
async fn read_more_of_head(connection: &mut ProbeConnection) -> Result<(), ProbeFailure> {
    let mut end = HeadEnd::after(&connection.buffer);
    loop {
        if !connection.read().await? {
            return Err(ProbeFailure::Ended("a response"));
        }
        if end.is_due(&connection.buffer, response::LIMITS.bytes) {
            return Ok(());
        }
    }
}

/// Reads the body up to [`MAX_BODY`], or until it contains `text`. Returns whether it did.
async fn read_body(
    connection: &mut ProbeConnection,
    body: &mut BodyReader,
    text: Option<&str>,
) -> Result<bool, ProbeFailure> {
    let mut payload = Vec::new();
    let mut total = 0;
    loop {
        let bytes = &mut connection.buffer;
        total += bytes.len();
        let piece = body
            .read_in_place(bytes, &mut Vec::new())
            .map_err(ProbeFailure::Refused)?;
        if let Some(text) = text {
            let searched = payload.len();
            payload.extend_from_slice(&bytes[..piece.payload]);
            if contains(&payload, text.as_bytes(), searched) {
                return Ok(true);
            }
        }
        bytes.clear();
        if body.is_done() || total >= MAX_BODY {
            return Ok(false);
        }
        if !connection.read().await? {
            return match body.end_of_connection() {
                true => Ok(false),
                false => Err(ProbeFailure::Ended("the end of the body")),
            };
        }
    }
}
