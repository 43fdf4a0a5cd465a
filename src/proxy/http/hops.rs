//! Which processes a request has passed, so that one that comes back is refused instead of going round until all
//! descriptors are gone.
//!
//! Every process has a random id and adds it to `X-Lbproxy-Hop`. The field is read before it is removed, whoever sent it:
//! all that a client gains by writing it is that its own request is refused. Elements that are no id are dropped, and
//! what passed [`MAX_HOPS`] processes is taken for a loop that does not show our id.

use crate::http1::field::{FieldName, list};
use crate::http1::head::Field;
use crate::proxy::loops::{MAX_HOPS, ProcessId};

/// The processes that a request has passed.
#[derive(Debug, Default)]
pub(crate) struct Passed<'b> {
    ids: [&'b [u8]; MAX_HOPS],
    count: usize,
}

/// The request has been here before, or has passed too many processes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Loop;

impl<'b> Passed<'b> {
    /// Takes one field; others than X-Lbproxy-Hop tell nothing.
    ///
    /// # Errors
    /// `own` is in it, or it has too many ids.
    pub(crate) fn add(
        &mut self,
        field: &Field,
        buffer: &'b [u8],
        own: &ProcessId,
    ) -> Result<(), Loop> {
        if field.name != FieldName::Hop {
            return Ok(());
        }
        for id in list(field.value_in(buffer)).filter(|id| is_id(id)) {
            if id == own || self.count == MAX_HOPS {
                return Err(Loop);
            }
            self.ids[self.count] = id;
            self.count += 1;
        }
        Ok(())
    }

    /// Appends the field with `own` at its end.
    pub(crate) fn write(&self, out: &mut Vec<u8>, own: &ProcessId) {
        out.extend_from_slice(b"X-Lbproxy-Hop: ");
        for id in &self.ids[..self.count] {
            out.extend_from_slice(id);
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(own);
        out.extend_from_slice(b"\r\n");
    }
}

fn is_id(element: &[u8]) -> bool {
    element.len() == size_of::<ProcessId>()
        && element
            .iter()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::HeadLimits;
    use crate::http1::request;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 4096,
        fields: 50,
        target: 100,
    };

    const OWN: &ProcessId = b"0123456789abcdef";

    /// What the next process gets of these field lines.
    fn next(lines: &str) -> Result<String, Loop> {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut fields = Vec::new();
        request::parse(text.as_bytes(), &LIMITS, &mut fields)
            .unwrap()
            .unwrap();
        let mut passed = Passed::default();
        for field in &fields {
            passed.add(field, text.as_bytes(), OWN)?;
        }
        let mut out = Vec::new();
        passed.write(&mut out, OWN);
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn ids_are_handed_on_and_our_own_is_a_loop() {
        let other = "fedcba9876543210";
        for (lines, out) in [
            (String::new(), "0123456789abcdef".to_owned()),
            (
                format!("X-Lbproxy-Hop: {other}\r\nx-lbproxy-hop: 1111111111111111\r\n"),
                format!("{other}, 1111111111111111, 0123456789abcdef"),
            ),
            (
                format!("X-Lbproxy-Hop: junk, {other},,FEDCBA9876543210\r\n"),
                format!("{other}, 0123456789abcdef"),
            ),
            (
                "X_Lbproxy_Hop: 0123456789abcdef\r\nConnection: x-lbproxy-hop\r\n".to_owned(),
                "0123456789abcdef".to_owned(),
            ),
        ] {
            assert_eq!(next(&lines), Ok(format!("X-Lbproxy-Hop: {out}\r\n")));
        }
        let own = "X-Lbproxy-Hop: fedcba9876543210, 0123456789abcdef\r\n";
        assert_eq!(next(own), Err(Loop));
        assert_eq!(
            next(&format!("Connection: x-lbproxy-hop\r\n{own}")),
            Err(Loop)
        );
        let line = |count: usize| format!("X-Lbproxy-Hop: {}\r\n", vec![other; count].join(","));
        assert!(next(&line(MAX_HOPS)).is_ok());
        assert_eq!(next(&line(MAX_HOPS + 1)), Err(Loop));
        assert_eq!(next(&line(1).repeat(MAX_HOPS + 1)), Err(Loop));
    }
}
