//! `{ postgres = "user" }`: a StartupMessage of protocol 3.0 (PostgreSQL documentation, chapter "Frontend/Backend
//! Protocol"), up to the server's answer. No password is ever sent.
//!
//! Any Authentication message passes, whether it accepts the user or requests a password, and so does an ErrorResponse
//! of SQLSTATE class 28 (not authorized: `pg_hba.conf` does not admit this user, but the server is up). Anything else
//! fails with the server's message, such as 57P03 (starting up, shutting down) or 53300 (too many connections). A user
//! that is accepted is logged out in an orderly way.

use super::connection::ProbeConnection;
use super::{ProbeFailure, ProbeSuccess, SuccessCell, message};

/// Largest message that is read.
const MAX_MESSAGE: usize = 16 << 10;
/// Most bytes of an accepted session that are read before it is ended.
const GREETING: usize = 64 << 10;
const PROTOCOL: u32 = 3 << 16;
const NOT_POSTGRES: ProbeFailure = ProbeFailure::Protocol("not a PostgreSQL response");

pub(super) async fn ask(
    connection: &mut ProbeConnection,
    user: &str,
    success: &SuccessCell,
) -> Result<(), ProbeFailure> {
    connection.send(&startup(user)).await?;
    loop {
        connection.fill(5, "a response").await?;
        let size = size(&connection.buffer)?;
        connection.fill(size, "the end of the response").await?;
        let message = connection.take(size);
        match evaluate(&message)? {
            Some((passed, logged_in)) => {
                success.get_or_init(|| passed);
                if logged_in && connection.send(b"X\0\0\0\x04").await.is_ok() {
                    connection.drain(GREETING).await;
                }
                return Ok(());
            }
            // A notice; the answer is still to come.
            None => continue,
        }
    }
}

fn startup(user: &str) -> Vec<u8> {
    let mut body = PROTOCOL.to_be_bytes().to_vec();
    body.extend_from_slice(b"user\0");
    body.extend_from_slice(user.as_bytes());
    body.extend_from_slice(b"\0\0");
    let mut message = (body.len() as u32 + 4).to_be_bytes().to_vec();
    message.extend_from_slice(&body);
    message
}

/// Size in bytes of the message that begins with `header`, of at least five bytes.
fn size(header: &[u8]) -> Result<usize, ProbeFailure> {
    let &[_, a, b, c, d, ..] = header else {
        return Err(NOT_POSTGRES);
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    match length {
        4..=MAX_MESSAGE => Ok(1 + length),
        _ => Err(NOT_POSTGRES),
    }
}

/// Evaluates a complete message: whether the probe passes and the user is logged in, or nothing yet.
fn evaluate(message: &[u8]) -> Result<Option<(ProbeSuccess, bool)>, ProbeFailure> {
    match message {
        [b'R', _, _, _, _, 0, 0, 0, 0] => Ok(Some((ProbeSuccess::Answer("login accepted"), true))),
        [b'R', _, _, _, _, _, _, _, _, ..] => {
            Ok(Some((ProbeSuccess::Answer("password requested"), false)))
        }
        [b'E', _, _, _, _, fields @ ..] => refusal(fields).map(Some),
        [b'N' | b'v', ..] => Ok(None),
        _ => Err(NOT_POSTGRES),
    }
}

fn refusal(fields: &[u8]) -> Result<(ProbeSuccess, bool), ProbeFailure> {
    let field = |code: u8| {
        fields
            .split(|byte| *byte == 0)
            .find_map(|field| field.split_first().filter(|(first, _)| **first == code))
            .map_or(&[][..], |(_, text)| text)
    };
    let (state, text) = (field(b'C'), field(b'M'));
    if state.starts_with(b"28") {
        return Ok((ProbeSuccess::Answer("login refused for this user"), false));
    }
    Err(ProbeFailure::Server(message(
        &[state, b" ".as_slice(), text].concat(),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![kind];
        frame.extend((body.len() as u32 + 4).to_be_bytes());
        frame.extend(body);
        frame
    }

    fn shown(message: &[u8]) -> String {
        match evaluate(message) {
            Ok(Some((passed, logged_in))) => format!("{passed} {logged_in}"),
            Ok(None) => "nothing".to_owned(),
            Err(failed) => failed.to_string(),
        }
    }

    #[test]
    fn login_answers_are_evaluated() {
        for (message, expected) in [
            (frame(b'R', &[0; 4]), "login accepted true"),
            (
                frame(b'R', &[0, 0, 0, 10, b'S']),
                "password requested false",
            ),
            (
                frame(b'E', b"SFATAL\0C28000\0Mno entry\0\0"),
                "login refused for this user false",
            ),
            (
                frame(b'E', b"SFATAL\0VFATAL\0C57P03\0Mstarting up\0\0"),
                "server error: 57P03 starting up",
            ),
            (frame(b'E', b""), "server error:  "),
            (frame(b'N', b"SNOTICE\0\0"), "nothing"),
            (frame(b'R', b""), "not a PostgreSQL response"),
            (frame(b'Z', b"I"), "not a PostgreSQL response"),
        ] {
            assert_eq!(shown(&message), expected, "{message:?}");
        }
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(size(&frame(b'R', &[0; 4])).unwrap(), 9);
        for header in [&b"HTTP/"[..], b"R\0\0\0\x03", b"R\xff\xff\xff\xff", b"R"] {
            assert!(size(header).is_err(), "{header:?}");
        }
    }

    #[test]
    fn the_startup_message_is_as_documented() {
        assert_eq!(startup("lb"), b"\0\0\0\x11\0\x03\0\0user\0lb\0\0");
    }
}
