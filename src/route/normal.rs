//! The normal form of a path: what a backend may make of it before it looks at it.
//!
//! A request is matched and forwarded as it came. If a rule fences something off by its path (`/admin/*`), a path that
//! only becomes that one behind us (`/x/../admin/`, `/%61dmin/`, `//admin/`) would go round the fence. So the table is
//! asked a second time with the normal form, and where the two lead to different rules the request is refused.
//!
//! Normal means: percent-encoded unreserved characters are decoded (RFC 3986 6.2.2.2), `%2F`, `%5C` and `\` stand for
//! `/`, dot segments are resolved (RFC 3986 5.2.4), also with parameters behind the dots (`..;x`), as Java servers
//! have them. Runs of `/` are either kept or merged: servers do the one or the other.

/// What is done with empty segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slashes {
    Kept,
    Merged,
}

/// Whether the normal form of `path` may be another text. Costs one look at each byte.
pub(super) fn may_differ(path: &[u8]) -> bool {
    let mut before = 0;
    path.iter().any(|&byte| {
        let odd = matches!(byte, b'%' | b'\\') || before == b'/' && matches!(byte, b'/' | b'.');
        before = byte;
        odd
    })
}

/// The normal form of a path that begins with `/`.
pub(super) fn normal_form(path: &[u8], slashes: Slashes) -> Vec<u8> {
    let decoded = decode(path);
    let mut out = Vec::with_capacity(decoded.len());
    let mut segments = decoded.split(|&byte| byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match without_parameters(segment) {
            b"." if is_last => out.push(b'/'),
            b"." => {}
            b".." => {
                out.truncate(out.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
                if is_last {
                    out.push(b'/');
                }
            }
            b"" if slashes == Slashes::Merged && segment.is_empty() && !is_last => {}
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    out
}

/// `..` of `..;x`; any other segment as it is.
fn without_parameters(segment: &[u8]) -> &[u8] {
    let end = segment.iter().position(|&byte| byte == b';');
    match end.map(|end| &segment[..end]) {
        Some(dots @ (b"." | b"..")) => dots,
        _ => segment,
    }
}

fn decode(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, escaped(tail)) {
            (b'\\', _) => out.push(b'/'),
            (b'%', Some(b'/' | b'\\')) => {
                out.push(b'/');
                rest = &tail[2..];
            }
            (b'%', Some(code)) if is_unreserved(code) => {
                out.push(code);
                rest = &tail[2..];
            }
            _ => out.push(byte),
        }
    }
    out
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(path: &str, slashes: Slashes) -> String {
        String::from_utf8(normal_form(path.as_bytes(), slashes)).unwrap()
    }

    #[test]
    fn normal_forms() {
        for (path, form) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/../../b", "/b"),
            ("/%61dmin", "/admin"),
            ("/x/%2e%2E/admin", "/admin"),
            ("/x%2f..%2Fadmin", "/admin"),
            ("/x\\..\\admin", "/admin"),
            ("/x%5C..%5cadmin", "/admin"),
            ("/x/..;a=b/admin", "/admin"),
            ("/x/.;/admin", "/x/admin"),
            ("/x;y/z", "/x;y/z"),
            ("/...", "/..."),
            ("/%252e", "/%252e"),
            ("/%", "/%"),
            ("/%2", "/%2"),
            ("/%zz%20%c3%a9", "/%zz%20%c3%a9"),
            ("/a//b", "/a//b"),
            ("//a", "//a"),
            ("/a//../b", "/a/b"),
        ] {
            assert_eq!(normal(path, Slashes::Kept), form, "{path}");
        }
        for (path, form) in [
            ("//a///b", "/a/b"),
            ("/a//", "/a/"),
            ("//", "/"),
            ("/a//../b", "/b"),
            ("/%2Fa", "/a"),
        ] {
            assert_eq!(normal(path, Slashes::Merged), form, "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_cannot_differ_does_not_and_a_normal_form_is_normal(path in "/[a./%2eF5C\\\\;]{0,12}") {
            for slashes in [Slashes::Kept, Slashes::Merged] {
                let form = normal(&path, slashes);
                prop_assert!(form.starts_with('/'));
                if !may_differ(path.as_bytes()) {
                    prop_assert_eq!(&form, &path);
                }
                let is_dots = |segment: &str| matches!(without_parameters(segment.as_bytes()), b"." | b"..");
                prop_assert!(!form.split('/').any(is_dots), "{}", form);
            }
        }
    }
}
