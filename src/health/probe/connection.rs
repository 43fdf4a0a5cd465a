//! The connection of one probe, with a buffer of what was read but not yet consumed.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::ProbeFailure;
use crate::transport::conn::Conn;

/// Bytes to reserve for one read.
const READ: usize = 4 << 10;

/// A connection with a read buffer.
pub(super) struct ProbeConnection {
    stream: Conn,
    /// What was read but not yet consumed.
    pub(super) buffer: Vec<u8>,
}

impl ProbeConnection {
    pub(super) fn new(stream: Conn) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), ProbeFailure> {
        self.stream
            .write_all(bytes)
            .await
            .map_err(ProbeFailure::Broken)
    }

    /// Appends what can be read to the buffer. Returns false at the end of the connection. The caller limits the
    /// buffer.
    pub(super) async fn read(&mut self) -> Result<bool, ProbeFailure> {
        self.buffer.reserve(READ);
        let read = self.stream.read_buf(&mut self.buffer).await;
        Ok(read.map_err(ProbeFailure::Broken)? > 0)
    }

    /// Reads until the buffer has `size` bytes. If the connection ends, the error says that it did so `before` what.
    pub(super) async fn fill(
        &mut self,
        size: usize,
        before: &'static str,
    ) -> Result<(), ProbeFailure> {
        while self.buffer.len() < size {
            if !self.read().await? {
                return Err(ProbeFailure::Ended(before));
            }
        }
        Ok(())
    }

    /// Takes the first `size` bytes of the buffer, which must have them.
    pub(super) fn take(&mut self, size: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(size.min(self.buffer.len()));
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Reads and discards up to `limit` bytes until the end of the connection, so that it is closed in an orderly way.
    pub(super) async fn drain(&mut self, limit: usize) {
        let mut total = self.buffer.len();
        while total < limit {
            self.buffer.clear();
            match self.read().await {
                Ok(true) => total += self.buffer.len(),
                Ok(false) | Err(_) => return,
            }
        }
    }
}

/// Whether `text` contains `wanted`; its first `searched` bytes were searched before.
pub(super) fn contains(text: &[u8], wanted: &[u8], searched: usize) -> bool {
    let from = searched.saturating_sub(wanted.len().saturating_sub(1));
    memchr::memmem::find(&text[from.min(text.len())..], wanted).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_however_it_is_split() {
        let text = b"aaabaaab";
        for cut in 0..=text.len() {
            let first = contains(&text[..cut], b"aaab", 0);
            assert_eq!(first, cut >= 4, "{cut}");
            assert!(first || contains(text, b"aaab", cut), "{cut}");
        }
    }
}
