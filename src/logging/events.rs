//! Events of the proxy itself: one line each on stderr, as in
//! `2027-01-15T08:00:00.007Z WARN backend is down cluster=web backend=10.0.0.1:80 reason="check failed: status 500"`.
//!
//! A record begins with its time at the start of a line, and nothing else does: control characters in values are
//! escaped, and further lines of a message (the diagnostics of a file have some) are indented. So what a client
//! sends cannot forge a record. Colours only mark the level, only on a terminal, and not if `NO_COLOR` is set.
//!
//! A panic is an event like any other: the hook logs and counts it, and the task that had it ends by itself. What
//! cannot be written to stderr is lost in silence, since there is nowhere left to say so.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{self, Write};
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::time::SystemTime;

use thiserror::Error;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{
    FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter, layer,
};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Registry, reload};

use crate::model::settings::LogLevel;
use crate::telemetry::metrics::ProcessMetrics;

/// The log was set up before; it can be done once in a process.
#[derive(Debug, Error)]
#[error("the event log is already set up")]
pub struct AlreadyStarted;

/// Changes the level of the running log.
#[derive(Debug, Clone)]
pub struct EventLog {
    level: reload::Handle<LevelFilter, Registry>,
}

impl EventLog {
    /// Sets up the log and the panic hook of the process.
    pub fn start(level: LogLevel, metrics: Arc<ProcessMetrics>) -> Result<Self, AlreadyStarted> {
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let (log, subscriber) = Self::build(level, colours, io::stderr);
        tracing::subscriber::set_global_default(subscriber).map_err(|_| AlreadyStarted)?;
        std::panic::set_hook(Box::new(move |panic| on_panic(panic, &metrics)));
        Ok(log)
    }

    fn build<W>(
        level: LogLevel,
        colours: bool,
        writer: W,
    ) -> (Self, impl Subscriber + Send + Sync + 'static)
    where
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        let (filter, level) = reload::Layer::new(filter(level));
        let lines = layer()
            .event_format(Line { colours })
            .fmt_fields(Fields)
            .with_ansi(false)
            .log_internal_errors(false)
            .with_writer(writer);
        (Self { level }, Registry::default().with(filter).with(lines))
    }

    /// Changes the least level that is written, at once and for all threads.
    pub fn set_level(&self, level: LogLevel) {
        // Fails only when the subscriber is gone, and then there is no log to change.
        let _ = self.level.reload(filter(level));
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

fn on_panic(panic: &PanicHookInfo<'_>, metrics: &ProcessMetrics) {
    metrics.panics.add(1);
    let said = panic.payload_as_str().unwrap_or("no message");
    let place = panic
        .location()
        .map(ToString::to_string)
        .unwrap_or_default();
    let current = std::thread::current();
    let thread = current.name().unwrap_or("unnamed");
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        tracing::error!(place, thread, "panic: {said}\n{trace}");
    } else {
        tracing::error!(place, thread, "panic: {said}");
    }
}

/// One event as one record.
struct Line {
    colours: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        let (colour, plain) = match (self.colours, level) {
            (false, _) => ("", ""),
            (true, Level::ERROR) => ("\x1b[31m", "\x1b[0m"),
            (true, Level::WARN) => ("\x1b[33m", "\x1b[0m"),
            (true, Level::INFO) => ("\x1b[32m", "\x1b[0m"),
            (true, _) => ("\x1b[2m", "\x1b[0m"),
        };
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        write!(writer, "{time} {colour}{level}{plain}")?;
        context.format_fields(writer.by_ref(), event)?;
        // What the event says comes before where it was said.
        for span in context.event_scope().into_iter().flatten() {
            write!(writer, " in={}", span.name())?;
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                writer.write_str(fields)?;
            }
        }
        writer.write_char('\n')
    }
}

/// The message, then ` key=value` for each field.
struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = Visitor {
            writer,
            result: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct Visitor<'w> {
    writer: Writer<'w>,
    result: fmt::Result,
}

impl Visitor<'_> {
    fn put(&mut self, field: &Field, value: &str) {
        if self.result.is_err() {
            return;
        }
        self.result = if field.name() == "message" {
            self.writer
                .write_char(' ')
                .and_then(|()| message(&mut self.writer, value))
        } else {
            write!(self.writer, " {}=", field.name()).and_then(|()| quoted(&mut self.writer, value))
        };
    }
}

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(deeper) = cause {
            // Writing to a string cannot fail.
            let _ = write!(text, ": {deeper}");
            cause = deeper.source();
        }
        self.put(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }
}

/// A message may have several lines, but only the first begins at the start of a line.
fn message(out: &mut impl Write, text: &str) -> fmt::Result {
    for (i, line) in text.trim_end().split('\n').enumerate() {
        if i > 0 {
            out.write_str("\n    ")?;
        }
        escaped(out, line)?;
    }
    Ok(())
}

