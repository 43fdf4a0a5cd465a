//! Byte strings as the data files write them, and as a report shows them.

/// Resolves `\r \n \t \0 \\ \xNN` and `${text*N}`; real line ends are only there for the eye.
pub fn resolve(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find("${") {
        plain(&rest[..open], &mut out)?;
        let inner = &rest[open + 2..];
        let close = inner.find('}').ok_or("`${` without its `}`")?;
        repeat(&inner[..close], &mut out)?;
        rest = &inner[close + 1..];
    }
    plain(rest, &mut out)?;
    Ok(out)
}

/// `text*N`; the last `*` counts.
fn repeat(inner: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let (text, times) = inner.rsplit_once('*').ok_or("`${` without its `*N`")?;
    let times: usize = times.parse().map_err(|_| format!("no count: {times:?}"))?;
    let mut once = Vec::new();
    plain(text, &mut once)?;
    if once.is_empty() || text.contains("${") {
        return Err(format!("cannot repeat {text:?}"));
    }
    out.extend(once.repeat(times));
    Ok(())
}

fn plain(text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\r' | '\n' => {}
            '\\' => out.push(escape(&mut chars)?),
            ' '..='~' => out.push(c as u8),
            other => return Err(format!("write {other:?} as an escape")),
        }
    }
    Ok(())
}

fn escape(chars: &mut std::str::Chars<'_>) -> Result<u8, String> {
    match chars.next() {
        Some('r') => Ok(b'\r'),
        Some('n') => Ok(b'\n'),
        Some('t') => Ok(b'\t'),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        Some('x') => {
            let digits: String = chars.take(2).collect();
            let both = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            match u8::from_str_radix(&digits, 16) {
                Ok(byte) if both => Ok(byte),
                _ => Err(format!("a bad escape: \\x{digits}")),
            }
        }
        other => Err(format!("a bad escape: \\{}", other.unwrap_or(' '))),
    }
}

/// Bytes as text, each for one character; what the strict readers of [`super::super::message`] take.
pub fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

/// For a report: escaped, a line of the wire a line of the report, the middle of long ones left out.
pub fn show(bytes: &[u8]) -> String {
    const HEAD: usize = 700;
    const TAIL: usize = 300;
    if bytes.len() <= HEAD + TAIL + 100 {
        return escaped(bytes);
    }
    let left_out = bytes.len() - HEAD - TAIL;
    format!(
        "{} … {left_out} bytes … {}",
        escaped(&bytes[..HEAD]),
        escaped(&bytes[bytes.len() - TAIL..])
    )
}

fn escaped(bytes: &[u8]) -> String {
    let mut out = String::new();
    for b in bytes {
        match b {
            b'\n' => out.push_str("\\n\n        "),
            b => out.extend(std::ascii::escape_default(*b).map(char::from)),
        }
    }
    out.trim_end().to_owned()
}
