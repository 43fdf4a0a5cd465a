//! The connection of one probe: what was read and not yet taken, with a bound.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Failed;
use crate::transport::conn::Conn;

/// One read.
const READ: usize = 4 << 10;

/// See the module.
pub(super) struct Wire {
    stream: Conn,
    /// What was read and not yet taken.
    pub(super) buffer: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: Conn) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        self.stream.write_all(bytes).await.map_err(Failed::Broken)
    }

    /// Reads what there is behind what was read before. False at the end of the connection. The caller bounds the
    /// buffer.
    pub(super) async fn read(&mut self) -> Result<bool, Failed> {
        self.buffer.reserve(READ);
        let read = self.stream.read_buf(&mut self.buffer).await;
        Ok(read.map_err(Failed::Broken)? > 0)
    }

    /// Reads until `size` bytes are there.
    pub(super) async fn fill(&mut self, size: usize, before: &'static str) -> Result<(), Failed> {
        while self.buffer.len() < size {
            if !self.read().await? {
                return Err(Failed::Ended(before));
            }
        }
        Ok(())
    }

    /// Takes the first `size` bytes, which are there.
    pub(super) fn take(&mut self, size: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(size.min(self.buffer.len()));
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Reads and drops what comes until the end of the connection, at most `most` bytes: a close in order.
    pub(super) async fn drain(&mut self, most: usize) {
        let mut taken = self.buffer.len();
        while taken < most {
            self.buffer.clear();
            match self.read().await {
                Ok(true) => taken += self.buffer.len(),
                Ok(false) | Err(_) => return,
            }
        }
    }
}

/// Whether `text` contains `wanted`; the first `looked` bytes were searched before.
pub(super) fn contains(text: &[u8], wanted: &[u8], looked: usize) -> bool {
    let from = looked.saturating_sub(wanted.len().saturating_sub(1));
    memchr::memmem::find(&text[from.min(text.len())..], wanted).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_however_it_is_cut() {
        let text = b"aaabaaab";
        for cut in 0..=text.len() {
            let first = contains(&text[..cut], b"aaab", 0);
            assert_eq!(first, cut >= 4, "{cut}");
            assert!(first || contains(text, b"aaab", cut), "{cut}");
        }
    }
}
