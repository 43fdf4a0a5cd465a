//! The Date field of responses that came without one (RFC 9110 6.6.1), formatted once a second.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// `Date: `, 29 bytes and CRLF.
const LENGTH: usize = 37;

/// A Date line, kept until its second is over.
#[derive(Debug)]
pub(crate) struct DateLine {
    text: [u8; LENGTH],
    length: usize,
    /// In the milliseconds of the worker's table.
    fresh_until: u64,
}

impl Default for DateLine {
    fn default() -> Self {
        Self {
            text: [0; LENGTH],
            length: 0,
            fresh_until: 0,
        }
    }
}

impl DateLine {
    /// The line at `now` of the worker's table.
    pub(crate) fn at(&mut self, now: u64) -> &[u8] {
        if now >= self.fresh_until {
            let clock = SystemTime::now();
            self.set(clock);
            let second = clock.duration_since(UNIX_EPOCH).unwrap_or_default();
            self.fresh_until = now + 1000 - u64::from(second.subsec_millis());
        }
        &self.text[..self.length]
    }

    fn set(&mut self, clock: SystemTime) {
        self.length = 0;
        // It is of a fixed length, so it fits.
        let _ = write!(self, "Date: {}\r\n", httpdate::HttpDate::from(clock));
    }
}

impl Write for DateLine {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        let room = self.text.get_mut(self.length..end).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_date_has_the_one_form() {
        let mut line = DateLine::default();
        for (seconds, text) in [
            (784_111_777, "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
            (0, "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"),
            (4_102_444_799, "Date: Thu, 31 Dec 2099 23:59:59 GMT\r\n"),
        ] {
            line.set(UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(&line.text[..line.length], text.as_bytes());
            assert_eq!(line.length, LENGTH);
        }
    }

    #[test]
    fn a_date_is_formatted_once_a_second() {
        let mut line = DateLine::default();
        let read = |line: &[u8]| {
            let text = std::str::from_utf8(&line[6..LENGTH - 2]).unwrap();
            httpdate::parse_http_date(text).unwrap()
        };
        let first = read(line.at(0));
        let off = |time: SystemTime| time.elapsed().unwrap().as_secs();
        assert!(off(first) <= 1);
        assert!(
            (1..=1000).contains(&line.fresh_until),
            "{}",
            line.fresh_until
        );
        line.text[6..9].copy_from_slice(b"old");
        let until = line.fresh_until;
        assert!(line.at(until - 1).starts_with(b"Date: old"));
        assert!(off(read(line.at(until))) <= 1);
        assert!(line.fresh_until > until);
    }
}
