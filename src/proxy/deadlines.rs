//! The clock of a worker and the deadlines of its connections, coarse and cheap.
//!
//! Setting a deadline is one store into a table; no timer is armed or disarmed for a read. One tick every [`TICK`], only
//! while there are connections, walks the table (8 bytes a connection) and wakes the tasks whose time has come. The time
//! in the table may be that of the last tick, so a deadline may be set up to a tick too early: it fires one tick after
//! its time at the earliest, and two at the latest.
//!
//! The system's clock is read once while a task runs ([`DeadlineTable::instant`]); [`DeadlineTable::forget_instant`] ends
//! that when the task waits.
//!
//! A row also knows what a connection depends on (listener, backend) and what it is doing, so that a removal or a drain
//! reaches exactly the connections that it concerns, without waking the others.

use std::cell::{Cell, RefCell};
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::backend::BackendId;
use crate::telemetry::outcome::Reason;

/// Between two walks of the table.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// A tick that is late by this much means that the worker, or the machine, stood still.
const LATE: Duration = Duration::from_millis(200);

const NEVER: u64 = u64::MAX;

/// Why a task was woken by the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fired {
    /// The deadline that the connection set itself has passed.
    Deadline,
    /// What it depends on was removed, and its drain has ended.
    Drained,
    /// It had been idle for the longest time when room was needed.
    Evicted,
}

/// What a connection would lose if it were closed: those that lose less are evicted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Activity {
    /// Nothing: it waits for its client.
    Idle,
    /// The beginning of a request whose head is not complete.
    PartialHead,
    /// Something is under way.
    Busy,
}

/// The table of one worker.
#[derive(Debug)]
pub(crate) struct DeadlineTable {
    epoch: Instant,
    /// The last reading of the clock, in milliseconds since `epoch`.
    now: Cell<u64>,
    instant: Cell<Instant>,
    /// Whether `instant` was read by the task that runs now.
    is_fresh: Cell<bool>,
    /// The earlier of a row's deadline and end of drain, apart from the rows so that a walk touches little.
    due: RefCell<Vec<u64>>,
    rows: RefCell<Vec<Row>>,
    free: RefCell<Vec<u32>>,
    open: Cell<usize>,
    first: Notify,
}

#[derive(Debug)]
struct Row {
    deadline: u64,
    /// End of the drain of its listener, or of the process.
    listener_end: u64,
    /// End of the drain of its backend: forgotten when the connection moves on to another one.
    backend_end: u64,
    /// When it ends as a session, because its backend went down or is no longer needed; and why. Likewise forgotten.
    session_end: u64,
    session_why: Option<Reason>,
    /// It is a session: bytes both ways, no requests.
    is_session: bool,
    listener: u64,
    backend: Option<BackendId>,
    activity: Activity,
    /// Since when it is so.
    activity_since: u64,
    fired: Option<Fired>,
    waker: Option<Waker>,
}

impl Row {
    fn new(listener: u64) -> Self {
        Self {
            deadline: NEVER,
            listener_end: NEVER,
            backend_end: NEVER,
            session_end: NEVER,
            session_why: None,
            is_session: false,
            listener,
            backend: None,
            activity: Activity::Busy,
            activity_since: 0,
            fired: None,
            waker: None,
        }
    }

    fn drain_end(&self) -> u64 {
        let session_end = if self.is_session {
            self.session_end
        } else {
            NEVER
        };
        self.listener_end.min(self.backend_end).min(session_end)
    }

    /// When the table must look at it next.
    fn due(&self) -> u64 {
        if self.fired.is_some() {
            NEVER
        } else {
            self.deadline.min(self.drain_end())
        }
    }
}

impl Default for DeadlineTable {
    fn default() -> Self {
        Self::new()
    }
}

impl DeadlineTable {
    /// An empty table.
    pub(crate) fn new() -> Self {
        let epoch = Instant::now();
        Self {
            epoch,
            now: Cell::new(0),
            instant: Cell::new(epoch),
            is_fresh: Cell::new(false),
            due: RefCell::default(),
            rows: RefCell::default(),
            free: RefCell::default(),
            open: Cell::new(0),
            first: Notify::new(),
        }
    }

