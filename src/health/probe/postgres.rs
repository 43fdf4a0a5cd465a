//! `{ postgres = "user" }`: a StartupMessage of protocol 3.0 (PostgreSQL documentation, chapter "Frontend/Backend
//! Protocol"), up to the point where the server has looked at it. No password is ever sent.
//!
//! Passes: any Authentication message, be it that the user is let in or that it must give a password, and an
//! ErrorResponse of SQLSTATE class 28 (not authorised: `pg_hba.conf` does not let this user in, the server is up). All
//! else fails with the server's own words, such as 57P03 (starting up, shutting down) or 53300 (too many connections).
//! A user that is let in is logged out in order.

use super::wire::Wire;
use super::{Failed, Passed, Verdict, message};

/// Largest message that is read.
const MOST: usize = 16 << 10;
/// What is read of a session that is let in, before it is ended.
const GREETING: usize = 64 << 10;
const PROTOCOL: u32 = 3 << 16;
const WHAT: Failed = Failed::Protocol("not an answer of PostgreSQL");

pub(super) async fn ask(wire: &mut Wire, user: &str, verdict: &Verdict) -> Result<(), Failed> {
    wire.send(&startup(user)).await?;
    loop {
        wire.fill(5, "an answer").await?;
        let size = size(&wire.buffer)?;
        wire.fill(size, "the end of its answer").await?;
        let message = wire.take(size);
        match judge(&message)? {
            Some((passed, let_in)) => {
                verdict.get_or_init(|| passed);
                if let_in && wire.send(b"X\0\0\0\x04").await.is_ok() {
                    wire.drain(GREETING).await;
                }
                return Ok(());
            }
            // A notice.
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

/// Bytes of the message that begins with these five.
fn size(header: &[u8]) -> Result<usize, Failed> {
    let &[_, a, b, c, d, ..] = header else {
        return Err(WHAT);
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    match length {
        4..=MOST => Ok(1 + length),
        _ => Err(WHAT),
    }
}

/// What a whole message says: passed and whether the user is in, or nothing yet.
fn judge(message: &[u8]) -> Result<Option<(Passed, bool)>, Failed> {
    match message {
        [b'R', _, _, _, _, 0, 0, 0, 0] => Ok(Some((Passed::Answer("the server lets in"), true))),
        [b'R', _, _, _, _, _, _, _, _, ..] => Ok(Some((
            Passed::Answer("the server asks for a password"),
            false,
        ))),
        [b'E', _, _, _, _, fields @ ..] => refusal(fields).map(Some),
        [b'N' | b'v', ..] => Ok(None),
        _ => Err(WHAT),
    }
}

fn refusal(fields: &[u8]) -> Result<(Passed, bool), Failed> {
    let field = |code: u8| {
        fields
            .split(|byte| *byte == 0)
            .find_map(|field| field.split_first().filter(|(first, _)| **first == code))
            .map_or(&[][..], |(_, text)| text)
    };
    let (state, text) = (field(b'C'), field(b'M'));
    if state.starts_with(b"28") {
        return Ok((Passed::Answer("the server refuses this user"), false));
    }
    Err(Failed::Server(message(
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
        match judge(message) {
            Ok(Some((passed, let_in))) => format!("{passed} {let_in}"),
            Ok(None) => "nothing".to_owned(),
            Err(failed) => failed.to_string(),
        }
    }

    #[test]
    fn what_passes() {
        for (message, expected) in [
            (frame(b'R', &[0; 4]), "the server lets in true"),
            (
                frame(b'R', &[0, 0, 0, 10, b'S']),
                "the server asks for a password false",
            ),
            (
                frame(b'E', b"SFATAL\0C28000\0Mno entry\0\0"),
                "the server refuses this user false",
            ),
            (
                frame(b'E', b"SFATAL\0VFATAL\0C57P03\0Mstarting up\0\0"),
                "the server says: 57P03 starting up",
            ),
            (frame(b'E', b""), "the server says:  "),
            (frame(b'N', b"SNOTICE\0\0"), "nothing"),
            (frame(b'R', b""), "not an answer of PostgreSQL"),
            (frame(b'Z', b"I"), "not an answer of PostgreSQL"),
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
