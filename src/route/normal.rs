//! The readings of a path: what a backend may make of it before it looks at it.
//!
//! A request is matched and forwarded as it came. If a rule fences something off by its path (`/admin/*`), a path that
//! only becomes that one behind us (`/x/../admin/`, `/%61dmin/`, `//admin/`) would go round the fence. No backend reads a
//! path as widely as can be: each takes some of what follows and leaves the rest. So the table is asked with every
//! reading, which is the path with any subset of these features resolved, as far as they occur in it:
//!
//! | feature | |
//! |---|---|
//! | `%2F` | is `/` |
//! | `%5C` | is `\` |
//! | `\` | is `/` |
//! | `%3B` | is `;` |
//! | `;v=1` | parameters are stripped from every segment, `;` included |
//! | `%61` | an escaped unreserved character is that character (RFC 3986 6.2.2.2) |
//! | `%3a`, `%e9` | any other escaped visible character is that character, and other escapes have capitals (6.2.2.1) |
//! | `.`, `..` | dot segments are resolved (5.2.4), before or after runs of `/` are merged |
//! | `//` | runs of `/` are one |
//!
//! Where one of them takes another rule than the path itself, which of them counts would be up to whoever reads it next.
//! Some have too many meanings to be played through and are ambiguous outright: a dot segment (also an encoded one) beside
//! `%2F`, `%5C`, `\` or parameters; parameters that hold `%2F`, `%5C` or `\`; and `;` beside `%3B`. Tomcat, Undertow and
//! Jetty strip parameters up to the next `/` of the path as it came and decode afterwards, others decode first: without
//! those, both come to the same. Outside stay what no rule of paths can know: the case of letters, a second decoding
//! (`%2561`), `?` and `#` behind an escape, and whether a trailing `/` counts.
//!
//! An ordinary path costs one look at each byte and no memory. One with features costs two to the power of how many
//! occur, times its length; over [`WORK`] it is ambiguous, so that reading costs no more than for a long ordinary one. The
//! table bounds what it costs to look the readings up.

/// Bytes that are read in all to look at every reading of one path.
pub(super) const WORK: usize = 32 << 10;

/// Features, as bits.
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

/// No feature: the order of stripping parameters and decoding counts.
const TORN_PARAMETERS: Features = 1 << 9;

/// What tears segments apart or hides them; a dot segment beside one of these is ambiguous.
const TEARING: Features = SLASH | ESCAPED_BACKSLASH | BACKSLASH | ESCAPED_SEMICOLON | PARAMETERS;

/// Whether another reading of a path that begins with `/` may be another text. Costs one look at each byte; without
/// branches, so that several are looked at together.
pub(super) fn may_differ(path: &[u8]) -> bool {
    let Some((_, behind)) = path.split_first() else {
        return false;
    };
    let mut odd = false;
    for (&before, &byte) in path.iter().zip(behind) {
        odd |= (byte == b'%') | (byte == b'\\') | (byte == b';');
        odd |= (before == b'/') & ((byte == b'/') | (byte == b'.'));
    }
    odd
}

/// Whether `holds` for every other reading of a path that begins with `/`; false for one that is ambiguous outright.
pub(super) fn all_readings(path: &[u8], mut holds: impl FnMut(&[u8]) -> bool) -> bool {
    let mut reading = Reading::default();
    let occurring = reading.features(path);
    if occurring & TORN_PARAMETERS != 0
        || occurring & DOTS != 0 && occurring & TEARING != 0
        || path.len() << occurring.count_ones() > WORK
    {
        return false;
    }
    let mut chosen = occurring;
    while chosen != 0 {
        reading.decode(path, chosen);
        let all_hold = match (chosen & DOTS != 0, chosen & RUNS != 0) {
            (false, false) => holds(&reading.decoded),
            (false, true) => holds(reading.merged()),
            (true, false) => holds(reading.resolved(Slashes::Kept)),
            (true, true) => {
                holds(reading.resolved(Slashes::Merged))
                    && holds(reading.resolved(Slashes::MergedAfterwards))
            }
        };
        if !all_hold {
            return false;
        }
        // The next lesser subset.
        chosen = (chosen - 1) & occurring;
    }
    true
}

/// When runs of slashes are merged, beside dot segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slashes {
    Kept,
    Merged,
    MergedAfterwards,
}

