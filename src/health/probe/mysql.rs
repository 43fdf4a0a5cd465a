//! `{ mysql = "user" }`: a login without a password (MySQL documentation, "Client/Server Protocol", connection phase).
//! It is always completed, since a server blocks hosts that abort too many logins (`max_connect_errors`).
//!
//! A login that succeeds passes, and so do the errors with which a working server refuses it: SQLSTATE class 28 (1045
//! and 1698, access denied), 1251 (another authentication method is required) and 3159 (TLS is required). Any other
//! error fails with the server's message, such as 1040 (too many connections), 1129 (this host is blocked) or 1130
//! (this host may not connect).

use super::connection::ProbeConnection;
use super::{ProbeFailure, ProbeSuccess, SuccessCell, message};

/// Largest packet that is read.
const MAX_PACKET: usize = 16 << 10;
/// Most packets of one login.
const MAX_PACKETS: u32 = 8;
const NOT_MYSQL: ProbeFailure = ProbeFailure::Protocol("not a MySQL response");

const LONG_PASSWORD: u32 = 1;
const PROTOCOL_41: u32 = 0x200;
const SECURE_CONNECTION: u32 = 0x8000;
const PLUGIN_AUTH: u32 = 0x8_0000;

pub(super) async fn ask(
    connection: &mut ProbeConnection,
    user: &str,
    success: &SuccessCell,
) -> Result<(), ProbeFailure> {
    let (_, greeting) = packet(connection).await?;
    let login = login(&greeting, user)?;
    connection.send(&frame(1, &login)).await?;
    for _ in 0..MAX_PACKETS {
        let (sequence, answer) = packet(connection).await?;
        match evaluate(&answer)? {
            LoginStep::Accepted => {
                success.get_or_init(|| ProbeSuccess::Answer("login accepted"));
                // COM_QUIT.
                if connection.send(&frame(0, &[1])).await.is_ok() {
                    connection.drain(MAX_PACKET).await;
                }
                return Ok(());
            }
            LoginStep::Refused => {
                success.get_or_init(|| ProbeSuccess::Answer("login refused for this user"));
                connection.drain(MAX_PACKET).await;
                return Ok(());
            }
            // The server wants another method, or more data: there is no password to send either way.
            LoginStep::WantsData => {
                connection
                    .send(&frame(sequence.wrapping_add(1), &[]))
                    .await?
            }
        }
    }
    Err(NOT_MYSQL)
}

/// Reads one packet; returns its sequence number and its payload.
async fn packet(connection: &mut ProbeConnection) -> Result<(u8, Vec<u8>), ProbeFailure> {
    connection.fill(4, "a response").await?;
    let header = connection.take(4);
    let length = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
    if !(1..=MAX_PACKET).contains(&length) {
        return Err(NOT_MYSQL);
    }
    connection.fill(length, "the end of the response").await?;
    Ok((header[3], connection.take(length)))
}

fn frame(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let [a, b, c, _] = (payload.len() as u32).to_le_bytes();
    let mut packet = vec![a, b, c, sequence];
    packet.extend_from_slice(payload);
    packet
}

/// Builds the login from the server's greeting (of protocol version 10).
fn login(greeting: &[u8], user: &str) -> Result<Vec<u8>, ProbeFailure> {
    let rest = match greeting {
        [0xff, error @ ..] => return Err(server_error(error)),
        [10, rest @ ..] => rest,
        _ => return Err(NOT_MYSQL),
    };
    let version = memchr::memchr(0, rest).ok_or(NOT_MYSQL)?;
    // After the version: thread (4), challenge (8), filler, capabilities (2), charset, status (2), capabilities (2),
    // length of the challenge, reserved (10), the rest of the challenge, the name of the method.
    let rest = &rest[version + 1..];
    let fixed: &[u8; 31] = rest.first_chunk().ok_or(NOT_MYSQL)?;
    let capabilities = u32::from_le_bytes([fixed[13], fixed[14], fixed[18], fixed[19]]);
    if capabilities & PROTOCOL_41 == 0 {
        return Err(ProbeFailure::Protocol(
            "MySQL server older than version 4.1",
        ));
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
    login.extend((MAX_PACKET as u32).to_le_bytes());
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

/// What the server answers during a login.
#[derive(Debug, PartialEq, Eq)]
enum LoginStep {
    Accepted,
    Refused,
    /// It wants more data, of which there is none.
    WantsData,
}

fn evaluate(answer: &[u8]) -> Result<LoginStep, ProbeFailure> {
    match answer {
        [0, ..] => Ok(LoginStep::Accepted),
        [0xfe | 1, ..] => Ok(LoginStep::WantsData),
        [0xff, error @ ..] => {
            let (code, state, _) = split_error(error);
            if state.starts_with(b"28") || matches!(code, 1251 | 3159) {
                Ok(LoginStep::Refused)
            } else {
                Err(server_error(error))
            }
        }
        _ => Err(NOT_MYSQL),
    }
}

/// Splits an error into code, SQLSTATE (empty before the login) and text.
fn split_error(error: &[u8]) -> (u16, &[u8], &[u8]) {
    match error {
        [a, b, b'#', rest @ ..] if rest.len() >= 5 => {
            (u16::from_le_bytes([*a, *b]), &rest[..5], &rest[5..])
        }
        [a, b, text @ ..] => (u16::from_le_bytes([*a, *b]), &[], text),
        _ => (0, &[], &[]),
    }
}

fn server_error(error: &[u8]) -> ProbeFailure {
    let (code, _, text) = split_error(error);
    ProbeFailure::Server(message(&[format!("{code} ").as_bytes(), text].concat()))
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
    fn malformed_greetings_fail() {
        let greeting_bytes = greeting(PROTOCOL_41 | PLUGIN_AUTH, b"x\0");
        for cut in 0..38 {
            assert!(login(&greeting_bytes[..cut], "lb").is_err(), "{cut}");
        }
        for (greeting, expected) in [
            (&b"HTTP/1.1 400"[..], "not a MySQL response"),
            (
                b"\xff\x10\x04Too many connections",
                "server error: 1040 Too many connections",
            ),
            (b"\xff", "server error: 0 "),
        ] {
            assert_eq!(login(greeting, "lb").unwrap_err().to_string(), expected);
        }
        assert!(login(&greeting(0, b""), "lb").is_err());
    }

    #[test]
    fn login_answers_are_evaluated() {
        for (answer, expected) in [
            (&b"\0\0\0\x02\0\0\0"[..], LoginStep::Accepted),
            (b"\xfemysql_native_password\0", LoginStep::WantsData),
            (b"\x01\x04", LoginStep::WantsData),
            (b"\xff\x15\x04#28000Access denied", LoginStep::Refused),
            (b"\xff\xe3\x04#08004other method", LoginStep::Refused),
        ] {
            assert_eq!(evaluate(answer).unwrap(), expected, "{answer:?}");
        }
        for (answer, expected) in [
            (
                &b"\xff\x10\x04#08004Too many connections"[..],
                "server error: 1040 Too many connections",
            ),
            (
                b"\xff\x6a\x04#HY000Host 'x' is not allowed",
                "server error: 1130 Host 'x' is not allowed",
            ),
            (b"\x02", "not a MySQL response"),
            (b"", "not a MySQL response"),
        ] {
            assert_eq!(evaluate(answer).unwrap_err().to_string(), expected);
        }
    }
}