    /// Milliseconds since the worker started, as of the last reading of the clock: a tick ago at most, or since the
    /// worker was idle.
    pub(crate) fn now(&self) -> u64 {
        self.now.get()
    }

    /// A time that has passed for certain, even for a deadline that counts from a reading that was a tick old.
    pub(crate) fn safe_now(&self) -> u64 {
        self.now.get().saturating_sub(TICK.as_millis() as u64)
    }

    /// The time; read from the system's clock once while a task runs.
    pub(crate) fn instant(&self) -> Instant {
        if !self.is_fresh.get() {
            self.update();
            self.is_fresh.set(true);
        }
        self.instant.get()
    }

    /// The task at hand waits: whoever asks for the time next reads the clock.
    pub(crate) fn forget_instant(&self) {
        self.is_fresh.set(false);
    }

    /// Reads the clock.
    pub(crate) fn update(&self) {
        let now = Instant::now();
        self.instant.set(now);
        self.is_fresh.set(false);
        self.now
            .set(now.saturating_duration_since(self.epoch).as_millis() as u64);
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.open.get()
    }

    /// A row for a connection of the listening sockets `listener`.
    pub(crate) fn enter(self: &Rc<Self>, listener: u64) -> ConnectionSlot {
        let row = Row::new(listener);
        let index = match self.free.borrow_mut().pop() {
            Some(index) => {
                self.rows.borrow_mut()[index as usize] = row;
                self.due.borrow_mut()[index as usize] = NEVER;
                index
            }
            None => {
                self.rows.borrow_mut().push(row);
                self.due.borrow_mut().push(NEVER);
                (self.due.borrow().len() - 1) as u32
            }
        };
        if self.open.replace(self.open.get() + 1) == 0 {
            self.update();
            self.first.notify_one();
        }
        ConnectionSlot {
            table: Rc::clone(self),
            index,
        }
    }

    /// Walks the table for ever; one task of the worker.
    pub(crate) async fn run(&self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut put_off = false;
        loop {
            if self.open.get() == 0 {
                self.first.notified().await;
            }
            let before = self.now.get();
            tick.tick().await;
            self.update();
            // If we did not run for a while, what came meanwhile is looked at first: it was us who were silent.
            let stood_still = self.now.get() - before > LATE.as_millis() as u64;
            put_off = stood_still && !put_off;
            if !put_off {
                self.fire_due();
            }
        }
    }

    fn fire_due(&self) {
        let now = self.safe_now();
        let mut due = self.due.borrow_mut();
        let mut rows = self.rows.borrow_mut();
        for (index, at) in due.iter_mut().enumerate() {
            if *at <= now {
                *at = NEVER;
                let row = &mut rows[index];
                row.fired = Some(if row.drain_end() <= now {
                    Fired::Drained
                } else {
                    Fired::Deadline
                });
                if let Some(waker) = &row.waker {
                    waker.wake_by_ref();
                }
            }
        }
    }

    /// Ends the connections that stand on `listener` (or on any) in `after` at the latest, and wakes those at rest.
    pub(crate) fn drain_listener(&self, listener: Option<u64>, after: Duration) {
        let end = self.after(after);
        self.drain(|row| {
            let concerned = listener.is_none_or(|id| row.listener == id);
            if concerned {
                row.listener_end = row.listener_end.min(end);
            }
            concerned
        });
    }

    /// Wakes those that have rested longest to end, at most `most` of them: of `listener`, or of any; those with half a
    /// head after the others. Returns how many.
    pub(crate) fn evict(&self, listener: Option<u64>, most: usize) -> usize {
        let mut rows = self.rows.borrow_mut();
        // The largest on top: what is the last to end of those that were found.
        let mut oldest = BinaryHeap::with_capacity(most + 1);
        for (index, row) in rows.iter().enumerate() {
            let concerned = listener.is_none_or(|id| row.listener == id);
            if concerned && row.activity != Activity::Busy && row.fired.is_none() {
                oldest.push((row.activity, row.activity_since, index));
                if oldest.len() > most {
                    oldest.pop();
                }
            }
        }
        for (_, _, index) in &oldest {
            let row = &mut rows[*index];
            row.fired = Some(Fired::Evicted);
            if let Some(waker) = &row.waker {
                waker.wake_by_ref();
            }
        }
        oldest.len()
    }

