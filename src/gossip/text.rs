//! How keys and tokens are written for people: one line, `<kind>-<version>.<base64url>`; and the 32 secret bytes that
//! most of them hold.
//!
//! The prefix says what a line is: it shows a key that was given in place of a token, and lets a scanner find leaked
//! secrets. Base64 is RFC 4648 section 5 without padding, and strict: each value has exactly one text. It is decoded
//! and encoded in constant time. Errors never show any part of what was read.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use base64ct::{Base64UrlUnpadded, Encoding};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// Length of a key and of a seed, bytes.
pub(crate) const SECRET_LEN: usize = 32;
/// Prefix of a gossip key.
pub(super) const KEY: &str = "lbproxy-key-1.";
/// Prefix of an operator's private key.
pub(super) const OPERATOR: &str = "lbproxy-operator-1.";
/// Prefix of an operator's public key, which is not a secret.
pub(super) const OPERATOR_PUBLIC: &str = "lbproxy-operator-public-1.";
/// Prefix of an agent's credential.
pub(super) const TOKEN: &str = "lbproxy-token-1.";

/// Prefixes of what nobody may see.
const SECRETS: [&str; 3] = [KEY, OPERATOR, TOKEN];
/// Shown in place of a secret, after its prefix.
pub(crate) const REDACTED: char = '…';

/// Why a text is not the key or token that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TextError {
    /// It holds nothing but white space.
    #[error("it is empty; expected one line that begins with `{0}`")]
    Empty(&'static str),
    /// More than one line holds something.
    #[error("it has more than one line; expected one that begins with `{0}`")]
    Lines(&'static str),
    /// It is something else, or a later version of the same.
    #[error("it does not begin with `{0}`")]
    Prefix(&'static str),
    /// It holds a character that base64url does not have, or padding, or ends in the middle of a byte.
    #[error("what follows `{0}` is not base64url without padding")]
    Base64(&'static str),
    /// It is too short or too long.
    #[error("what follows `{prefix}` is {found} bytes long, not {expected}")]
    Length {
        /// What it begins with.
        prefix: &'static str,
        /// Bytes after decoding.
        found: usize,
        /// Bytes that it should have.
        expected: usize,
    },
}

/// Whether a text holds a secret, for example a key that was given in place of the path of its file. Such a text must
/// not be shown.
pub(crate) fn holds_secret(text: &str) -> bool {
    SECRETS.iter().any(|kind| text.contains(kind))
}

/// Finds the secret parts of a text: what follows a prefix, to the end of the word. A word ends at white space, a
/// quotation mark, a comma or a closing bracket, so a mistyped key still counts as one.
pub(crate) fn secrets(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = &text[from..];
            let begins = |kind: &&str| rest.find(*kind).map(|at| from + at + kind.len());
            let start = SECRETS.iter().filter_map(begins).min()?;
            let ends =
                |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | ']' | ')');
            from = text[start..].find(ends).map_or(text.len(), |at| start + at);
            if start < from {
                return Some(start..from);
            }
        }
    })
}

/// The text as it may be shown: only the prefix of a secret is left, as in `lbproxy-key-1.…`.
pub(crate) fn redacted(text: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut at = 0;
    for secret in secrets(text) {
        shown.push_str(&text[at..secret.start]);
        shown.push(REDACTED);
        at = secret.end;
    }
    match at {
        0 => Cow::Borrowed(text),
        _ => Cow::Owned(shown + &text[at..]),
    }
}

/// Decodes what follows the prefix in a text of one line; white space around the line is ignored.
pub(super) fn read(text: &str, prefix: &'static str) -> Result<Zeroizing<Vec<u8>>, TextError> {
    let line = text.trim();
    if line.is_empty() {
        return Err(TextError::Empty(prefix));
    }
    if line.contains(['\n', '\r']) {
        return Err(TextError::Lines(prefix));
    }
    let encoded = line.strip_prefix(prefix).ok_or(TextError::Prefix(prefix))?;
    let decoded = Base64UrlUnpadded::decode_vec(encoded);
    decoded
        .map(Zeroizing::new)
        .map_err(|_| TextError::Base64(prefix))
}

/// As [`read`], for exactly 32 bytes.
pub(super) fn read_32(text: &str, prefix: &'static str) -> Result<[u8; SECRET_LEN], TextError> {
    let bytes = read(text, prefix)?;
    bytes.as_slice().try_into().map_err(|_| TextError::Length {
        prefix,
        found: bytes.len(),
        expected: SECRET_LEN,
    })
}

