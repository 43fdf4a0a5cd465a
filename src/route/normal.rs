//! The normal forms of a path: what a backend may normalize it to before it uses it.
//!
//! A request is matched and forwarded as it was received. If a rule restricts a path (`/admin/*`), a path that a
//! backend normalizes to that one (`/x/../admin/`, `/%61dmin/`, `//admin/`) would bypass the rule. No backend applies
//! every normalization: each applies some and not the others. So the table looks up every normal form, which is the
//! path with any subset of these features normalized, as far as they occur in it:
//!
//! | feature | normalization |
//! |---|---|
//! | `%2F` | becomes `/` |
//! | `%5C` | becomes `\` |
//! | `\` | becomes `/` |
//! | `%3B` | becomes `;` |
//! | `;v=1` | parameters are stripped from every segment, including the `;` |
//! | `%61` | an escaped unreserved character becomes that character (RFC 3986 6.2.2.2) |
//! | `%3a`, `%e9` | any other escaped visible character becomes that character, and other escapes upper case (6.2.2.1) |
//! | `.`, `..` | dot segments are resolved (5.2.4), before or after runs of `/` are merged |
//! | `//` | runs of `/` are merged |
//!
//! If one of them matches another rule than the path itself, which rule applies would depend on the backend. Some
//! combinations have too many meanings to enumerate and are always ambiguous: a dot segment (also an encoded one) with
//! `%2F`, `%5C`, `\` or parameters; parameters that contain `%2F`, `%5C` or `\`; and `;` with `%3B`. Tomcat, Undertow
//! and Jetty strip parameters up to the next `/` of the path as received and decode afterwards, others decode first;
//! without those combinations the results are the same. Some differences are not covered, since no rule on paths can
//! know them: the case of letters, a second decoding (`%2561`), escaped `?` and `#`, and whether a trailing `/`
//! matters.
//!
//! An ordinary path costs one look at each byte and no memory. A path with n features costs 2^n times its length; above
//! [`WORK`] it is ambiguous, so that it costs no more than a long ordinary one. The table limits the cost of looking
//! the forms up.

/// Most bytes that are read to produce every normal form of one path.
pub(super) const WORK: usize = 32 << 10;

/// A set of features, as bits.
type Features = u16;

const SLASH: Features = 1;
const ESCAPED_BACKSLASH: Features = 1 << 1;
const BACKSLASH: Features = 1 << 2;
const ESCAPED_SEMICOLON: Features = 1 << 3;
const PARAMETERS: Features = 1 << 4;
const UNRESERVED: Features = 1 << 5;
const OTHERS: Features = 1 << 6;
const DOTS: Features = 1 << 7;
const RUNS: Features = 1 << 8;

/// Not a feature: set if the order of stripping parameters and decoding matters.
const ORDER_DEPENDENT: Features = 1 << 9;

/// The features that split or hide segments; a dot segment together with one of these is ambiguous.
const SPLITTING: Features = SLASH | ESCAPED_BACKSLASH | BACKSLASH | ESCAPED_SEMICOLON | PARAMETERS;

/// Whether a path that begins with `/` may have a normal form other than itself. Looks at each byte once, without
/// branches, so that it can be vectorized.
pub(super) fn may_have_other_forms(path: &[u8]) -> bool {
    let Some((_, rest)) = path.split_first() else {
        return false;
    };
    let mut found = false;
    for (&previous, &byte) in path.iter().zip(rest) {
        found |= (byte == b'%') | (byte == b'\\') | (byte == b';');
        found |= (previous == b'/') & ((byte == b'/') | (byte == b'.'));
    }
    found
}

/// Whether `holds` is true for every other normal form of a path that begins with `/`; false for a path that is always
/// ambiguous.
pub(super) fn all_normal_forms(path: &[u8], mut holds: impl FnMut(&[u8]) -> bool) -> bool {
    let mut normalizer = Normalizer::default();
    let occurring = normalizer.features(path);
    if occurring & ORDER_DEPENDENT != 0
        || occurring & DOTS != 0 && occurring & SPLITTING != 0
        || path.len() << occurring.count_ones() > WORK
    {
        return false;
    }
    let mut chosen = occurring;
    while chosen != 0 {
        normalizer.decode(path, chosen);
        let all_hold = match (chosen & DOTS != 0, chosen & RUNS != 0) {
            (false, false) => holds(&normalizer.decoded),
            (false, true) => holds(normalizer.merged()),
            (true, false) => holds(normalizer.resolved(Slashes::Unmerged)),
            (true, true) => {
                holds(normalizer.resolved(Slashes::MergedBefore))
                    && holds(normalizer.resolved(Slashes::MergedAfter))
            }
        };
        if !all_hold {
            return false;
        }
        // The next smaller subset.
        chosen = (chosen - 1) & occurring;
    }
    true
}

/// Whether runs of slashes are merged, and whether before or after dot segments are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slashes {
    Unmerged,
    MergedBefore,
    MergedAfter,
}

/// Produces one normal form after another in buffers that it reuses.
#[derive(Debug, Default)]
struct Normalizer {
    decoded: Vec<u8>,
    out: Vec<u8>,
}

