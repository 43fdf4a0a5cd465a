//! The access log's line, and how a worker hands lines over.
//!
//! [`write_line`] makes one JSON object a line: no serializer and no allocation but the growth of the buffer. What
//! comes from clients is bytes of any kind, and none of them can forge a line or break a reader: `"`, `\` and all
//! control characters (C0, DEL, C1, and the line and paragraph separators that some readers split at) are escaped,
//! bytes that are not UTF-8 become `\u00XX`, and what is overlong is cut and ends in `…`. So a line is always valid
//! UTF-8 and JSON, without a line end inside, and at most some 100 KiB.
//!
//! [`LogSender`] belongs to one worker, which writes into its own buffer and passes it on whole through a bounded
//! queue, never waiting: when the queue is full the batch is dropped and its lines are counted.

use std::fmt::Arguments;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::metrics::ProcessMetrics;
use super::outcome::{Outcome, Reason};

/// Longest `uri` in bytes of the request.
pub(crate) const MAX_URI: usize = 8 << 10;
/// Longest other text.
pub(crate) const MAX_TEXT: usize = 1 << 10;
/// End of the year 9999, beyond which RFC 3339 has no words for a clock that is wrong.
const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);
/// A batch of this size is handed over at once.
const FULL: usize = 32 << 10;
/// Room for a batch: what is left after [`FULL`] takes nearly every line.
const BATCH: usize = 36 << 10;

/// What is written about one request or session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogEntry<'a> {
    /// When it ended.
    pub time: SystemTime,
    /// Name of the listener.
    pub listener: &'a str,
    /// The other end of the socket.
    pub peer: Option<SocketAddr>,
    /// How it ended; `None` and empty texts are left out.
    pub outcome: Outcome<'a>,
}

/// Appends `entry` as one line with its line end.
pub(crate) fn write_line(out: &mut Vec<u8>, entry: &LogEntry<'_>) {
    let Outcome {
        protocol,
        client,
        request,
        way,
        status,
        reason,
        cause,
        bytes_in,
        bytes_out,
        times,
    } = entry.outcome;
    out.extend_from_slice(b"{\"time\":\"");
    let time = entry.time.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST_SECOND);
    append(
        out,
        format_args!("{}", humantime::format_rfc3339_millis(time)),
    );
    out.push(b'"');
    text(out, "listener", entry.listener.as_bytes());
    if let Some(client) = client {
        quoted(out, "client", format_args!("{client}"));
    }
    if let Some(peer) = entry.peer {
        quoted(out, "peer", format_args!("{peer}"));
    }
    text(out, "id", request.id);
    text(out, "protocol", protocol.as_bytes());
    text(out, "method", request.method);
    text(out, "host", request.host);
    text_up_to(out, "uri", request.uri, MAX_URI);
    number(out, "status", status);
    text(out, "reason", reason.map_or("", Reason::as_str).as_bytes());
    text(out, "cause", cause.unwrap_or("").as_bytes());
    text(out, "route", way.route.unwrap_or("").as_bytes());
    text(out, "cluster", way.cluster.unwrap_or("").as_bytes());
    text(out, "backend", way.backend.unwrap_or("").as_bytes());
    number(out, "attempts", way.attempts);
    number(out, "bytes_in", Some(bytes_in));
    number(out, "bytes_out", Some(bytes_out));
    millis(out, "duration_ms", Some(times.duration));
    millis(out, "connect_ms", times.connect);
    millis(out, "response_ms", times.response);
    text(out, "user_agent", request.user_agent);
    text(out, "referer", request.referer);
    out.extend_from_slice(b"}\n");
}

/// `,"name":`; `name` is one of ours and needs no escape.
fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// A vector takes whatever is written to it.
fn append(out: &mut Vec<u8>, text: Arguments<'_>) {
    let _ = out.write_fmt(text);
}

/// A text of digits, letters and punctuation that needs no escape.
fn quoted(out: &mut Vec<u8>, name: &str, text: Arguments<'_>) {
    key(out, name);
    out.push(b'"');
    append(out, text);
    out.push(b'"');
}

fn number(out: &mut Vec<u8>, name: &str, value: Option<impl itoa::Integer>) {
    if let Some(value) = value {
        key(out, name);
        out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }
}

