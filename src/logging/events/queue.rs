//! The queue between the threads that log and the one thread that writes.
//!
//! A record is put into the queue whole and nobody waits: a record that finds the queue full is lost and counted.
//! Losses are reported in the log itself, at the place where they happened, as soon as half of the queue is free again,
//! so that a slow reader gets one such line for a run of losses and not one for each record. Only the writer waits for
//! the sink, for as long as it takes; a sink that fails (a full disk, a pipe whose reader has gone) is tried again once
//! a second, from where it failed.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::telemetry::metrics::ProcessMetrics;

/// Most bytes that wait.
pub(super) const QUEUE: usize = 1 << 20;
/// Bytes of the longest record; a longer one is cut and ends in [`CUT`].
const RECORD: usize = 256 << 10;
const CUT: &str = " … (cut)\n";
/// Time between two tries of a sink that is non-blocking and full.
const STEP: Duration = Duration::from_millis(10);
/// Time between two tries of a sink that fails.
const RETRY: Duration = Duration::from_secs(1);

/// Makes the record that reports how many are lost.
pub(super) type LossRecord = Box<dyn Fn(u64) -> Vec<u8> + Send + Sync>;

/// The end of the queue where records go in; clones share the queue.
#[derive(Clone)]
pub(super) struct Queue(Arc<SharedQueue>);

struct SharedQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
    metrics: Arc<ProcessMetrics>,
    most: usize,
    loss: LossRecord,
}

#[derive(Default)]
struct QueueState {
    records: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Records lost since the last report of losses.
    lost: u64,
    /// Whether the writer has taken a record and not written it yet.
    writing: bool,
}

