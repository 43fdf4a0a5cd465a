//! For tests: what this thread has logged.
//!
//! A subscriber of a single thread is no basis for a test: whether a callsite is enabled is cached for the whole process,
//! and the cache is rebuilt while other tests come and go. So there is one subscriber for all tests, which enables
//! everything and writes into a buffer of the thread that asked for one.

use std::cell::RefCell;
use std::io;
use std::sync::Once;

use tracing::level_filters::LevelFilter;

thread_local! {
    static LINES: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Makes sure that every callsite is enabled, whatever other tests do.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(|| ThreadBuffer)
            .finish();
        // If there is one already, it stays.
        let _ = tracing::subscriber::set_global_default(subscriber);
    });
}

/// Collects what this thread logs until it is dropped.
pub(crate) struct LogCapture;

impl LogCapture {
    pub(crate) fn begin() -> Self {
        install();
        LINES.set(Some(Vec::new()));
        Self
    }

    /// How often `text` occurs in what was logged.
    pub(crate) fn count(&self, text: &str) -> usize {
        LINES.with_borrow(|lines| {
            String::from_utf8_lossy(lines.as_deref().unwrap_or_default())
                .matches(text)
                .count()
        })
    }
}

impl Drop for LogCapture {
    fn drop(&mut self) {
        LINES.set(None);
    }
}

struct ThreadBuffer;

impl io::Write for ThreadBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.with_borrow_mut(|lines| {
            if let Some(lines) = lines {
                lines.extend_from_slice(bytes);
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
