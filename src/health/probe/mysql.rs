//! `{ mysql = "user" }`: a login without a password (MySQL documentation, "Client/Server Protocol", connection phase),
//! carried to its end, since a server blocks hosts that break off too many of them (`max_connect_errors`).
//!
//! Passes: a login that succeeds, and the errors by which a server that works refuses it: SQLSTATE class 28 (1045 and
//! 1698, access denied), 1251 (another way to log in is needed) and 3159 (TLS is needed). All else fails with the
//! server's own words, such as 1040 (too many connections), 1129 (this host is blocked) or 1130 (this host may not
//! connect).

use super::wire::Wire;
use super::{Failed, Passed, Verdict, message};

/// Largest packet that is read.
const MOST: usize = 16 << 10;
/// Packets of one login.
const PACKETS: u32 = 8;
const WHAT: Failed = Failed::Protocol("not an answer of MySQL");

const LONG_PASSWORD: u32 = 1;
const PROTOCOL_41: u32 = 0x200;
const SECURE_CONNECTION: u32 = 0x8000;
const PLUGIN_AUTH: u32 = 0x8_0000;

pub(super) async fn ask(wire: &mut Wire, user: &str, verdict: &Verdict) -> Result<(), Failed> {
    let (_, greeting) = packet(wire).await?;
    let login = login(&greeting, user)?;
    wire.send(&framed(1, &login)).await?;
    for _ in 0..PACKETS {
        let (sequence, answer) = packet(wire).await?;
        match judge(&answer)? {
            Step::In => {
                verdict.get_or_init(|| Passed::Answer("the server lets in"));
                // COM_QUIT.
                if wire.send(&framed(0, &[1])).await.is_ok() {
                    wire.drain(MOST).await;
                }
                return Ok(());
            }
            Step::Refused => {
                verdict.get_or_init(|| Passed::Answer("the server refuses this user"));
                wire.drain(MOST).await;
                return Ok(());
            }
            // Another method, or more of this one: there is no password for it either.
            Step::Empty => wire.send(&framed(sequence.wrapping_add(1), &[])).await?,
        }
    }
    Err(WHAT)
}

/// Reads one packet: its sequence number and its payload.
async fn packet(wire: &mut Wire) -> Result<(u8, Vec<u8>), Failed> {
    wire.fill(4, "an answer").await?;
    let header = wire.take(4);
    let length = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
    if !(1..=MOST).contains(&length) {
        return Err(WHAT);
    }
    wire.fill(length, "the end of its answer").await?;
    Ok((header[3], wire.take(length)))
}

fn framed(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let [a, b, c, _] = (payload.len() as u32).to_le_bytes();
    let mut packet = vec![a, b, c, sequence];
    packet.extend_from_slice(payload);
    packet
}

/// The answer to the server's greeting, which is its version 10.
fn login(greeting: &[u8], user: &str) -> Result<Vec<u8>, Failed> {
    let rest = match greeting {
        [0xff, error @ ..] => return Err(server(error)),
        [10, rest @ ..] => rest,
        _ => return Err(WHAT),
    };
    let version = memchr::memchr(0, rest).ok_or(WHAT)?;
    // Behind the version: thread (4), challenge (8), filler, capabilities (2), charset, status (2), capabilities (2),
    // length of the challenge, reserved (10), the rest of the challenge, the name of the method.
    let rest = &rest[version + 1..];
    let fixed: &[u8; 31] = rest.first_chunk().ok_or(WHAT)?;
    let capabilities = u32::from_le_bytes([fixed[13], fixed[14], fixed[18], fixed[19]]);
    if capabilities & PROTOCOL_41 == 0 {
        return Err(Failed::Protocol("a MySQL server older than version 4.1"));
    }
    let challenge = usize::from(fixed[20]).saturating_sub(8).max(13);
    let method = rest.get(31 + challenge..).unwrap_or_default();
    let method = method.split(|byte| *byte == 0).next().unwrap_or_default();
    let with_method = capabilities & PLUGIN_AUTH != 0 && !method.is_empty();
    let mut flags = LONG_PASSWORD | PROTOCOL_41 | SECURE_CONNECTION;
    if with_method {
        flags |= PLUGIN_AUTH;
    }
    let mut login = flags.to_le_bytes().to_vec();
    login.extend((MOST as u32).to_le_bytes());
    // utf8.
    login.push(33);
    login.extend([0; 23]);
    login.extend(user.as_bytes());
    login.push(0);
    // An empty answer to the challenge.
    login.push(0);
    if with_method {
        login.extend(method);
        login.push(0);
    }
    Ok(login)
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    In,
    Refused,
    Empty,
}

