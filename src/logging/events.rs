//! Events of the proxy itself: one line each on stderr, for example `2027-01-15T08:00:00.007Z WARN backend is down
//! cluster=web backend=10.0.0.1:80 reason="check failed: status 500"`, or with `log.format = "json"` as one object.
//!
//! A record begins with its time at the start of a line, and nothing else does: control characters in values are
//! escaped, and further lines of a message (as the diagnostics of a file have) are indented (`text`) or escaped
//! (`json`). So what a client sends cannot forge a record. Colours only mark the level, only on a terminal, and not if
//! `NO_COLOR` is set.
//!
//! A thread that logs puts the record into a bounded queue and continues; one thread writes (`queue`). A stderr that is
//! not read costs lines, which are counted, and holds up nothing, not even the end of the process ([`EventLog::flush`],
//! [`print_at_exit`]).
//!
//! A panic is an event like any other: the hook logs and counts it, and only the task that panicked ends.

mod json;
mod queue;
mod text;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::error::Error;
use std::fmt::{self, Write};
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, SystemTime};

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{
    FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter, layer,
};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Registry, reload};

use crate::model::settings::{LogFormat, LogLevel};
use crate::telemetry::metrics::ProcessMetrics;
use queue::Queue;
use text::TextFields;

/// How long the end of the process waits for a stderr that is not read.
pub(crate) const EXIT_BOUND: Duration = Duration::from_secs(1);

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EventLogError {
    /// There is one already; a process has one.
    #[error("the event log is already set up")]
    Already,
    /// Standard error is closed, or the thread cannot be started.
    #[error("cannot start the event log: {0}")]
    Io(#[from] io::Error),
}

/// A handle to the running log, to change its level and its format.
#[derive(Clone)]
pub(crate) struct EventLog {
    level: reload::Handle<LevelFilter, Registry>,
    style: Arc<Style>,
    queue: Queue,
}

impl EventLog {
    /// Sets up the log and the panic hook of the process.
    ///
    /// # Errors
    /// It is set up already, or there is nothing to write to.
    pub(crate) fn start(
        level: LogLevel,
        format: LogFormat,
        metrics: Arc<ProcessMetrics>,
    ) -> Result<Self, EventLogError> {
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let style = Arc::new(Style::new(colours, format));
        // A descriptor of its own, so that a write that waits never holds the lock of the standard library's handle.
        let sink = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let loss_style = Arc::clone(&style);
        let loss = Box::new(move |lost| loss_style.loss(lost));
        let queue = Queue::start(queue::QUEUE, sink, Arc::clone(&metrics), loss)?;
        let pushed = queue.clone();
        let (level, subscriber) = build(level, Arc::clone(&style), move || {
            QueueWriter(pushed.clone())
        });
        tracing::subscriber::set_global_default(subscriber).map_err(|_| EventLogError::Already)?;
        std::panic::set_hook(Box::new(move |panic| on_panic(panic, &metrics)));
        Ok(Self {
            level,
            style,
            queue,
        })
    }

    /// A log that is not the process's and writes nowhere, for tests of what holds one.
    #[cfg(test)]
    pub(crate) fn detached() -> Self {
        let style = Arc::new(Style::new(false, LogFormat::Text));
        let (level, _) = build(LogLevel::Info, Arc::clone(&style), io::sink);
        let loss = Box::new(|_| Vec::new());
        let queue = Queue::start(queue::QUEUE, io::sink(), Arc::default(), loss);
        Self {
            level,
            style,
            queue: queue.expect("a thread for the queue"),
        }
    }

    /// Changes the least level that is written, at once and for all threads.
    pub(crate) fn set_level(&self, level: LogLevel) {
        // Fails only when the subscriber is gone, and then there is no log to change.
        let _ = self.level.reload(filter(level));
    }

    /// Changes how records look, at once and for all threads.
    pub(crate) fn set_format(&self, format: LogFormat) {
        self.style
            .json
            .store(format == LogFormat::Json, Ordering::Relaxed);
    }

    /// Waits until all events so far are written, for at most [`EXIT_BOUND`]. Whether they are.
    pub(crate) fn flush(&self) -> bool {
        self.queue.flush(EXIT_BOUND)
    }
}

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLog").finish_non_exhaustive()
    }
}