    /// Ends what stands on one of `backends` (sorted ids) in `after` at the latest.
    pub(crate) fn drain_backends(&self, backends: &[BackendId], after: Duration) {
        let end = self.after(after);
        self.drain(|row| {
            let departs = |id: BackendId| backends.binary_search(&id).is_ok();
            let concerned = row.backend.is_some_and(departs);
            if row.backend_end != NEVER && !concerned {
                // It has come back: what stands on it may stay.
                row.backend_end = NEVER;
                return true;
            }
            if concerned {
                row.backend_end = row.backend_end.min(end);
            }
            concerned
        });
    }

    /// Ends the sessions on `backend` in `after`; `None`: an earlier order no longer holds. What is no session yet
    /// follows when it becomes one.
    pub(crate) fn end_sessions(&self, backend: BackendId, after: Option<Duration>, why: Reason) {
        let end = after.map_or(NEVER, |after| self.after(after));
        let mut due = self.due.borrow_mut();
        for (row, due) in self.rows.borrow_mut().iter_mut().zip(due.iter_mut()) {
            if row.backend == Some(backend) {
                (row.session_end, row.session_why) = (end, Some(why));
                *due = row.due();
            }
        }
    }

    /// `after` from now in the table's time.
    fn after(&self, after: Duration) -> u64 {
        self.now.get().saturating_add(after.as_millis() as u64)
    }

    fn drain(&self, mut set_end: impl FnMut(&mut Row) -> bool) {
        let mut due = self.due.borrow_mut();
        for (row, due) in self.rows.borrow_mut().iter_mut().zip(due.iter_mut()) {
            if set_end(row) {
                *due = row.due();
                if let (Activity::Idle, Some(waker)) = (row.activity, &row.waker) {
                    waker.wake_by_ref();
                }
            }
        }
    }
}

/// One connection's row; free again when dropped.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    table: Rc<DeadlineTable>,
    index: u32,
}

