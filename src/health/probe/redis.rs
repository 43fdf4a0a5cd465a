//! `{ redis = true }`: `PING` (RESP2, redis.io/docs/reference/protocol-spec).
//!
//! `+PONG` passes, and so do the two errors with which a working server requests a login (`-NOAUTH`, `-NOPERM`). Any
//! other error fails with the server's message, such as `-LOADING`, `-MASTERDOWN` or `-DENIED` (protected mode).

use super::connection::ProbeConnection;
use super::{ProbeFailure, ProbeSuccess, SuccessCell, message};

/// Most bytes of a line.
const MAX_LINE: usize = 1 << 10;

pub(super) async fn ask(
    connection: &mut ProbeConnection,
    success: &SuccessCell,
) -> Result<(), ProbeFailure> {
    connection.send(b"*1\r\n$4\r\nPING\r\n").await?;
    let line = loop {
        if let Some(end) = memchr::memchr(b'\n', &connection.buffer) {
            break connection.take(end + 1);
        }
        if connection.buffer.len() > MAX_LINE {
            return Err(ProbeFailure::Protocol("not a Redis response"));
        }
        if !connection.read().await? {
            return Err(ProbeFailure::Ended("a response"));
        }
    };
    let passed = evaluate(&line)?;
    success.get_or_init(|| passed);
    Ok(())
}

fn evaluate(line: &[u8]) -> Result<ProbeSuccess, ProbeFailure> {
    match line.trim_ascii_end() {
        b"+PONG" => Ok(ProbeSuccess::Answer("PONG")),
        [b'-', error @ ..] => match error.split(u8::is_ascii_whitespace).next() {
            Some(b"NOAUTH" | b"NOPERM") => Ok(ProbeSuccess::Answer("login requested")),
            _ => Err(ProbeFailure::Server(message(error))),
        },
        _ => Err(ProbeFailure::Protocol("not a Redis response")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_evaluated() {
        for (line, expected) in [
            ("+PONG\r\n", "PONG"),
            ("-NOAUTH Authentication required.\r\n", "login requested"),
            (
                "-NOPERM this user has no permissions to run the 'ping' command\r\n",
                "login requested",
            ),
        ] {
            assert_eq!(evaluate(line.as_bytes()).unwrap().to_string(), expected);
        }
        for (line, expected) in [
            (
                "-LOADING Redis is loading the dataset in memory\r\n",
                "server error: LOADING Redis is loading the dataset in memory",
            ),
            ("-NOAUTHX\r\n", "server error: NOAUTHX"),
            ("+OK\r\n", "not a Redis response"),
            ("HTTP/1.1 400 Bad Request\r\n", "not a Redis response"),
            ("\n", "not a Redis response"),
        ] {
            assert_eq!(evaluate(line.as_bytes()).unwrap_err().to_string(), expected);
        }
    }
}