/// Writes a line to stderr as the process ends, and waits for that for at most [`EXIT_BOUND`]: a stderr that is not
/// read keeps no process alive.
pub(crate) fn print_at_exit(text: &str) {
    let line = format!("{}\n", text.trim_end());
    let (done, written) = sync_channel(1);
    let write = move || {
        // There is nowhere left to report a failure.
        let _ = io::Write::write_all(&mut io::stderr(), line.as_bytes());
        let _ = done.send(());
    };
    if std::thread::Builder::new().spawn(write).is_ok() {
        let _ = written.recv_timeout(EXIT_BOUND);
    }
}

/// Puts what is written to it, one record in each write, into the queue.
struct QueueWriter(Queue);

impl io::Write for QueueWriter {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.0.push(record);
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn build<W>(
    level: LogLevel,
    style: Arc<Style>,
    writer: W,
) -> (
    reload::Handle<LevelFilter, Registry>,
    impl Subscriber + Send + Sync + 'static,
)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, level) = reload::Layer::new(filter(level));
    let lines = layer()
        .event_format(RecordFormat(style))
        .fmt_fields(TextFields)
        .with_ansi(false)
        .log_internal_errors(false)
        .with_writer(writer);
    (level, Registry::default().with(filter).with(lines))
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

/// How records look.
#[derive(Debug)]
struct Style {
    colours: bool,
    json: AtomicBool,
}

impl Style {
    fn new(colours: bool, format: LogFormat) -> Self {
        Self {
            colours,
            json: AtomicBool::new(format == LogFormat::Json),
        }
    }

    fn is_json(&self) -> bool {
        self.json.load(Ordering::Relaxed)
    }

    /// Writes the beginning of every record.
    fn begin(&self, out: &mut impl Write, level: Level) -> fmt::Result {
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        if self.is_json() {
            let level = level.as_str().to_ascii_lowercase();
            return write!(out, "{{\"time\":\"{time}\",\"level\":\"{level}\"");
        }
        let (colour, plain) = match (self.colours, level) {
            (false, _) => ("", ""),
            (true, Level::ERROR) => ("\x1b[31m", "\x1b[0m"),
            (true, Level::WARN) => ("\x1b[33m", "\x1b[0m"),
            (true, Level::INFO) => ("\x1b[32m", "\x1b[0m"),
            (true, _) => ("\x1b[2m", "\x1b[0m"),
        };
        write!(out, "{time} {colour}{level}{plain}")
    }

    /// The record that reports how many records were lost.
    fn loss(&self, lost: u64) -> Vec<u8> {
        const LOST: &str = "lines of this log are lost: stderr was not read fast enough";
        let mut record = String::new();
        // Writing to a string cannot fail.
        let _ = self.begin(&mut record, Level::WARN);
        let _ = match self.is_json() {
            true => writeln!(record, ",\"message\":\"{LOST}\",\"lines\":{lost}}}"),
            false => writeln!(record, " {LOST} lines={lost}"),
        };
        record.into_bytes()
    }
}

/// Writes one event as one record.
struct RecordFormat(Arc<Style>);

impl<S, N> FormatEvent<S, N> for RecordFormat
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
        let is_json = self.0.is_json();
        self.0.begin(&mut writer, *event.metadata().level())?;
        if is_json {
            let mut fields = json::JsonFields::new(&mut writer);
            event.record(&mut fields);
            fields.result()?;
        } else {
            context.format_fields(writer.by_ref(), event)?;
        }
        // The event comes before the spans that it is in.
        for span in context.event_scope().into_iter().flatten() {
            let mut place = span.name().to_owned();
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                place.push_str(fields);
            }
            if is_json {
                writer.write_str(",\"in\":")?;
                json::text(&mut writer, &place)?;
            } else {
                write!(writer, " in={place}")?;
            }
        }
        writer.write_str(if is_json { "}\n" } else { "\n" })
    }
}

