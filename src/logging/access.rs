//! The thread that writes the access log: it alone owns the sink, and may wait for a disk or a pipe where nobody
//! else may.
//!
//! Workers hand it batches of whole lines through a bounded queue ([`LogSender`]) and drop what does not fit, so a
//! sink that is slow costs lines and nothing else. A sink that fails (a full disk, a reader of a pipe that is gone)
//! is said once, its lines count as dropped, and it is tried again once a second; the first line after a failure
//! begins on a new line. Commands (reopen after a rotation, another sink, close) are looked at before each batch;
//! an empty batch only wakes the thread for them.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use thiserror::Error;
use tracing::{error, info};

use crate::model::settings::AccessLog;
use crate::telemetry::access_log::{LogSender, lines};
use crate::telemetry::metrics::ProcessMetrics;

/// Batches that wait; each is usually at most 36 KiB.
const QUEUE: usize = 64;
/// Between two tries of a sink that fails.
const RETRY: Duration = Duration::from_secs(1);
/// How long a pipe that another process made non-blocking may be full before its lines are dropped.
const PATIENCE: Duration = Duration::from_secs(1);

/// The sink cannot be used.
#[derive(Debug, Error)]
pub enum AccessLogError {
    /// The file cannot be opened for appending.
    #[error("cannot open the access log {}: {cause}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Standard output is closed, or descriptors ran out.
    #[error("cannot write the access log to standard output: {0}")]
    Stdout(io::Error),
    /// No thread.
    #[error("cannot start the thread of the access log: {0}")]
    Thread(io::Error),
}

/// Where lines go.
#[derive(Debug)]
enum Sink {
    Off,
    Stdout(File),
    File { path: PathBuf, file: File },
}

#[derive(Debug)]
enum Command {
    Reopen,
    Switch(Sink),
    Close,
}

/// The control plane's hold on the writing thread.
#[derive(Debug)]
pub struct AccessLogWriter {
    queue: SyncSender<Vec<u8>>,
    commands: Sender<Command>,
    done: Receiver<()>,
    metrics: Arc<ProcessMetrics>,
}

impl AccessLogWriter {
    /// Opens the sink and starts the thread.
    pub fn start(log: &AccessLog, metrics: Arc<ProcessMetrics>) -> Result<Self, AccessLogError> {
        Self::start_with(Sink::open(log)?, metrics)
    }

    fn start_with(sink: Sink, metrics: Arc<ProcessMetrics>) -> Result<Self, AccessLogError> {
        let (queue, batches) = sync_channel(QUEUE);
        let (commands, orders) = channel();
        let (finished, done) = sync_channel(1);
        let mut thread = Thread {
            sink,
            failing: None,
            torn: false,
            metrics: metrics.clone(),
        };
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                thread.run(&batches, &orders);
                // From here on senders drop their lines and count them.
                drop((batches, orders));
                // Nobody waits if the process does not care how it ends.
                let _ = finished.try_send(());
            })
            .map_err(AccessLogError::Thread)?;
        Ok(Self {
            queue,
            commands,
            done,
            metrics,
        })
    }

    /// What a worker writes through.
    pub fn sender(&self) -> LogSender {
        LogSender::new(self.queue.clone(), self.metrics.clone())
    }

    /// Opens the file again by its name, after somebody renamed the one that is open. If that fails, the old one
    /// goes on.
    pub fn reopen(&self) {
        self.order(Command::Reopen);
    }

    /// Goes over to another sink, or none; on an error the old one goes on. Lines that wait in the queue go to the
    /// new one.
    pub fn switch(&self, log: &AccessLog) -> Result<(), AccessLogError> {
        self.order(Command::Switch(Sink::open(log)?));
        Ok(())
    }

    /// Writes what is queued, stops the thread and waits for it, at most for `bound`. False if it had not finished
    /// by then. Senders that are still about drop their lines from then on, and count them.
    pub fn close(self, bound: Duration) -> bool {
        self.order(Command::Close);
        self.done.recv_timeout(bound).is_ok()
    }

    fn order(&self, command: Command) {
        // Neither can fail while the thread runs; when it is gone there is nothing to order.
        let _ = self.commands.send(command);
        // If the queue is full, the thread is awake and looks before its next batch.
        let _ = self.queue.try_send(Vec::new());
    }
}