/// The reverse of [`read`], without a line end.
pub(super) fn write(prefix: &str, bytes: &[u8]) -> String {
    prefix.to_owned() + &Base64UrlUnpadded::encode_string(bytes)
}

/// 32 bytes that nobody else may know: not shown by `Debug`, and zeroed when dropped. Copies that the compiler made, or
/// the buffer of the reader, are out of reach.
#[derive(Clone)]
pub(super) struct Secret(pub(super) [u8; SECRET_LEN]);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PREFIX: &str = "thing-1.";

    fn decoded(text: &str) -> Option<Vec<u8>> {
        read(&format!("{PREFIX}{text}"), PREFIX)
            .ok()
            .map(|bytes| bytes.to_vec())
    }

    #[test]
    fn the_vectors_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(write(PREFIX, bytes.as_bytes()), format!("{PREFIX}{text}"));
            assert_eq!(decoded(text), Some(bytes.into()), "{text}");
        }
        assert_eq!(write("", &[0xfb, 0xff, 0xfe]), "-__-");
    }

    #[test]
    fn one_value_has_one_text() {
        for text in [
            "Z", "Zg==", "Zg=", "Zh", "Zm9", "Zm9vZ", "Z g", "Zm+v", "Zm/v", "Zmé", "Zm9v\0",
        ] {
            assert_eq!(decoded(text), None, "{text:?}");
        }
    }

    #[test]
    fn texts_that_are_not_a_line_of_this_kind() {
        for (text, error) in [
            ("", TextError::Empty(PREFIX)),
            (" \r\n\t", TextError::Empty(PREFIX)),
            ("thing-1.Zg\nthing-1.Zg", TextError::Lines(PREFIX)),
            ("thing-1.Zg\rx", TextError::Lines(PREFIX)),
            ("thing-2.Zg", TextError::Prefix(PREFIX)),
            ("Zg", TextError::Prefix(PREFIX)),
            ("thing-1", TextError::Prefix(PREFIX)),
            ("thing-1.Zg==", TextError::Base64(PREFIX)),
            ("thing-1. Zg", TextError::Base64(PREFIX)),
        ] {
            assert_eq!(read(text, PREFIX).unwrap_err(), error, "{text:?}");
        }
        let read_back = read("\n thing-1.Zg\r\n", PREFIX).unwrap();
        assert_eq!(*read_back, b"f");
        let length = |found| TextError::Length {
            prefix: PREFIX,
            found,
            expected: 32,
        };
        for found in [0, 31, 33] {
            let text = write(PREFIX, &vec![7; found]);
            assert_eq!(read_32(&text, PREFIX), Err(length(found)));
        }
        assert_eq!(read_32(&write(PREFIX, &[7; 32]), PREFIX), Ok([7; 32]));
    }

    #[test]
    fn a_secret_is_not_shown() {
        for (text, secret) in [
            ("/etc/lbproxy/gossip-1.key", false),
            ("lbproxy-operator-public-1.AAAA", false),
            ("x lbproxy-operator-1.AAAA", true),
            ("lbproxy-key-1.", true),
            ("lbproxy-token-1.AAAA", true),
        ] {
            assert_eq!(holds_secret(text), secret, "{text}");
        }
        assert_eq!(format!("{:?}", Secret([7; 32])), "(secret)");
        for (text, shown) in [
            ("no key", "no key"),
            ("", ""),
            (
                "begins with `lbproxy-key-1.`",
                "begins with `lbproxy-key-1.`",
            ),
            ("lbproxy-key-1.AAAA", "lbproxy-key-1.…"),
            (
                "[\"lbproxy-key-1.AA+é=\", 'lbproxy-token-1.B-_B'] # lbproxy-operator-1.CC it is",
                "[\"lbproxy-key-1.…\", 'lbproxy-token-1.…'] # lbproxy-operator-1.… it is",
            ),
            (
                "lbproxy-key-1. lbproxy-key-1.A",
                "lbproxy-key-1. lbproxy-key-1.…",
            ),
            ("lbproxy-key-1.lbproxy-key-1.A,B", "lbproxy-key-1.…,B"),
            (
                "lbproxy-operator-public-1.AAAA",
                "lbproxy-operator-public-1.AAAA",
            ),
        ] {
            assert_eq!(redacted(text), shown, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(&*read(&write(PREFIX, &bytes), PREFIX).unwrap(), &bytes);
        }

        #[test]
        fn what_is_read_would_be_written_so(text in "[A-Za-z0-9_-]{0,12}") {
            if let Some(bytes) = decoded(&text) {
                prop_assert_eq!(write("", &bytes), text);
            }
        }
    }
}
