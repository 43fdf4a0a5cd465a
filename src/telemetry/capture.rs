//! For tests: what this thread logged.
//!
//! Subscribers of single threads are no ground for a test: whether a callsite is enabled is cached for the whole
//! process, and the cache is rebuilt while other tests come and go. So one subscriber that wants everything is
//! there for all of them, and it writes into a buffer of the thread that asked for one.

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
        // If there is one already, it is the one to go by.
        let _ = tracing::subscriber::set_global_default(subscriber);
    });
}

/// Collects what this thread logs until it is dropped.
pub(crate) struct Capture;

impl Capture {
    pub(crate) fn begin() -> Self {
        install();
        LINES.set(Some(Vec::new()));
        Self
    }

    /// How often `text` stands in what was logged.
    pub(crate) fn count(&self, text: &str) -> usize {
        LINES.with_borrow(|lines| {
            String::from_utf8_lossy(lines.as_deref().unwrap_or_default())
                .matches(text)
                .count()
        })
    }
}

impl Drop for Capture {
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