impl Queue {
    /// A queue of at most `most` bytes, and the thread that writes what it holds to `sink`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(
        most: usize,
        sink: impl Write + Send + 'static,
        metrics: Arc<ProcessMetrics>,
        loss: LossRecord,
    ) -> io::Result<Self> {
        let shared = Arc::new(SharedQueue {
            state: Mutex::default(),
            changed: Condvar::new(),
            metrics,
            most,
            loss,
        });
        let read = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("event-log".to_owned())
            .spawn(move || read.write_all(sink))?;
        Ok(Self(shared))
    }

    /// Puts a record into the queue, or loses it. Never waits for the sink.
    pub(super) fn push(&self, record: &[u8]) {
        self.0.push(record);
    }

    /// Waits until all records so far are written, for at most `bound`. Whether they are.
    pub(super) fn flush(&self, bound: Duration) -> bool {
        let until = Instant::now() + bound;
        let mut state = self.0.lock();
        while state.writing || !state.records.is_empty() || state.lost > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl SharedQueue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, record: &[u8]) {
        let record = bounded(record);
        let mut state = self.lock();
        // Once a record is lost, all are, until there is room for more than the next one.
        let most = if state.lost > 0 {
            self.most / 2
        } else {
            self.most
        };
        if state.bytes + record.len() > most {
            state.lost += 1;
            self.metrics.events_dropped.add(1);
            return;
        }
        self.report_losses(&mut state);
        state.bytes += record.len();
        state.records.push_back(record);
        drop(state);
        self.changed.notify_all();
    }

    /// Puts a report of what was lost into the queue, if anything was.
    fn report_losses(&self, state: &mut QueueState) {
        if state.lost > 0 {
            let report = (self.loss)(std::mem::take(&mut state.lost));
            state.bytes += report.len();
            state.records.push_back(report);
        }
    }

    /// Writes every record to the sink, for ever.
    fn write_all(&self, mut sink: impl Write) {
        loop {
            let record = self.next();
            write(&mut sink, &record);
        }
    }

    /// Waits for the next record; the previous one is done.
    fn next(&self) -> Vec<u8> {
        let mut state = self.lock();
        state.writing = false;
        loop {
            if state.records.is_empty() {
                self.report_losses(&mut state);
            }
            if let Some(record) = state.records.pop_front() {
                state.bytes -= record.len();
                state.writing = true;
                return record;
            }
            self.changed.notify_all();
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The record, at most [`RECORD`] bytes of it, and still a line.
fn bounded(record: &[u8]) -> Vec<u8> {
    if record.len() <= RECORD {
        return record.to_vec();
    }
    let text = String::from_utf8_lossy(&record[..RECORD - CUT.len()]);
    let mut cut = text.trim_end_matches('\u{fffd}').as_bytes().to_vec();
    cut.extend_from_slice(CUT.as_bytes());
    cut
}

/// Writes one record, with as many tries as it takes.
fn write(sink: &mut impl Write, record: &[u8]) {
    let mut written = 0;
    while written < record.len() {
        // Nothing unparks this thread.
        match sink.write(&record[written..]) {
            Ok(0) => std::thread::park_timeout(RETRY),
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another process has made it non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::park_timeout(STEP),
            Err(_) => std::thread::park_timeout(RETRY),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    /// A sink that takes one record for each permission.
    struct Reluctant {
        permits: Receiver<io::Result<()>>,
        taken: SyncSender<Vec<u8>>,
    }

    impl Write for Reluctant {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.permits.recv() {
                Ok(permit) => permit?,
                Err(_) => loop {
                    std::thread::park();
                },
            }
            let _ = self.taken.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Bench {
        queue: Queue,
        permits: SyncSender<io::Result<()>>,
        taken: Receiver<Vec<u8>>,
        metrics: Arc<ProcessMetrics>,
    }

    impl Bench {
        fn new(most: usize) -> Self {
            let (permits, permitted) = sync_channel(1000);
            let (took, taken) = sync_channel(1000);
            let sink = Reluctant {
                permits: permitted,
                taken: took,
            };
            let metrics = Arc::new(ProcessMetrics::default());
            let loss = Box::new(|lost| format!("lost {lost}\n").into_bytes());
            let queue = Queue::start(most, sink, Arc::clone(&metrics), loss).unwrap();
            Self {
                queue,
                permits,
                taken,
                metrics,
            }
        }

        fn let_through(&self, count: usize) {
            (0..count).for_each(|_| self.permits.send(Ok(())).unwrap());
        }

        fn taken(&self) -> String {
            String::from_utf8(self.taken.recv_timeout(SOON).unwrap()).unwrap()
        }

        /// Returns when the writer has taken a first record, and the queue is empty.
        fn occupy(&self) {
            self.queue.push(b"first\n");
            while self.queue.0.lock().bytes > 0 {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_sink_that_takes_nothing_holds_up_nobody_and_losses_are_reported_in_their_place() {
        let bench = Bench::new(40);
        bench.occupy();
        for i in 0..20 {
            bench.queue.push(format!("record {i}\n").as_bytes());
        }
        // Four of nine bytes fit, and from then on all are lost, short ones too.
        bench.queue.push(b"x\n");
        assert_eq!(bench.metrics.events_dropped.get(), 17);
        assert!(!bench.queue.flush(Duration::from_millis(1)));
        bench.let_through(3);
        assert_eq!(bench.taken(), "first\n");
        assert_eq!(bench.taken(), "record 0\n");
        assert_eq!(bench.taken(), "record 1\n");
        bench.let_through(100);
        assert_eq!(bench.taken(), "record 2\n");
        assert_eq!(bench.taken(), "record 3\n");
        // Reported though nothing else is logged.
        assert_eq!(bench.taken(), "lost 17\n");
        assert!(bench.queue.flush(SOON));
        bench.queue.push(b"last\n");
        assert_eq!(bench.taken(), "last\n");
        assert!(bench.queue.flush(SOON));
        assert_eq!(bench.metrics.events_dropped.get(), 17);
    }

    #[test]
    fn half_of_the_queue_is_free_before_it_takes_something_again() {
        let bench = Bench::new(40);
        bench.occupy();
        for _ in 0..5 {
            bench.queue.push(b"123456789\n");
        }
        assert_eq!(bench.metrics.events_dropped.get(), 1);
        bench.let_through(1);
        bench.taken();
        while bench.queue.0.lock().bytes > 30 {
            std::thread::yield_now();
        }
        bench.queue.push(b"lost\n");
        bench.let_through(3);
        (0..3).for_each(|_| drop(bench.taken()));
        while bench.queue.0.lock().bytes > 0 {
            std::thread::yield_now();
        }
        bench.queue.push(b"kept\n");
        bench.let_through(10);
        let rest: String = (0..3).map(|_| bench.taken()).collect();
        assert_eq!(rest, "123456789\nlost 2\nkept\n");
    }

    #[test]
    fn a_sink_that_fails_is_tried_again() {
        let bench = Bench::new(100);
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        for error in [
            full,
            ErrorKind::Interrupted.into(),
            ErrorKind::WouldBlock.into(),
        ] {
            bench.permits.send(Err(error)).unwrap();
        }
        bench.let_through(1);
        bench.queue.push(b"whole\n");
        assert_eq!(bench.taken(), "whole\n");
        assert_eq!(bench.metrics.events_dropped.get(), 0);
    }

    #[test]
    fn a_record_is_bounded() {
        let long = "é".repeat(RECORD);
        for shift in 0..2 {
            let record = format!("{}{long}\n", "x".repeat(shift));
            let cut = String::from_utf8(bounded(record.as_bytes())).unwrap();
            assert!(cut.len() <= RECORD && cut.ends_with(CUT), "{}", cut.len());
        }
        assert_eq!(bounded(b"short\n"), b"short\n");
    }
}
