//! The field names that matter to a proxy, and the byte classes of a head.

use super::claims::{Claim, claim};

/// A field name, as far as it matters to a proxy.
///
/// Fields are recognized by their exact name, in any case. Where another spelling of a name is dangerous, the name is
/// also recognized with any other token character in place of `-`: a backend that turns it into an environment variable
/// or an identifier has `_` there. Such a lookalike is never treated as the field itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldName {
    /// Connection.
    Connection,
    /// Content-Length.
    ContentLength,
    /// Expect.
    Expect,
    /// Host.
    Host,
    /// Keep-Alive.
    KeepAlive,
    /// Any other field that applies to one hop only: Proxy-Connection, Proxy-Authenticate, Proxy-Authorization, TE,
    /// HTTP2-Settings. Also Proxy, which no honest sender uses (CVE-2016-5385).
    HopByHop,
    /// Transfer-Encoding.
    TransferEncoding,
    /// Upgrade.
    Upgrade,
    /// X-Forwarded-For.
    ForwardedFor,
    /// X-Forwarded-Proto.
    ForwardedProto,
    /// X-Forwarded-Host.
    ForwardedHost,
    /// X-Request-Id.
    RequestId,
    /// Any other field that makes claims about the client or overrides the request: Forwarded, X-Forwarded-*, and the
    /// list in `claims`.
    OtherForwarding,
    /// Content-Length or Transfer-Encoding with another character in place of `-`: framing to some, not to others.
    FramingLookalike,
    /// A forwarding field with another character in place of `-`, which no proxy sends.
    ForwardingLookalike,
    /// X-Lbproxy-Hop: the processes that the request has passed through. Read from any sender, and written again.
    Hop,
    /// X-Lbproxy-*: fields that only the proxy itself may set.
    ProxyInternal,
    /// Any other field.
    Other,
}

impl FieldName {
    /// Recognizes `name`, in any case. Its length and first letter leave hardly anything to compare.
    pub fn of(name: &[u8]) -> Self {
        let Some(first) = name.first() else {
            return Self::Other;
        };
        match (name.len(), first.to_ascii_lowercase()) {
            (2, b't') if is(name, b"te") => Self::HopByHop,
            (4, b'h') if is(name, b"host") => Self::Host,
            (5, b'p') if is(name, b"proxy") => Self::HopByHop,
            (6, b'e') if is(name, b"expect") => Self::Expect,
            (7, b'u') if is(name, b"upgrade") => Self::Upgrade,
            (9, b'f') if is(name, b"forwarded") => Self::OtherForwarding,
            (10, b'c') if is(name, b"connection") => Self::Connection,
            (10, b'k') if is(name, b"keep-alive") => Self::KeepAlive,
            (12, b'x') if folds(name, b"x-request-id") => Self::RequestId.unless_lookalike(name),
            (14, b'c') if is(name, b"content-length") => Self::ContentLength,
            (14, b'c') if folds(name, b"content-length") => Self::FramingLookalike,
            (14, b'h') if is(name, b"http2-settings") => Self::HopByHop,
            (16, b'p') if is(name, b"proxy-connection") => Self::HopByHop,
            (17, b't') if is(name, b"transfer-encoding") => Self::TransferEncoding,
            (17, b't') if folds(name, b"transfer-encoding") => Self::FramingLookalike,
            (18, b'p') if is(name, b"proxy-authenticate") => Self::HopByHop,
            (19, b'p') if is(name, b"proxy-authorization") => Self::HopByHop,
            (13, b'x') if is(name, b"x-lbproxy-hop") => Self::Hop,
            (11.., b'x') if folds(&name[..10], b"x-lbproxy-") => Self::ProxyInternal,
            (13.., b'x') if folds(&name[..12], b"x-forwarded-") => match name.len() {
                15 if folds(name, b"x-forwarded-for") => Self::ForwardedFor,
                16 if folds(name, b"x-forwarded-host") => Self::ForwardedHost,
                17 if folds(name, b"x-forwarded-proto") => Self::ForwardedProto,
                _ => Self::OtherForwarding,
            }
            .unless_lookalike(name),
            _ => match claim(name) {
                None => Self::Other,
                Some(Claim::Known) => Self::OtherForwarding,
                Some(Claim::Lookalike) => Self::ForwardingLookalike,
            },
        }
    }