/// A value that is one word stands as it is; any other in quotes.
fn quoted(out: &mut impl Write, value: &str) -> fmt::Result {
    let word = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=' | '\\');
    if is_quoted(value) || (!value.is_empty() && value.chars().all(word)) {
        return escaped(out, value);
    }
    out.write_char('"')?;
    for part in value.split_inclusive(['"', '\\']) {
        let plain = part.trim_end_matches(['"', '\\']);
        escaped(out, plain)?;
        if let Some(special) = part[plain.len()..].chars().next() {
            write!(out, "\\{special}")?;
        }
    }
    out.write_char('"')
}

/// Whether it is one text in quotes already, as the Debug form of a string is.
fn is_quoted(value: &str) -> bool {
    let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    let Some(inner) = inner else { return false };
    let mut escape = false;
    for c in inner.chars() {
        match c {
            _ if escape => escape = false,
            '\\' => escape = true,
            '"' => return false,
            _ => {}
        }
    }
    !escape
}

/// Control characters, C1 among them, as in Rust's own escapes.
fn escaped(out: &mut impl Write, text: &str) -> fmt::Result {
    for c in text.chars() {
        if c.is_control() {
            write!(out, "{}", c.escape_debug())?;
        } else {
            out.write_char(c)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing::subscriber::with_default;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        /// What was written since, without the times, which must be there.
        fn take(&self) -> String {
            let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
            let mut rest = String::new();
            for line in text.split_inclusive('\n') {
                if line.starts_with("    ") {
                    rest.push_str(line);
                    continue;
                }
                let (time, after) = line.split_once(' ').unwrap();
                assert_eq!(time.len(), "2027-01-15T08:00:00.007Z".len(), "{line}");
                humantime::parse_rfc3339(time).unwrap();
                rest.push_str(after);
            }
            rest
        }
    }

    fn logged(colours: bool, deed: impl FnOnce(&EventLog, &Written)) {
        crate::telemetry::capture::install();
        let written = Written::default();
        let writer = written.clone();
        let (log, subscriber) = EventLog::build(LogLevel::Info, colours, move || writer.clone());
        with_default(subscriber, || deed(&log, &written));
    }

    #[test]
    fn an_event_is_a_line_of_words() {
        logged(false, |_, written| {
            tracing::warn!(cluster = "web", of = 3, reason = %"status 500", share = 0.5, "sick");
            assert_eq!(
                written.take(),
                "WARN sick cluster=web of=3 reason=\"status 500\" share=0.5\n"
            );
            let error = io::Error::other("oh no");
            tracing::error!(
                error = &error as &dyn std::error::Error,
                empty = "",
                "failed"
            );
            assert_eq!(written.take(), "ERROR failed error=\"oh no\" empty=\"\"\n");
            let span = tracing::info_span!("reload", generation = 7);
            span.in_scope(|| tracing::info!(a = ?"b c", "done"));
            assert_eq!(
                written.take(),
                "INFO done a=\"b c\" in=reload generation=7\n"
            );
        });
    }

    #[test]
    fn nothing_from_outside_forges_a_record() {
        logged(false, |_, written| {
            let host = "a\n2027-01-15T08:00:00.007Z ERROR \x1b[31m\u{85}\"x\\=";
            tracing::info!(host, "seen");
            let line = written.take();
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert!(line.contains(r#"host="a\n2027"#), "{line}");
            assert!(line.contains(r#"ERROR \u{1b}[31m\u{85}\"x\\=""#), "{line}");
            let forged = "\"a\" status=\"200\"";
            tracing::info!(host = forged, path = ?"/\"", "seen");
            let expected = r#"INFO seen host="\"a\" status=\"200\"" path="/\"""#;
            assert_eq!(written.take().trim_end(), expected);
            tracing::info!("line 1\nline 2\n");
            assert_eq!(written.take(), "INFO line 1\n    line 2\n");
        });
    }

    #[test]
    fn the_level_changes_while_it_runs() {
        logged(false, |log, written| {
            tracing::debug!("no");
            log.set_level(LogLevel::Trace);
            tracing::trace!("yes");
            log.set_level(LogLevel::Error);
            tracing::warn!("no");
            assert_eq!(written.take(), "TRACE yes\n");
        });
    }

    #[test]
    fn colours_mark_the_level_alone() {
        logged(true, |_, written| {
            tracing::error!(a = "b", "oh");
            assert_eq!(written.take(), "\x1b[31mERROR\x1b[0m oh a=b\n");
        });
    }

    #[test]
    fn a_panic_is_logged_and_counted() {
        let metrics = Arc::new(ProcessMetrics::default());
        let before = std::panic::take_hook();
        let counted = metrics.clone();
        std::panic::set_hook(Box::new(move |panic| on_panic(panic, &counted)));
        logged(false, |_, written| {
            let caught = std::panic::catch_unwind(|| panic!("number {}", 7));
            assert!(caught.is_err());
            let line = written.take();
            assert!(line.starts_with("ERROR panic: number 7"), "{line}");
            assert!(line.contains("events.rs:"), "{line}");
        });
        std::panic::set_hook(before);
        // Tests that run beside this one may panic on purpose too.
        assert!(metrics.panics.get() >= 1);
    }
}