/// Milliseconds with three decimals.
fn millis(out: &mut Vec<u8>, name: &str, value: Option<Duration>) {
    if let Some(value) = value {
        key(out, name);
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(digits.format(micros / 1000).as_bytes());
        let part = micros % 1000;
        let digit = |n: u64| b'0' + (n % 10) as u8;
        out.extend_from_slice(&[b'.', digit(part / 100), digit(part / 10), digit(part)]);
    }
}

fn text(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    text_up_to(out, name, value, MAX_TEXT);
}

fn text_up_to(out: &mut Vec<u8>, name: &str, value: &[u8], most: usize) {
    if value.is_empty() {
        return;
    }
    key(out, name);
    out.push(b'"');
    let (kept, cut) = shorten(value, most);
    escape(out, kept);
    if cut {
        out.extend_from_slice("…".as_bytes());
    }
    out.push(b'"');
}

/// At most `most` bytes of `value`, not ending inside a character, and whether something is missing.
fn shorten(value: &[u8], most: usize) -> (&[u8], bool) {
    if value.len() <= most {
        return (value, false);
    }
    let continues = |at: usize| value[at] & 0xC0 == 0x80;
    // A character has at most three bytes after its first; more of them are no character at all.
    let end = (most - 3..=most).rev().find(|&at| !continues(at));
    (&value[..end.unwrap_or(most)], true)
}

fn escape(out: &mut Vec<u8>, value: &[u8]) {
    let plain = |&b: &u8| (0x20..0x7F).contains(&b) && b != b'"' && b != b'\\';
    let mut rest = value;
    loop {
        let run = rest.iter().position(|b| !plain(b)).unwrap_or(rest.len());
        let (head, tail) = rest.split_at(run);
        out.extend_from_slice(head);
        let Some(&first) = tail.first() else { return };
        if first.is_ascii() {
            escape_ascii(out, first);
            rest = &tail[1..];
        } else {
            let run = tail.iter().position(u8::is_ascii).unwrap_or(tail.len());
            let (foreign, after) = tail.split_at(run);
            escape_foreign(out, foreign);
            rest = after;
        }
    }
}

fn escape_ascii(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        other => escape_code(out, u16::from(other)),
    }
}

/// Bytes beyond ASCII: whole characters as they are, the rest by its code.
fn escape_foreign(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\u{80}'..='\u{9F}' | '\u{2028}' | '\u{2029}' => {
                    escape_code(out, character as u16);
                }
                other => {
                    let mut encoded = [0; 4];
                    out.extend_from_slice(other.encode_utf8(&mut encoded).as_bytes());
                }
            }
        }
        for &byte in chunk.invalid() {
            escape_code(out, u16::from(byte));
        }
    }
}

fn escape_code(out: &mut Vec<u8>, code: u16) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digit = |shift: u16| HEX[usize::from(code >> shift & 0xF)];
    out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
}

/// What a worker holds to write the access log.
#[derive(Debug)]
pub(crate) struct LogSender {
    batch: Vec<u8>,
    queue: SyncSender<Vec<u8>>,
    metrics: Arc<ProcessMetrics>,
}

impl LogSender {
    /// Hands batches to `queue`; each holds whole lines.
    pub(crate) fn new(queue: SyncSender<Vec<u8>>, metrics: Arc<ProcessMetrics>) -> Self {
        Self {
            batch: Vec::new(),
            queue,
            metrics,
        }
    }

    /// Appends one line; hands the batch over when it is large.
    pub(crate) fn write(&mut self, entry: &LogEntry<'_>) {
        if self.batch.capacity() == 0 {
            self.batch.reserve_exact(BATCH);
        }
        write_line(&mut self.batch, entry);
        if self.batch.len() >= FULL {
            self.flush();
        }
    }

    /// Hands over what there is; a worker does so when it has nothing else to do, or once in a while. Never waits.
    pub(crate) fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        if batch.len() < BATCH / 2 {
            // A quiet proxy hands over single lines: copied, so that the queue holds no empty room.
            let small = batch.clone();
            batch.clear();
            self.batch = std::mem::replace(&mut batch, small);
        }
        if let Err(refused) = self.queue.try_send(batch) {
            let (std::sync::mpsc::TrySendError::Full(batch)
            | std::sync::mpsc::TrySendError::Disconnected(batch)) = refused;
            self.metrics.access_log_dropped.add(lines(&batch));
        }
    }
}

impl Drop for LogSender {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Lines of a batch.
pub(crate) fn lines(batch: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', batch).count() as u64
}

#[cfg(test)]
mod tests;