impl Normalizer {
    /// Finds the features that occur in `path`, and [`ORDER_DEPENDENT`]. Dot segments and runs of slashes count if the
    /// path has them after all other features are normalized: if any normal form has them, that one does.
    fn features(&mut self, path: &[u8]) -> Features {
        let mut found = 0;
        let (mut in_parameters, mut has_semicolon, mut is_split) = (false, false, false);
        let mut at = 0;
        while let Some(&byte) = path.get(at) {
            let features = match (byte, escaped(&path[at + 1..])) {
                (b'%', Some(code)) => {
                    at += 2;
                    feature_of(code, &path[at - 1..=at])
                }
                (b'\\', _) => BACKSLASH,
                (b';', _) => PARAMETERS,
                _ => 0,
            };
            in_parameters = byte != b'/' && (in_parameters || features & PARAMETERS != 0);
            is_split |= in_parameters && features & (SLASH | BACKSLASH) != 0;
            has_semicolon |= byte == b';';
            found |= features;
            at += 1;
        }
        if is_split || has_semicolon && found & ESCAPED_SEMICOLON != 0 {
            found |= ORDER_DEPENDENT;
        }
        let mut decoded = path;
        if found != 0 {
            self.decode(path, found);
            decoded = &self.decoded;
        }
        let is_dots = |segment: &[u8]| matches!(segment, b"." | b"..");
        if decoded.split(|&byte| byte == b'/').any(is_dots) {
            found |= DOTS;
        }
        if memchr::memmem::find(decoded, b"//").is_some() {
            found |= RUNS;
        }
        found
    }

    /// Normalizes the chosen features, except dot segments and runs of slashes. Bytes between two special ones are
    /// copied at once.
    fn decode(&mut self, path: &[u8], chosen: Features) {
        let out = &mut self.decoded;
        out.clear();
        let mut in_parameters = false;
        let mut rest = path;
        loop {
            let end = if in_parameters { b'/' } else { b';' };
            let run = memchr::memchr3(b'%', b'\\', end, rest).unwrap_or(rest.len());
            if !in_parameters {
                out.extend_from_slice(&rest[..run]);
            }
            let Some((&special, tail)) = rest[run..].split_first() else {
                return;
            };
            rest = tail;
            let mut byte = special;
            if special == b'%' {
                let (escape, code) = escape(tail, chosen);
                rest = &tail[escape.len..];
                match code {
                    Some(code) => byte = code,
                    None => {
                        if !in_parameters {
                            out.push(b'%');
                            out.extend_from_slice(&escape.digits[..escape.len]);
                        }
                        continue;
                    }
                }
            }
            if byte == b'\\' && chosen & BACKSLASH != 0 {
                byte = b'/';
            }
            match byte {
                b';' if chosen & PARAMETERS != 0 => in_parameters = true,
                b'/' => in_parameters = false,
                _ => {}
            }
            if !in_parameters {
                out.push(byte);
            }
        }
    }

    /// The decoded path with runs of slashes merged.
    fn merged(&mut self) -> &[u8] {
        self.out.clear();
        self.out.extend_from_slice(&self.decoded);
        merge(&mut self.out);
        &self.out
    }

    /// The decoded path with dot segments resolved.
    fn resolved(&mut self, slashes: Slashes) -> &[u8] {
        let out = &mut self.out;
        out.clear();
        let mut segments = self.decoded.split(|&byte| byte == b'/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            let is_last = segments.peek().is_none();
            match segment {
                b"." if is_last => out.push(b'/'),
                b"." => {}
                b".." => {
                    out.truncate(out.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
                    if is_last {
                        out.push(b'/');
                    }
                }
                b"" if slashes == Slashes::MergedBefore && !is_last => {}
                _ => {
                    out.push(b'/');
                    out.extend_from_slice(segment);
                }
            }
        }
        if slashes == Slashes::MergedAfter {
            merge(out);
        }
        out
    }
}

fn merge(text: &mut Vec<u8>) {
    text.dedup_by(|byte, previous| *byte == b'/' && *previous == b'/');
}

/// The two digits of an escape; none (`len` 0) if a `%` does not begin one.
struct Digits {
    digits: [u8; 2],
    len: usize,
}

/// Reads the escape after a `%`: its digits as they are written, and the byte that it becomes if that is chosen.
fn escape(tail: &[u8], chosen: Features) -> (Digits, Option<u8>) {
    let (Some(code), Some(&digits)) = (escaped(tail), tail.first_chunk()) else {
        let digits = [0; 2];
        return (Digits { digits, len: 0 }, None);
    };
    let mut found = Digits { digits, len: 2 };
    let is_chosen = feature_of(code, &digits) & chosen & !BACKSLASH & !PARAMETERS != 0;
    if is_chosen && !may_be_decoded(code) {
        found.digits.make_ascii_uppercase();
    }
    (
        found,
        Some(code).filter(|code| is_chosen && may_be_decoded(*code)),
    )
}

/// The features of an escape of `code` with these digits; 0 if no normalization changes it.
fn feature_of(code: u8, digits: &[u8]) -> Features {
    match code {
        b'/' => SLASH,
        b'\\' => ESCAPED_BACKSLASH | BACKSLASH,
        b';' => ESCAPED_SEMICOLON | PARAMETERS,
        _ if is_unreserved(code) => UNRESERVED,
        _ if may_be_decoded(code) || digits.iter().any(u8::is_ascii_lowercase) => OTHERS,
        _ => 0,
    }
}

/// Whether some backends decode an escape of this byte, and a rule may contain the byte.
fn may_be_decoded(code: u8) -> bool {
    code.is_ascii_graphic() && !matches!(code, b'%' | b'?' | b'#')
}

/// The byte that two hexadecimal digits at the start of `text` encode.
fn escaped(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests;
