//! `{ redis = true }`: `PING` (RESP2, redis.io/docs/reference/protocol-spec).
//!
//! Passes: `+PONG`, and the two errors by which a server that works asks for a login (`-NOAUTH`, `-NOPERM`). All else
//! fails with the server's own words, such as `-LOADING`, `-MASTERDOWN` or `-DENIED` (protected mode).

use super::wire::Wire;
use super::{Failed, Passed, Verdict, message};

/// Longest line.
const MOST: usize = 1 << 10;

pub(super) async fn ask(wire: &mut Wire, verdict: &Verdict) -> Result<(), Failed> {
    wire.send(b"*1\r\n$4\r\nPING\r\n").await?;
    let line = loop {
        if let Some(end) = memchr::memchr(b'\n', &wire.buffer) {
            break wire.take(end + 1);
        }
        if wire.buffer.len() > MOST {
            return Err(Failed::Protocol("not an answer of Redis"));
        }
        if !wire.read().await? {
            return Err(Failed::Ended("an answer"));
        }
    };
    let passed = judge(&line)?;
    verdict.get_or_init(|| passed);
    Ok(())
}

fn judge(line: &[u8]) -> Result<Passed, Failed> {
    match line.trim_ascii_end() {
        b"+PONG" => Ok(Passed::Answer("PONG")),
        [b'-', error @ ..] => match error.split(u8::is_ascii_whitespace).next() {
            Some(b"NOAUTH" | b"NOPERM") => Ok(Passed::Answer("the server asks for a login")),
            _ => Err(Failed::Server(message(error))),
        },
        _ => Err(Failed::Protocol("not an answer of Redis")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes() {
        for (line, expected) in [
            ("+PONG\r\n", "PONG"),
            (
                "-NOAUTH Authentication required.\r\n",
                "the server asks for a login",
            ),
            (
                "-NOPERM this user has no permissions to run the 'ping' command\r\n",
                "the server asks for a login",
            ),
        ] {
            assert_eq!(judge(line.as_bytes()).unwrap().to_string(), expected);
        }
        for (line, expected) in [
            (
                "-LOADING Redis is loading the dataset in memory\r\n",
                "the server says: LOADING Redis is loading the dataset in memory",
            ),
            ("-NOAUTHX\r\n", "the server says: NOAUTHX"),
            ("+OK\r\n", "not an answer of Redis"),
            ("HTTP/1.1 400 Bad Request\r\n", "not an answer of Redis"),
            ("\n", "not an answer of Redis"),
        ] {
            assert_eq!(judge(line.as_bytes()).unwrap_err().to_string(), expected);
        }
    }
}
