//! The thread that writes the access log. It alone owns the sink and may wait for a disk or a pipe.
//!
//! Workers send it batches of whole lines through a bounded queue ([`LogSender`]) and drop what does not fit, so a slow
//! sink costs lines and nothing else. A failure of the sink (a full disk, a pipe whose reader has gone) is logged once,
//! its lines count as dropped, and it is tried again once a second; the first line after a failure begins on a new
//! line. Commands (reopen after a rotation, another sink, close) are obeyed before each batch; an empty batch only
//! wakes the thread for them.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::geteuid;
use thiserror::Error;
use tracing::{error, info};

use crate::files;
use crate::model::settings::AccessLog;
use crate::telemetry::access_log::{LogSender, lines};
use crate::telemetry::metrics::ProcessMetrics;

/// Batches that may wait; each is usually at most 36 KiB.
const QUEUE: usize = 64;
/// Time between two tries of a sink that fails.
const RETRY: Duration = Duration::from_secs(1);
/// How long a pipe that another process has made non-blocking may be full before lines are dropped.
const FULL_PIPE: Duration = Duration::from_secs(1);

/// Why the access log cannot be written.
#[derive(Debug, Error)]
pub(crate) enum AccessLogError {
    /// The file cannot be opened for appending.
    #[error("cannot open the access log {}: {cause}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Standard output is closed, or descriptors ran out.
    #[error("cannot write the access log to standard output: {0}")]
    Stdout(io::Error),
    /// The thread cannot be started.
    #[error("cannot start the thread of the access log: {0}")]
    Thread(io::Error),
}

/// An opened access log, for a writer to switch to.
#[derive(Debug)]
pub(crate) struct AccessLogSink(Sink);

/// Where lines go.
#[derive(Debug)]
enum Sink {
    Off,
    Stdout(File),
    File { path: PathBuf, file: File },
}

#[derive(Debug)]
enum WriterCommand {
    Reopen,
    Switch(Sink),
    Close,
}

/// The control plane's handle to the writing thread.
#[derive(Debug)]
pub(crate) struct AccessLogWriter {
    queue: SyncSender<Vec<u8>>,
    commands: Sender<WriterCommand>,
    done: Receiver<()>,
    metrics: Arc<ProcessMetrics>,
}

impl AccessLogWriter {
    /// Opens the sink and starts the thread.
    pub(crate) fn start(
        log: &AccessLog,
        metrics: Arc<ProcessMetrics>,
    ) -> Result<Self, AccessLogError> {
        Self::start_with(Sink::open(log)?, metrics)
    }

    fn start_with(sink: Sink, metrics: Arc<ProcessMetrics>) -> Result<Self, AccessLogError> {
        let (queue, batches) = sync_channel(QUEUE);
        let (commands, orders) = channel();
        let (finished, done) = sync_channel(1);
        let mut thread = WriterThread {
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
                // At an early exit nothing waits for it.
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

    /// A sender for a worker.
    pub(crate) fn sender(&self) -> LogSender {
        LogSender::new(self.queue.clone(), self.metrics.clone())
    }

    /// Opens the file again by its name, after a rotation has renamed the open one. If that fails, the open one stays
    /// in use.
    pub(crate) fn reopen(&self) {
        self.order(WriterCommand::Reopen);
    }

    /// Switches to another sink. Lines that wait in the queue go to the new one.
    pub(crate) fn switch(&self, sink: AccessLogSink) {
        self.order(WriterCommand::Switch(sink.0));
    }

    /// Writes what is queued, stops the thread and waits for it, for at most `bound`. Whether it has finished by then.
    /// Remaining senders drop their lines from then on, and count them.
    pub(crate) fn close(self, bound: Duration) -> bool {
        self.order(WriterCommand::Close);
        self.done.recv_timeout(bound).is_ok()
    }

    fn order(&self, command: WriterCommand) {
        // Neither can fail while the thread runs; afterwards there is nothing to order.
        let _ = self.commands.send(command);
        // If the queue is full, the thread is awake and looks before its next batch.
        let _ = self.queue.try_send(Vec::new());
    }
}

impl Drop for AccessLogWriter {
    fn drop(&mut self) {
        self.order(WriterCommand::Close);
    }
}

impl AccessLogSink {
    /// Opens a sink; a file is made if it does not exist (blocking, for at most [`files::BOUND`]).
    ///
    /// # Errors
    /// Why it cannot be written to.
    pub(crate) fn open(log: &AccessLog) -> Result<Self, AccessLogError> {
        Sink::open(log).map(Self)
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
                let opened = path.clone();
                // A reload must not wait long for a mount that hangs.
                let file = files::bounded(path, move || open(&opened)).map_err(|cause| {
                    AccessLogError::Open {
                        path: path.clone(),
                        cause,
                    }
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
///
/// As root, in a directory where others can create files, they could make the proxy write into any file: so as root no
/// link is followed, and an existing file must belong to root.
fn open(path: &Path) -> io::Result<File> {
    open_as(path, geteuid().is_root())
}

fn open_as(path: &Path, root: bool) -> io::Result<File> {
    let careful = if root { libc::O_NOFOLLOW } else { 0 };
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | careful)
        .open(path);
    let file = match opened {
        Err(error) if root && error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(io::Error::other(
                "it is a symbolic link, and as root none is followed (for standard output, write \"stdout\")",
            ));
        }
        opened => opened?,
    };
    let owner = file.metadata()?.uid();
    if root && owner != 0 {
        return Err(io::Error::other(format!(
            "it belongs to user {owner}, and as root only a file of root's own is written (chown it, or run as that user)"
        )));
    }
    let flags = fcntl_getfl(&file)?;
    fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

/// The state of the writing thread.
#[derive(Debug)]
struct WriterThread {
    sink: Sink,
    /// When a sink that fails is tried again.
    failing: Option<Instant>,
    /// The last write ended inside a line.
    torn: bool,
    metrics: Arc<ProcessMetrics>,
}

impl WriterThread {
    fn run(&mut self, batches: &Receiver<Vec<u8>>, commands: &Receiver<WriterCommand>) {
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

    /// Whether that was the last command.
    fn obey(&mut self, command: WriterCommand) -> bool {
        match command {
            WriterCommand::Reopen => self.reopen(),
            WriterCommand::Switch(sink) => {
                self.sink = sink;
                self.failing = None;
                self.torn = false;
            }
            WriterCommand::Close => return true,
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
                // A failure lasts until a write succeeds, so that its end is logged; it need not wait longer.
                self.failing = self.failing.map(|_| Instant::now());
                info!(file = %path.display(), "access log is reopened");
            }
            Err(cause) => {
                error!(file = %path.display(), %cause, "cannot reopen the access log; still writing to the old file");
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
            // A file that was removed or renamed is found again by its name.
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
                    error!(%cause, "cannot write the access log; lines are lost until it can be written again");
                }
            }
        }
    }
}

/// Writes all of `batch`, on a new line if the last one is `torn`. How much of it was written.
fn write(file: &mut File, torn: bool, batch: &[u8]) -> (usize, io::Result<()>) {
    let mut patience = FULL_PIPE;
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
                // Nothing unparks this thread; it may also wake early, which only makes it try again.
                std::thread::park_timeout(STEP);
                *patience = patience.saturating_sub(STEP);
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests;