impl Drop for AccessLogWriter {
    fn drop(&mut self) {
        self.order(Command::Close);
    }
}

impl Sink {
    fn open(log: &AccessLog) -> Result<Self, AccessLogError> {
        match log {
            AccessLog::Off => Ok(Self::Off),
            AccessLog::Stdout => {
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                Ok(Self::Stdout(stdout.map_err(AccessLogError::Stdout)?.into()))
            }
            AccessLog::File(path) => {
                let file = open(path).map_err(|cause| AccessLogError::Open {
                    path: path.clone(),
                    cause,
                })?;
                Ok(Self::File {
                    path: path.clone(),
                    file,
                })
            }
        }
    }

    fn file(&mut self) -> Option<&mut File> {
        match self {
            Self::Off => None,
            Self::Stdout(file) | Self::File { file, .. } => Some(file),
        }
    }
}

/// Opens for appending. A named pipe without a reader is an error, not a wait.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let flags = fcntl_getfl(&file)?;
    fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

/// What the thread owns.
#[derive(Debug)]
struct Thread {
    sink: Sink,
    /// The sink fails, and is not tried before then.
    failing: Option<Instant>,
    /// The last write ended inside a line.
    torn: bool,
    metrics: Arc<ProcessMetrics>,
}

impl Thread {
    fn run(&mut self, batches: &Receiver<Vec<u8>>, commands: &Receiver<Command>) {
        let mut closing = false;
        while !closing {
            let Ok(batch) = batches.recv() else { return };
            while let Ok(command) = commands.try_recv() {
                closing |= self.obey(command);
            }
            self.take(&batch);
        }
        while let Ok(batch) = batches.try_recv() {
            self.take(&batch);
        }
    }

    /// True if that was the last command.
    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Reopen => self.reopen(),
            Command::Switch(sink) => {
                self.sink = sink;
                self.failing = None;
                self.torn = false;
            }
            Command::Close => return true,
        }
        false
    }

    fn reopen(&mut self) {
        let Sink::File { path, file } = &mut self.sink else {
            return;
        };
        match open(path) {
            Ok(fresh) => {
                *file = fresh;
                // A failure goes on until a write succeeds, so that its end is told; it need not wait longer.
                self.failing = self.failing.map(|_| Instant::now());
                info!(file = %path.display(), "access log is reopened");
            }
            Err(cause) => {
                error!(file = %path.display(), %cause, "cannot reopen the access log, the old one goes on");
            }
        }
    }

    fn take(&mut self, batch: &[u8]) {
        if batch.is_empty() {
            return;
        }
        if let Some(again) = self.failing {
            if Instant::now() < again {
                return self.metrics.access_log_dropped.add(lines(batch));
            }
            // A file that is gone or moved is found again by its name.
            if let Sink::File { path, file } = &mut self.sink
                && let Ok(fresh) = open(path)
            {
                *file = fresh;
            }
        }
        let Some(file) = self.sink.file() else { return };
        let (written, result) = write(file, self.torn, batch);
        if let Some(last) = batch[..written].last() {
            self.torn = *last != b'\n';
        }
        match result {
            Ok(()) => {
                if self.failing.take().is_some() {
                    info!("access log is written again");
                }
            }
            Err(cause) => {
                self.metrics
                    .access_log_dropped
                    .add(lines(&batch[written..]));
                if self.failing.replace(Instant::now() + RETRY).is_none() {
                    error!(%cause, "cannot write the access log: lines are lost until it can be written");
                }
            }
        }
    }
}

