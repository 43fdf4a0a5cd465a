//! What a client got, read strictly: the responses in their order, and how the last of them ended.

use super::super::message::{Decoder, Fields, Framing, Part, head_length, split_head};
use super::bytes::latin1;
use super::wire::End;

/// A field with which the backends of the corpus mark an answer to HEAD: no body follows, whatever is announced.
pub const BODILESS: &str = "x-bodiless";

/// A final response, or a 101 with what follows it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Statuses of the interim responses before it.
    pub interim: Vec<u16>,
    /// Status.
    pub status: u16,
    /// Fields; bytes beyond ASCII as one character each.
    pub fields: Fields,
    /// The body, as far as it came.
    pub body: Vec<u8>,
    /// Trailers.
    pub trailers: Fields,
    /// Whether all of it has come, as its framing tells.
    pub whole: bool,
}

/// All responses in `seen`, and what was read of it. The last one may not be whole.
///
/// `end` is how the connection ended, if it did; `to_head` that the answers are to HEAD requests.
///
/// # Errors
/// What is not well formed.
pub fn read(seen: &[u8], end: Option<End>, to_head: bool) -> Result<(Vec<Answer>, usize), String> {
    let mut answers = Vec::new();
    let mut at = 0;
    let mut interim = Vec::new();
    while let Some(length) = head_length(&seen[at..]) {
        let text = latin1(&seen[at..at + length]);
        let (line, fields) = split_head(text.as_bytes())?;
        let status = status_of(line)?;
        at += length;
        if status < 200 && status != 101 {
            no_framing(&fields)?;
            interim.push(status);
            continue;
        }
        let mut answer = Answer {
            interim: std::mem::take(&mut interim),
            status,
            fields,
            body: Vec::new(),
            trailers: Fields::default(),
            whole: false,
        };
        at += body(&seen[at..], end, to_head, &mut answer)?;
        let whole = answer.whole;
        answers.push(answer);
        if !whole {
            break;
        }
    }
    Ok((answers, at))
}

fn status_of(line: &str) -> Result<u16, String> {
    let rest = line.strip_prefix("HTTP/1.1 ");
    let (code, _reason) = rest
        .and_then(|rest| rest.split_once(' '))
        .ok_or_else(|| format!("no status line: {line:?}"))?;
    match code.parse() {
        Ok(status) if code.len() == 3 && (100..=599).contains(&status) => Ok(status),
        _ => Err(format!("no status: {line:?}")),
    }
}

fn no_framing(fields: &Fields) -> Result<(), String> {
    match fields.framing()? {
        None => Ok(()),
        Some(framing) => Err(format!("{framing:?} of a body that cannot be: {fields:?}")),
    }
}

/// Reads the body of `answer` from the front of `rest`; how much of it that was.
fn body(
    rest: &[u8],
    end: Option<End>,
    to_head: bool,
    answer: &mut Answer,
) -> Result<usize, String> {
    if answer.status == 101 || answer.status == 204 {
        no_framing(&answer.fields)?;
    }
    if answer.status == 101 {
        answer.body = rest.to_vec();
        answer.whole = true;
        return Ok(rest.len());
    }
    let told = answer.fields.framing()?;
    let bodiless = to_head || answer.fields.has(BODILESS) || matches!(answer.status, 204 | 304);
    let framing = match told {
        _ if bodiless => Framing::Length(0),
        told => told.unwrap_or(Framing::Close),
    };
    decode(rest, framing, end, answer)
}

fn decode(
    rest: &[u8],
    framing: Framing,
    end: Option<End>,
    answer: &mut Answer,
) -> Result<usize, String> {
    let mut decoder = Decoder::new(framing);
    let mut at = 0;
    loop {
        match decoder.next(&rest[at..])? {
            Part::Data { skip, length } => {
                answer.body.extend_from_slice(&rest[at + skip..][..length]);
                at += skip + length;
            }
            Part::End { skip } => {
                answer.whole = true;
                answer.trailers = decoder.trailers;
                return Ok(at + skip);
            }
            Part::More => {
                answer.whole = decoder.ends_at_close() && end == Some(End::Closed);
                return Ok(at);
            }
        }
    }
}