fn judge(answer: &[u8]) -> Result<Step, Failed> {
    match answer {
        [0, ..] => Ok(Step::In),
        [0xfe | 1, ..] => Ok(Step::Empty),
        [0xff, error @ ..] => {
            let (code, state, _) = parts(error);
            if state.starts_with(b"28") || matches!(code, 1251 | 3159) {
                Ok(Step::Refused)
            } else {
                Err(server(error))
            }
        }
        _ => Err(WHAT),
    }
}

/// Code, SQLSTATE (empty before the login) and text of an error.
fn parts(error: &[u8]) -> (u16, &[u8], &[u8]) {
    match error {
        [a, b, b'#', rest @ ..] if rest.len() >= 5 => {
            (u16::from_le_bytes([*a, *b]), &rest[..5], &rest[5..])
        }
        [a, b, text @ ..] => (u16::from_le_bytes([*a, *b]), &[], text),
        _ => (0, &[], &[]),
    }
}

fn server(error: &[u8]) -> Failed {
    let (code, _, text) = parts(error);
    Failed::Server(message(&[format!("{code} ").as_bytes(), text].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(capabilities: u32, method: &[u8]) -> Vec<u8> {
        let [a, b, c, d] = capabilities.to_le_bytes();
        let mut greeting = b"\x0a8.0.1\0".to_vec();
        greeting.extend([0; 4 + 8 + 1]);
        greeting.extend([a, b, 33, 2, 0, c, d, 21]);
        greeting.extend([0; 10 + 13]);
        greeting.extend(method);
        greeting
    }

    #[test]
    fn the_login_names_the_servers_own_method() {
        let login = login(
            &greeting(PROTOCOL_41 | PLUGIN_AUTH, b"caching_sha2_password\0"),
            "lb",
        )
        .unwrap();
        let flags = u32::from_le_bytes(*login.first_chunk().unwrap());
        assert_eq!(
            flags,
            LONG_PASSWORD | PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH
        );
        assert_eq!(&login[32..], b"lb\0\0caching_sha2_password\0");
        let without = super::login(&greeting(PROTOCOL_41, b""), "lb").unwrap();
        assert_eq!(&without[32..], b"lb\0\0");
    }

    #[test]
    fn greetings_that_are_none() {
        let whole = greeting(PROTOCOL_41 | PLUGIN_AUTH, b"x\0");
        for cut in 0..38 {
            assert!(login(&whole[..cut], "lb").is_err(), "{cut}");
        }
        for (greeting, expected) in [
            (&b"HTTP/1.1 400"[..], "not an answer of MySQL"),
            (
                b"\xff\x10\x04Too many connections",
                "the server says: 1040 Too many connections",
            ),
            (b"\xff", "the server says: 0 "),
        ] {
            assert_eq!(login(greeting, "lb").unwrap_err().to_string(), expected);
        }
        assert!(login(&greeting(0, b""), "lb").is_err());
    }

    #[test]
    fn what_passes() {
        for (answer, expected) in [
            (&b"\0\0\0\x02\0\0\0"[..], Step::In),
            (b"\xfemysql_native_password\0", Step::Empty),
            (b"\x01\x04", Step::Empty),
            (b"\xff\x15\x04#28000Access denied", Step::Refused),
            (b"\xff\xe3\x04#08004other method", Step::Refused),
        ] {
            assert_eq!(judge(answer).unwrap(), expected, "{answer:?}");
        }
        for (answer, expected) in [
            (
                &b"\xff\x10\x04#08004Too many connections"[..],
                "the server says: 1040 Too many connections",
            ),
            (
                b"\xff\x6a\x04#HY000Host 'x' is not allowed",
                "the server says: 1130 Host 'x' is not allowed",
            ),
            (b"\x02", "not an answer of MySQL"),
            (b"", "not an answer of MySQL"),
        ] {
            assert_eq!(judge(answer).unwrap_err().to_string(), expected);
        }
    }
}