    /// Returns itself if `name` has no separator but `-`, and the lookalike otherwise.
    fn unless_lookalike(self, name: &[u8]) -> Self {
        if name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-') {
            self
        } else {
            Self::ForwardingLookalike
        }
    }
}

/// What to do with a trailer field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrailerAction {
    /// Forward the field.
    Forward,
    /// Drop the field: authentication, request modifiers, response control, content format, hop-by-hop fields, and
    /// claims about the client (RFC 9110 6.5.1). A recipient might merge it into the head.
    Drop,
    /// Refuse the message: the field would frame or route it.
    Refuse,
}

/// Decides what to do with the trailer field `name`.
pub(crate) fn trailer_action(name: &[u8]) -> TrailerAction {
    const DROPPED: [&[u8]; 24] = [
        b"age",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"cookie",
        b"date",
        b"expires",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"location",
        b"max-forwards",
        b"pragma",
        b"range",
        b"retry-after",
        b"set-cookie",
        b"trailer",
        b"vary",
        b"warning",
        b"www-authenticate",
    ];
    match FieldName::of(name) {
        FieldName::ContentLength
        | FieldName::TransferEncoding
        | FieldName::FramingLookalike
        | FieldName::Host => TrailerAction::Refuse,
        FieldName::Other if !DROPPED.iter().any(|dropped| folds(name, dropped)) => {
            TrailerAction::Forward
        }
        _ => TrailerAction::Drop,
    }
}

fn is(name: &[u8], lower: &[u8]) -> bool {
    name.eq_ignore_ascii_case(lower)
}

/// Whether the names are equal, ignoring case and which token character stands for `-`.
fn folds(name: &[u8], lower: &[u8]) -> bool {
    let fold = |b: &u8| {
        if b.is_ascii_alphanumeric() {
            b.to_ascii_lowercase()
        } else {
            b'-'
        }
    };
    name.len() == lower.len() && name.iter().zip(lower).all(|(a, b)| fold(a) == *b)
}