/// Writes all of `batch`, on a new line if the last one is `torn`; says how much of it was written.
fn write(file: &mut File, torn: bool, batch: &[u8]) -> (usize, io::Result<()>) {
    let mut patience = PATIENCE;
    if torn && let Err(error) = write_some(file, b"\n", &mut patience) {
        return (0, Err(error));
    }
    let mut written = 0;
    while written < batch.len() {
        match write_some(file, &batch[written..], &mut patience) {
            Ok(n) => written += n,
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

fn write_some(file: &mut File, bytes: &[u8], patience: &mut Duration) -> io::Result<usize> {
    const STEP: Duration = Duration::from_millis(10);
    loop {
        match file.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && !patience.is_zero() => {
                // There is nobody to unpark this thread; it may also wake early, which only makes it try again.
                std::thread::park_timeout(STEP);
                *patience = patience.saturating_sub(STEP);
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::PermissionsExt;
    use std::time::SystemTime;

    use tempfile::TempDir;

    use super::*;
    use crate::telemetry::access_log::Record;

    const BOUND: Duration = Duration::from_secs(60);

    fn record(listener: &str) -> Record<'_> {
        Record {
            time: SystemTime::now(),
            listener,
            client: "192.0.2.1".parse().unwrap(),
            peer: "192.0.2.1:1".parse().unwrap(),
            id: b"",
            protocol: "tcp",
            method: b"",
            host: b"",
            uri: b"",
            status: None,
            reason: None,
            route: None,
            cluster: None,
            backend: None,
            attempts: None,
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::ZERO,
            connect: None,
            response: None,
            user_agent: b"",
            referer: b"",
        }
    }

    fn write_one(sender: &mut LogSender, listener: &str) {
        sender.write(&record(listener));
        sender.flush();
    }

    /// The listeners of the lines of a file, each of which must be JSON.
    fn listeners(text: &str) -> Vec<String> {
        text.lines()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                value["listener"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    fn read(path: &Path) -> Vec<String> {
        listeners(&fs::read_to_string(path).unwrap_or_default())
    }

    fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < BOUND, "never: {what}");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    #[test]
    fn what_was_handed_over_is_written_before_it_closes() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("access.log");
        let metrics = Arc::new(ProcessMetrics::default());
        let log = AccessLog::File(path.clone());
        let writer = AccessLogWriter::start(&log, metrics.clone()).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "at most 0640: {mode:o}");
        let (mut a, mut b) = (writer.sender(), writer.sender());
        for _ in 0..300 {
            write_one(&mut a, "a");
            write_one(&mut b, "b");
        }
        a.write(&record("last"));
        drop(a);
        assert!(writer.close(BOUND));
        let seen = read(&path);
        assert_eq!(seen.len(), 601);
        assert_eq!(seen[600], "last");
        write_one(&mut b, "late");
        assert_eq!(metrics.access_log_dropped.get(), 1);
    }

    #[test]
    fn a_renamed_file_is_left_at_reopen() {
        let folder = TempDir::new().unwrap();
        let (path, old) = (
            folder.path().join("access.log"),
            folder.path().join("old.log"),
        );
        let writer =
            AccessLogWriter::start(&AccessLog::File(path.clone()), Arc::default()).unwrap();
        let mut sender = writer.sender();
        write_one(&mut sender, "1");
        eventually("written", || read(&path) == ["1"]);
        fs::rename(&path, &old).unwrap();
        write_one(&mut sender, "2");
        eventually("still the old one", || read(&old) == ["1", "2"]);
        writer.reopen();
        eventually("a new file", || path.exists());
        write_one(&mut sender, "3");
        assert!(writer.close(BOUND));
        assert_eq!(read(&old), ["1", "2"]);
        assert_eq!(read(&path), ["3"]);
    }

    #[test]
    fn another_sink_takes_over() {
        let folder = TempDir::new().unwrap();
        let (first, second) = (folder.path().join("1"), folder.path().join("2"));
        let metrics = Arc::new(ProcessMetrics::default());
        let writer = AccessLogWriter::start(&AccessLog::Off, metrics.clone()).unwrap();
        let mut sender = writer.sender();
        // What waits when the sink changes goes to the new one.
        write_one(&mut sender, "nowhere or 1");
        writer.reopen();
        writer.switch(&AccessLog::File(first.clone())).unwrap();
        write_one(&mut sender, "1");
        eventually("on", || read(&first).contains(&"1".to_owned()));
        let wrong = AccessLog::File(folder.path().join("no/such/folder"));
        let error = writer.switch(&wrong).unwrap_err().to_string();
        assert!(error.contains("no/such/folder"), "{error}");
        writer.switch(&AccessLog::File(second.clone())).unwrap();
        write_one(&mut sender, "2");
        eventually("over", || read(&second) == ["2"]);
        writer.switch(&AccessLog::Stdout).unwrap();
        writer.switch(&AccessLog::Off).unwrap();
        write_one(&mut sender, "nowhere");
        assert!(writer.close(BOUND));
        assert_eq!(read(&second), ["2"]);
        assert_eq!(metrics.access_log_dropped.get(), 0, "off is no loss");
    }

    #[test]
    fn a_reader_that_is_gone_costs_lines_and_nothing_else() {
        let (reader, writer) = io::pipe().unwrap();
        let metrics = Arc::new(ProcessMetrics::default());
        let sink = Sink::Stdout(File::from(OwnedFd::from(writer)));
        let writer = AccessLogWriter::start_with(sink, metrics.clone()).unwrap();
        let mut sender = writer.sender();
        drop(reader);
        write_one(&mut sender, "lost");
        eventually("counted", || metrics.access_log_dropped.get() == 1);
        write_one(&mut sender, "lost");
        eventually("counted", || metrics.access_log_dropped.get() == 2);
        assert!(writer.close(BOUND));
    }

    #[test]
    fn a_sink_that_recovers_is_used_again() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("access.log");
        // A full disk, as long as it stands under that name.
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let sink = Sink::File {
            path: path.clone(),
            file: full,
        };
        let metrics = Arc::new(ProcessMetrics::default());
        let writer = AccessLogWriter::start_with(sink, metrics.clone()).unwrap();
        let mut sender = writer.sender();
        let mut sent = 0;
        eventually("written", || {
            write_one(&mut sender, "x");
            sent += 1;
            !read(&path).is_empty()
        });
        assert!(writer.close(BOUND));
        let lost = metrics.access_log_dropped.get();
        assert!(lost > 0);
        assert_eq!(read(&path).len() as u64 + lost, sent);
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("access.log");
        let mut file = open(&path).unwrap();
        file.write_all(b"{\"half\":").unwrap();
        let (written, result) = write(&mut file, true, b"{}\n");
        assert!(result.is_ok());
        assert_eq!(written, 3);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"half\":\n{}\n");
    }

    #[test]
    fn a_reader_that_sleeps_fills_the_queue_and_no_memory() {
        let (mut reader, writer) = io::pipe().unwrap();
        let metrics = Arc::new(ProcessMetrics::default());
        let sink = Sink::Stdout(File::from(OwnedFd::from(writer)));
        let writer = AccessLogWriter::start_with(sink, metrics.clone()).unwrap();
        let mut sender = writer.sender();
        let mut sent = 0u64;
        // The pipe and the queue take what they take; then lines are dropped, and nobody waits.
        while metrics.access_log_dropped.get() == 0 {
            write_one(&mut sender, "x");
            sent += 1;
        }
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            listeners(&text).len() as u64
        });
        assert!(writer.close(BOUND));
        assert_eq!(
            reading.join().unwrap() + metrics.access_log_dropped.get(),
            sent
        );
    }

    #[test]
    fn closing_waits_no_longer_than_it_is_told() {
        let (reader, writer) = io::pipe().unwrap();
        let sink = Sink::Stdout(File::from(OwnedFd::from(writer)));
        let writer = AccessLogWriter::start_with(sink, Arc::default()).unwrap();
        let mut sender = writer.sender();
        for _ in 0..2_000 {
            sender.write(&record("x"));
        }
        sender.flush();
        assert!(!writer.close(Duration::from_millis(50)));
        drop(reader);
    }

    #[test]
    fn a_pipe_without_a_reader_is_an_error() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            &path,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        )
        .unwrap();
        assert!(AccessLogWriter::start(&AccessLog::File(path), Arc::default()).is_err());
    }
}