/// Room for one reading after the other.
#[derive(Debug, Default)]
struct Reading {
    decoded: Vec<u8>,
    out: Vec<u8>,
}

impl Reading {
    /// The features that occur in `path`, and [`TORN_PARAMETERS`]. Dot segments and runs of slashes count if the widest reading of all else has
    /// them: what another has, that one has too.
    fn features(&mut self, path: &[u8]) -> Features {
        let mut found = 0;
        let (mut in_parameters, mut has_semicolon, mut is_torn) = (false, false, false);
        let mut at = 0;
        while let Some(&byte) = path.get(at) {
            let brings = match (byte, escaped(&path[at + 1..])) {
                (b'%', Some(code)) => {
                    at += 2;
                    feature_of(code, &path[at - 1..=at])
                }
                (b'\\', _) => BACKSLASH,
                (b';', _) => PARAMETERS,
                _ => 0,
            };
            in_parameters = byte != b'/' && (in_parameters || brings & PARAMETERS != 0);
            is_torn |= in_parameters && brings & (SLASH | BACKSLASH) != 0;
            has_semicolon |= byte == b';';
            found |= brings;
            at += 1;
        }
        if is_torn || has_semicolon && found & ESCAPED_SEMICOLON != 0 {
            found |= TORN_PARAMETERS;
        }
        let mut widest = path;
        if found != 0 {
            self.decode(path, found);
            widest = &self.decoded;
        }
        let is_dots = |segment: &[u8]| matches!(segment, b"." | b"..");
        if widest.split(|&byte| byte == b'/').any(is_dots) {
            found |= DOTS;
        }
        if memchr::memmem::find(widest, b"//").is_some() {
            found |= RUNS;
        }
        found
    }

    /// Resolves all that is chosen but dot segments and runs of slashes. What lies between two special bytes is taken at
    /// once.
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
                let (kept, code) = escape(tail, chosen);
                rest = &tail[kept.len..];
                match code {
                    Some(code) => byte = code,
                    None => {
                        if !in_parameters {
                            out.push(b'%');
                            out.extend_from_slice(&kept.digits[..kept.len]);
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

    fn merged(&mut self) -> &[u8] {
        self.out.clear();
        self.out.extend_from_slice(&self.decoded);
        merge(&mut self.out);
        &self.out
    }

    /// Without dot segments.
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
                b"" if slashes == Slashes::Merged && !is_last => {}
                _ => {
                    out.push(b'/');
                    out.extend_from_slice(segment);
                }
            }
        }
        if slashes == Slashes::MergedAfterwards {
            merge(out);
        }
        out
    }
}

fn merge(text: &mut Vec<u8>) {
    text.dedup_by(|byte, before| *byte == b'/' && *before == b'/');
}

/// Digits of an escape, none of what is no escape.
struct Digits {
    digits: [u8; 2],
    len: usize,
}

/// The escape behind a `%`: its digits as they are written, and the byte that it stands for if that is chosen.
fn escape(behind: &[u8], chosen: Features) -> (Digits, Option<u8>) {
    let (Some(code), Some(&digits)) = (escaped(behind), behind.first_chunk()) else {
        let digits = [0; 2];
        return (Digits { digits, len: 0 }, None);
    };
    let mut found = Digits { digits, len: 2 };
    let is_chosen = feature_of(code, &digits) & chosen & !BACKSLASH & !PARAMETERS != 0;
    if is_chosen && !stands_for_itself(code) {
        found.digits.make_ascii_uppercase();
    }
    (
        found,
        Some(code).filter(|code| is_chosen && stands_for_itself(*code)),
    )
}

/// What an escape of `code`, with these digits, brings; 0 if it stays what it is.
fn feature_of(code: u8, digits: &[u8]) -> Features {
    match code {
        b'/' => SLASH,
        b'\\' => ESCAPED_BACKSLASH | BACKSLASH,
        b';' => ESCAPED_SEMICOLON | PARAMETERS,
        _ if is_unreserved(code) => UNRESERVED,
        _ if stands_for_itself(code) || digits.iter().any(u8::is_ascii_lowercase) => OTHERS,
        _ => 0,
    }
}

/// Whether some decode it to that byte and a rule may have that byte.
fn stands_for_itself(code: u8) -> bool {
    code.is_ascii_graphic() && !matches!(code, b'%' | b'?' | b'#')
}

/// The byte that two hexadecimal digits at the beginning of `text` stand for.
fn escaped(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests;