/// An error and the chain of its causes.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {deeper}");
        cause = deeper.source();
    }
    text
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
        /// What was written since the last call, without the times, which must be there.
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

    fn logged(colours: bool, action: impl FnOnce(&EventLog, &Written)) {
        crate::telemetry::capture::install();
        let written = Written::default();
        let writer = written.clone();
        let style = Arc::new(Style::new(colours, LogFormat::Text));
        let (level, subscriber) = build(LogLevel::Info, Arc::clone(&style), move || writer.clone());
        let loss = Box::new(|_| Vec::new());
        let queue = Queue::start(100, io::sink(), Arc::default(), loss).unwrap();
        let log = EventLog {
            level,
            style,
            queue,
        };
        with_default(subscriber, || action(&log, &written));
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
            tracing::error!(error = &error as &dyn Error, empty = "", "failed");
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
    fn an_event_is_an_object_where_json_is_asked_for() {
        logged(true, |log, written| {
            let json = || -> serde_json::Value {
                let text = String::from_utf8(std::mem::take(&mut *written.0.lock().unwrap()));
                let text = text.unwrap();
                assert!(
                    text.ends_with("}\n") && text.matches('\n').count() == 1,
                    "{text}"
                );
                assert!(!text.contains(['\u{1b}', '\u{85}', '\u{2028}']), "{text}");
                let mut object: serde_json::Value = serde_json::from_str(&text).unwrap();
                let fields = object.as_object_mut().unwrap();
                humantime::parse_rfc3339(fields.remove("time").unwrap().as_str().unwrap()).unwrap();
                object
            };
            log.set_format(LogFormat::Json);
            tracing::warn!(
                cluster = "web",
                of = 3,
                less = -1,
                share = 0.5,
                up = true,
                "sick"
            );
            assert_eq!(
                json(),
                serde_json::json!({"level": "warn", "message": "sick", "cluster": "web", "of": 3,
                    "less": -1, "share": 0.5, "up": true})
            );
            let nasty = "\"}\n{\\\u{1b}[31m\u{85}\u{2028}é\u{7f}\0";
            let share = f64::NAN;
            tracing::error!(nasty, share, "{nasty}");
            assert_eq!(
                json(),
                serde_json::json!({"level": "error", "message": nasty, "nasty": nasty, "share": "NaN"})
            );
            let cause = io::Error::other("deep");
            let error = EventLogError::Io(cause);
            tracing::info!(error = &error as &dyn Error, reason = %"a b", "line 1\nline 2\n");
            let said = json();
            assert_eq!(said["error"], "cannot start the event log: deep: deep");
            assert_eq!(said["reason"], "a b");
            assert_eq!(said["message"], "line 1\nline 2");
            let span = tracing::info_span!("reload", generation = 7);
            span.in_scope(|| tracing::info!("done"));
            assert_eq!(json()["in"], "reload generation=7");
            log.set_format(LogFormat::Text);
            tracing::info!("words");
            assert_eq!(written.take(), "\u{1b}[32mINFO\u{1b}[0m words\n");
        });
    }

    #[test]
    fn a_loss_is_a_record_of_the_same_form() {
        let style = Style::new(false, LogFormat::Text);
        let said = String::from_utf8(style.loss(3)).unwrap();
        assert!(said.contains("Z WARN lines of this log are lost"), "{said}");
        assert!(said.ends_with(" lines=3\n"), "{said}");
        let said = Style::new(true, LogFormat::Json).loss(3);
        let object: serde_json::Value = serde_json::from_slice(&said).unwrap();
        assert_eq!(object["lines"], 3);
        assert_eq!(object["level"], "warn");
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
