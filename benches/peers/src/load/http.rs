//! Reads one HTTP/1.1 answer after another and checks it: status 200, the length that was asked for, nothing behind
//! the end. Just enough for answers with a Content-Length, which is all that the backends send.

/// Longer heads than any proxy here writes are an error.
const HEAD: usize = 16 * 1024;

/// Where a reader is in an answer.
#[derive(Default)]
pub(super) struct Reader {
    /// The beginning of a head whose end has not come.
    head: Vec<u8>,
    /// Bytes of the body that are still to come, once the head is complete.
    left: Option<u64>,
}

impl Reader {
    /// How much of the body is still to come, if the head is complete: that much can be dropped unseen.
    pub(super) fn left(&self) -> Option<u64> {
        self.left
    }

    /// Takes what came. `true`: the answer is whole, and the reader is ready for the next.
    pub(super) fn take(&mut self, bytes: &[u8], length: u64) -> Result<bool, String> {
        if self.left.is_some() {
            return self.drop_body(bytes.len() as u64);
        }
        let whole;
        let seen = if self.head.is_empty() {
            bytes
        } else {
            self.head.extend_from_slice(bytes);
            whole = std::mem::take(&mut self.head);
            &whole
        };
        let Some(end) = memchr::memmem::find(seen, b"\r\n\r\n") else {
            if seen.len() > HEAD {
                return Err("an answer without the end of its head".to_owned());
            }
            self.head = seen.to_vec();
            return Ok(false);
        };
        check(&seen[..end], length)?;
        self.left = Some(length);
        self.drop_body((seen.len() - end - 4) as u64)
    }

    /// Counts bytes of the body.
    pub(super) fn drop_body(&mut self, count: u64) -> Result<bool, String> {
        let left = self.left.unwrap_or(0);
        if count > left {
            return Err(format!(
                "{} bytes behind the end of an answer",
                count - left
            ));
        }
        self.left = (count < left).then_some(left - count);
        Ok(self.left.is_none())
    }
}

fn check(head: &[u8], length: u64) -> Result<(), String> {
    let mut lines = head.split(|byte| *byte == b'\n');
    let status = lines.next().unwrap_or_default();
    if !status.starts_with(b"HTTP/1.1 200") {
        return Err(format!(
            "answered {:?}",
            String::from_utf8_lossy(status).trim_end()
        ));
    }
    for line in lines {
        const NAME: &[u8] = b"content-length:";
        if line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME) {
            let value = std::str::from_utf8(&line[NAME.len()..])
                .unwrap_or_default()
                .trim();
            return match value.parse::<u64>() {
                Ok(value) if value == length => Ok(()),
                _ => Err(format!(
                    "a Content-Length of {value} where {length} was asked for"
                )),
            };
        }
    }
    Err("an answer without a Content-Length".to_owned())
}