/// Whether `b` is a `tchar` (RFC 9110 5.6.2).
pub(crate) const fn is_token_byte(b: u8) -> bool {
    matches!(b, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+'
        | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// Whether `b` may be in a field value or a reason phrase (RFC 9110 5.5): HTAB, SP, VCHAR, obs-text.
pub(crate) const fn is_value_byte(b: u8) -> bool {
    b == b'\t' || (b >= 0x20 && b != 0x7f)
}

/// Whether `b` may be in a request target: visible ASCII except `#`, which would begin a fragment. Wider than RFC 3986,
/// because browsers send `|`, `^`, `{` and `}` unencoded.
pub(crate) const fn is_target_byte(b: u8) -> bool {
    matches!(b, 0x21..=0x7e) && b != b'#'
}

/// Builds the lookup table of a byte class: 0 for tokens, 1 for values, 2 for targets.
pub(super) const fn table(class: u8) -> [bool; 256] {
    let mut out = [false; 256];
    let mut i = 0;
    while i < 256 {
        out[i] = match class {
            0 => is_token_byte(i as u8),
            1 => is_value_byte(i as u8),
            _ => is_target_byte(i as u8),
        };
        i += 1;
    }
    out
}

/// [`is_token_byte`] as a table.
pub(super) static TOKEN: [bool; 256] = table(0);
/// [`is_value_byte`] as a table.
pub(super) static VALUE: [bool; 256] = table(1);
/// [`is_target_byte`] as a table.
pub(super) static TARGET: [bool; 256] = table(2);

/// Counts the bytes at the start of `buffer` that may be in a field value, eight at a time.
pub(super) fn value_run(buffer: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let mut at = 0;
    while let Some(eight) = buffer[at..].first_chunk() {
        let word = u64::from_le_bytes(*eight);
        // A byte below 0x20 borrows into its own top bit, and so does DEL once it is turned into 0 (S. E. Anderson,
        // "Bit Twiddling Hacks": a zero or a lesser byte in a word). Above the first hit there may be false hits.
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let del = word ^ (ONES * 0x7f);
        let hits = (control | del.wrapping_sub(ONES) & !del) & HIGH;
        if hits != 0 {
            at += hits.trailing_zeros() as usize / 8;
            break;
        }
        at += 8;
    }
    // The rest is shorter than eight bytes or begins with a control character, which a tab is not.
    while at < buffer.len() && VALUE[usize::from(buffer[at])] {
        at += 1;
    }
    at
}

/// The elements of a comma-separated list (RFC 9110 5.6.1), without surrounding white space; empty ones are skipped.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|b| *b == b',')
        .map(trim)
        .filter(|element| !element.is_empty())
}

/// Removes SP and HTAB from both ends.
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_recognized_in_any_case() {
        for (name, known) in [
            ("Host", FieldName::Host),
            ("hOST", FieldName::Host),
            ("Transfer-Encoding", FieldName::TransferEncoding),
            ("Transfer_Encoding", FieldName::FramingLookalike),
            ("content.length", FieldName::FramingLookalike),
            ("X-LBProxy-Canary", FieldName::ProxyInternal),
            ("x_lbproxy.a", FieldName::ProxyInternal),
            ("X-LBProxy-Hop", FieldName::Hop),
            ("x-lbproxy_hop", FieldName::ProxyInternal),
            ("x-lbproxy-", FieldName::Other),
            ("X.Forwarded~For", FieldName::ForwardingLookalike),
            ("X-Forwarded-For", FieldName::ForwardedFor),
            ("X_Forwarded_For", FieldName::ForwardingLookalike),
            ("x-forwarded-port", FieldName::OtherForwarding),
            ("x_forwarded-x", FieldName::ForwardingLookalike),
            ("x-forwarded-a_b", FieldName::ForwardingLookalike),
            ("x-forwarded-", FieldName::Other),
            ("X-Real-IP", FieldName::OtherForwarding),
            ("X-Real_IP", FieldName::ForwardingLookalike),
            ("x-request.id", FieldName::ForwardingLookalike),
            ("X-Original-URL", FieldName::OtherForwarding),
            ("X_Original_URL", FieldName::ForwardingLookalike),
            ("x-client-cert-subject", FieldName::OtherForwarding),
            ("SSL_CLIENT_CERT", FieldName::OtherForwarding),
            ("Proxy", FieldName::HopByHop),
            ("Proxy-Client-IP", FieldName::OtherForwarding),
            ("TE", FieldName::HopByHop),
            ("Cookie", FieldName::Other),
        ] {
            assert_eq!(FieldName::of(name.as_bytes()), known, "{name}");
        }
    }

    #[test]
    fn a_run_of_value_bytes_ends_at_the_first_other_byte() {
        let good: Vec<u8> = (0..=255).filter(|b| is_value_byte(*b)).collect();
        assert_eq!(value_run(&good), good.len());
        for bad in (0..=255).filter(|b| !is_value_byte(*b)) {
            for at in 0..20 {
                let mut text = vec![b'\t'; 3];
                text.resize(at + 3, b'\xff');
                text.push(bad);
                text.extend_from_slice(b"\0\x7f\n and more");
                assert_eq!(value_run(&text), at + 3, "{bad} at {at}");
            }
        }
    }

    #[test]
    fn lists_are_split_and_trimmed() {
        let elements: Vec<&[u8]> = list(b" close ,,\tUpgrade\t, ").collect();
        assert_eq!(elements, [b"close".as_slice(), b"Upgrade"]);
    }
}