impl ConnectionSlot {
    /// Remembers whom to wake. Once for each task is enough, since a task keeps its waker.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let mut rows = self.table.rows.borrow_mut();
        let row = &mut rows[self.index as usize];
        if row.waker.is_none() {
            row.waker = Some(cx.waker().clone());
        }
    }

    /// Sets the deadline `after` from now, in place of the one before.
    pub(crate) fn set_deadline(&self, after: Duration) {
        self.set_deadline_at(self.table.now().saturating_add(after.as_millis() as u64));
    }

    /// Sets the deadline in the table's milliseconds, in place of the one before.
    pub(crate) fn set_deadline_at(&self, at: u64) {
        let index = self.index as usize;
        let row = &mut self.table.rows.borrow_mut()[index];
        row.deadline = at;
        row.fired = row.fired.filter(|fired| *fired == Fired::Drained);
        self.table.due.borrow_mut()[index] = row.due();
    }

    /// What woke the connection, if the table did; taken.
    pub(crate) fn take_fired(&self) -> Option<Fired> {
        self.table.rows.borrow_mut()[self.index as usize]
            .fired
            .take()
    }

    /// Ready when the table has fired.
    pub(crate) fn poll_fired(&self, cx: &Context<'_>) -> Poll<Fired> {
        self.register(cx);
        self.take_fired().map_or(Poll::Pending, Poll::Ready)
    }

    /// Whether the connection waits for its client: one wholly at rest is woken by a drain, and evicted when room is
    /// needed; one that has half a head is evicted after those.
    pub(crate) fn set_activity(&self, activity: Activity) {
        let row = &mut self.table.rows.borrow_mut()[self.index as usize];
        if row.activity != activity {
            (row.activity, row.activity_since) = (activity, self.table.now());
        }
    }

    /// The backend that it depends on.
    pub(crate) fn set_backend(&self, backend: Option<BackendId>) {
        let index = self.index as usize;
        let row = &mut self.table.rows.borrow_mut()[index];
        row.backend = backend;
        if row.backend_end != NEVER || row.session_end != NEVER {
            (row.backend_end, row.session_end) = (NEVER, NEVER);
            self.table.due.borrow_mut()[index] = row.due();
        }
    }

    /// From now on it is a session.
    pub(crate) fn begin_session(&self) {
        self.change(|row, _| row.is_session = true, Duration::ZERO);
    }

    /// Why it was drained.
    pub(crate) fn drained_for(&self) -> Reason {
        let row = &self.table.rows.borrow()[self.index as usize];
        let by_order = row.session_end != NEVER && row.session_end == row.drain_end();
        row.session_why
            .filter(|_| by_order)
            .unwrap_or(Reason::Drained)
    }

    /// Ends the connection in `after` at the latest, unless it moves on to another backend before.
    pub(crate) fn drain_backend(&self, after: Duration) {
        self.change(|row, end| row.backend_end = row.backend_end.min(end), after);
    }

    /// Ends the connection in `after` at the latest.
    pub(crate) fn drain(&self, after: Duration) {
        self.change(
            |row, end| row.listener_end = row.listener_end.min(end),
            after,
        );
    }

    fn change(&self, set: impl Fn(&mut Row, u64), after: Duration) {
        let index = self.index as usize;
        let row = &mut self.table.rows.borrow_mut()[index];
        set(row, self.table.after(after));
        self.table.due.borrow_mut()[index] = row.due();
    }

    /// The table's time.
    pub(crate) fn now(&self) -> u64 {
        self.table.now()
    }

    /// [`DeadlineTable::safe_now`].
    pub(crate) fn safe_now(&self) -> u64 {
        self.table.safe_now()
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.table.rows.borrow_mut()[self.index as usize] = Row::new(0);
        self.table.due.borrow_mut()[self.index as usize] = NEVER;
        self.table.free.borrow_mut().push(self.index);
        self.table.open.set(self.table.open.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(table: &Rc<DeadlineTable>, listener: u64) -> ConnectionSlot {
        let session = table.enter(listener);
        session.register(&Context::from_waker(Waker::noop()));
        session
    }

    fn advance(table: &DeadlineTable, ms: u64) {
        table.now.set(table.now.get() + ms);
        table.fire_due();
    }

    #[test]
    fn a_deadline_fires_once_and_can_be_moved() {
        let table = Rc::new(DeadlineTable::new());
        let session = registered(&table, 1);
        session.set_deadline(Duration::from_secs(1));
        advance(&table, 1049);
        assert_eq!(
            session.take_fired(),
            None,
            "it may have been set 50 ms after the time that it counts from"
        );
        session.set_deadline(Duration::from_secs(1));
        advance(&table, 1049);
        assert_eq!(session.take_fired(), None);
        advance(&table, 1);
        assert_eq!(session.take_fired(), Some(Fired::Deadline));
        advance(&table, 10_000);
        assert_eq!(session.take_fired(), None);
    }

    #[test]
    fn a_drain_reaches_only_those_it_concerns() {
        let table = Rc::new(DeadlineTable::new());
        let (first, second) = (registered(&table, 1), registered(&table, 2));
        second.set_backend(Some(BackendId::of(7)));
        first.set_deadline(Duration::from_secs(100));
        table.drain_listener(Some(1), Duration::from_secs(1));
        first.set_deadline(Duration::from_secs(100));
        advance(&table, 1050);
        assert_eq!(
            first.take_fired(),
            Some(Fired::Drained),
            "a new deadline does not put off the drain"
        );
        assert_eq!(second.take_fired(), None);
        table.drain_backends(&[BackendId::of(7), BackendId::of(9)], Duration::ZERO);
        advance(&table, 50);
        assert_eq!(second.take_fired(), Some(Fired::Drained));
    }

    #[test]
    fn a_connection_that_moves_on_does_not_drain_with_its_former_backend() {
        let table = Rc::new(DeadlineTable::new());
        let session = registered(&table, 1);
        session.set_backend(Some(BackendId::of(7)));
        table.drain_backends(&[BackendId::of(7)], Duration::from_secs(1));
        session.set_backend(None);
        advance(&table, 10_000);
        assert_eq!(session.take_fired(), None);
    }

    #[test]
    fn an_order_ends_sessions_on_one_backend_and_no_requests() {
        let table = Rc::new(DeadlineTable::new());
        let [session, request, other, moved] = [(); 4].map(|()| registered(&table, 1));
        for (row, backend) in [(&session, 7), (&request, 7), (&other, 8), (&moved, 7)] {
            row.set_backend(Some(BackendId::of(backend)));
        }
        for row in [&session, &other, &moved] {
            row.begin_session();
        }
        table.end_sessions(BackendId::of(7), Some(Duration::ZERO), Reason::BackendDown);
        moved.set_backend(Some(BackendId::of(8)));
        advance(&table, 50);
        assert_eq!(session.take_fired(), Some(Fired::Drained));
        assert_eq!(session.drained_for(), Reason::BackendDown);
        for row in [&request, &other, &moved] {
            assert_eq!(row.take_fired(), None);
        }
        // It was a request when the order came, and is upgraded after it.
        request.begin_session();
        advance(&table, 50);
        assert_eq!(request.take_fired(), Some(Fired::Drained));
        assert_eq!(request.drained_for(), Reason::BackendDown);
    }

    #[test]
    fn an_order_can_be_taken_back() {
        let table = Rc::new(DeadlineTable::new());
        let session = registered(&table, 1);
        session.set_backend(Some(BackendId::of(7)));
        session.begin_session();
        table.end_sessions(
            BackendId::of(7),
            Some(Duration::from_secs(1)),
            Reason::BackendDown,
        );
        table.end_sessions(BackendId::of(7), None, Reason::BackendDown);
        advance(&table, 10_000);
        assert_eq!(session.take_fired(), None);
        session.drain(Duration::ZERO);
        assert_eq!(session.drained_for(), Reason::Drained);
    }

    #[test]
    fn half_a_head_is_evicted_after_all_that_rest() {
        let table = Rc::new(DeadlineTable::new());
        let [half, whole, at_work] = [(); 3].map(|()| registered(&table, 1));
        half.set_activity(Activity::PartialHead);
        advance(&table, 10);
        whole.set_activity(Activity::Idle);
        assert_eq!(table.evict(None, 1), 1);
        assert_eq!(whole.take_fired(), Some(Fired::Evicted));
        whole.set_activity(Activity::Busy);
        assert_eq!(table.evict(None, 5), 1);
        assert_eq!(half.take_fired(), Some(Fired::Evicted));
        assert_eq!(at_work.take_fired(), None);
    }

    #[test]
    fn those_that_rested_longest_are_evicted() {
        let table = Rc::new(DeadlineTable::new());
        let all: Vec<ConnectionSlot> = (0..5).map(|index| registered(&table, index % 2)).collect();
        for session in &all[..4] {
            session.set_activity(Activity::Idle);
            advance(&table, 10);
            session.set_activity(Activity::Idle);
        }
        all[0].set_activity(Activity::Busy);
        let evicted = || -> Vec<usize> {
            let fired = |(index, session): (usize, &ConnectionSlot)| {
                (session.take_fired() == Some(Fired::Evicted)).then_some(index)
            };
            all.iter().enumerate().filter_map(fired).collect()
        };
        assert_eq!(table.evict(None, 2), 2);
        assert_eq!(evicted(), [1, 2]);
        assert_eq!(table.evict(Some(1), 5), 2);
        assert_eq!(evicted(), [1, 3]);
        table.evict(None, 1);
        all[1].set_deadline(Duration::from_secs(1));
        assert!(evicted().is_empty(), "it is at work again");
    }

    #[test]
    fn slots_are_used_again() {
        let table = Rc::new(DeadlineTable::new());
        drop(registered(&table, 1));
        let again = registered(&table, 1);
        assert_eq!((again.index, table.open()), (0, 1));
    }
}
