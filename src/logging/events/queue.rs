//! The queue between those who have something to say and the one thread that writes it.
//!
//! A record is handed over whole and nobody waits: what finds the queue full is lost and counted. Losses are said in
//! the log itself, at the place where they happened, as soon as half of the queue is free again, so that a slow reader
//! gets one such line for a run of losses and not one for each record. The writer alone waits for the sink, for as long
//! as it takes; a sink that fails (a full disk, a pipe whose reader has gone) is tried again once a second, from where
//! it failed.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::telemetry::metrics::ProcessMetrics;

/// Bytes that wait at most.
pub(super) const QUEUE: usize = 1 << 20;
/// Longest record; what is longer ends in [`CUT`].
const RECORD: usize = 256 << 10;
const CUT: &str = " … (cut)\n";
/// Between two tries of a sink that is non-blocking and full.
const STEP: Duration = Duration::from_millis(10);
/// Between two tries of a sink that fails.
const RETRY: Duration = Duration::from_secs(1);

/// Makes the record that says how many are lost.
pub(super) type Loss = Box<dyn Fn(u64) -> Vec<u8> + Send + Sync>;

/// See the module. Clones share the queue.
#[derive(Clone)]
pub(super) struct Queue(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    metrics: Arc<ProcessMetrics>,
    most: usize,
    loss: Loss,
}

#[derive(Default)]
struct State {
    records: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lost since the last word about it.
    lost: u64,
    /// The writer has a record in its hands.
    writing: bool,
}

impl Queue {
    /// A queue of at most `most` bytes, and the thread that writes what it holds to `sink`.
    ///
    /// # Errors
    /// No thread.
    pub(super) fn start(
        most: usize,
        sink: impl Write + Send + 'static,
        metrics: Arc<ProcessMetrics>,
        loss: Loss,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
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

    /// Hands a record over, or loses it. Never waits for the sink.
    pub(super) fn push(&self, record: &[u8]) {
        self.0.push(record);
    }

    /// Waits until all that was handed over is written, at most for `bound`; whether it is.
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

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, record: &[u8]) {
        let record = bounded(record);
        let mut state = self.lock();
        // Once something is lost, all is until there is room for more than the next record.
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
        self.say_losses(&mut state);
        state.bytes += record.len();
        state.records.push_back(record);
        drop(state);
        self.changed.notify_all();
    }

    /// Puts the word about what was lost into the queue, if anything was.
    fn say_losses(&self, state: &mut State) {
        if state.lost > 0 {
            let said = (self.loss)(std::mem::take(&mut state.lost));
            state.bytes += said.len();
            state.records.push_back(said);
        }
    }

    /// The writer's life.
    fn write_all(&self, mut sink: impl Write) {
        loop {
            let record = self.next();
            write(&mut sink, &record);
        }
    }

    /// The next record; says that the one before is done.
    fn next(&self) -> Vec<u8> {
        let mut state = self.lock();
        state.writing = false;
        loop {
            if state.records.is_empty() {
                self.say_losses(&mut state);
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

/// The record, at most [`RECORD`] long, and still a line.
fn bounded(record: &[u8]) -> Vec<u8> {
    if record.len() <= RECORD {
        return record.to_vec();
    }
    let text = String::from_utf8_lossy(&record[..RECORD - CUT.len()]);
    let mut cut = text.trim_end_matches('\u{fffd}').as_bytes().to_vec();
    cut.extend_from_slice(CUT.as_bytes());
    cut
}

/// Writes one record, however often that takes.
fn write(sink: &mut impl Write, record: &[u8]) {
    let mut written = 0;
    while written < record.len() {
        // There is nobody to unpark this thread.
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

    /// A sink that takes as much as it is given leave for.
    struct Reluctant {
        leave: Receiver<io::Result<()>>,
        taken: SyncSender<Vec<u8>>,
    }

    impl Write for Reluctant {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.leave.recv() {
                Ok(leave) => leave?,
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
        leave: SyncSender<io::Result<()>>,
        taken: Receiver<Vec<u8>>,
        metrics: Arc<ProcessMetrics>,
    }

    impl Bench {
        fn new(most: usize) -> Self {
            let (leave, leaves) = sync_channel(1000);
            let (took, taken) = sync_channel(1000);
            let sink = Reluctant {
                leave: leaves,
                taken: took,
            };
            let metrics = Arc::new(ProcessMetrics::default());
            let loss = Box::new(|lost| format!("lost {lost}\n").into_bytes());
            let queue = Queue::start(most, sink, Arc::clone(&metrics), loss).unwrap();
            Self {
                queue,
                leave,
                taken,
                metrics,
            }
        }

        fn let_through(&self, count: usize) {
            (0..count).for_each(|_| self.leave.send(Ok(())).unwrap());
        }

        fn taken(&self) -> String {
            String::from_utf8(self.taken.recv_timeout(SOON).unwrap()).unwrap()
        }

        /// The writer has the first record in its hands, and the queue is empty.
        fn occupy(&self) {
            self.queue.push(b"first\n");
            while self.queue.0.lock().bytes > 0 {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_sink_that_takes_nothing_holds_up_nobody_and_losses_are_said_in_their_place() {
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
        // Said though nothing else is.
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
            bench.leave.send(Err(error)).unwrap();
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
