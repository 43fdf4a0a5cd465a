//! Deadlines of a worker's connections, coarse and cheap.
//!
//! Setting a deadline is one store into a table; no timer is armed or disarmed for a read. One tick every [`TICK`],
//! only while there are connections, walks the table (8 bytes a connection) and wakes the tasks whose time has come.
//! The time is that of the last tick unless somebody told an exact one, so a deadline was set up to a tick too early: it
//! fires a tick after it at the earliest, and two at the latest.
//!
//! A slot also knows what a connection stands on (listener, backend) and whether it is at rest, so that a removal
//! or a drain reaches exactly those it concerns without waking the others.

use std::cell::{Cell, RefCell};
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::telemetry::outcome::Reason;

/// Between two walks of the table.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// A tick that comes so late says that the worker, or the machine, stood still.
const LATE: Duration = Duration::from_millis(200);

const NEVER: u64 = u64::MAX;

/// Why a task was woken by the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fired {
    /// The deadline that the connection set itself has passed.
    Deadline,
    /// What it stands on was removed, and its drain has ended.
    Drained,
    /// It had rested for the longest time when room was needed.
    Evicted,
}

/// What a connection would lose if it were closed: those that lose less are evicted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rest {
    /// Nothing: it waits for its client.
    Whole,
    /// The beginning of a request whose head is not whole.
    Half,
    /// Something is under way.
    AtWork,
}

/// The table of one worker.
#[derive(Debug)]
pub(crate) struct Sessions {
    epoch: Instant,
    now: Cell<u64>,
    /// The earlier of a slot's deadline and end of drain, apart from the slots so that a walk touches little.
    due: RefCell<Vec<u64>>,
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
    open: Cell<usize>,
    first: Notify,
}

#[derive(Debug)]
struct Slot {
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
    backend: u64,
    rest: Rest,
    /// Since when it is so.
    rests_since: u64,
    fired: Option<Fired>,
    waker: Option<Waker>,
}

impl Slot {
    fn new(listener: u64) -> Self {
        Self {
            deadline: NEVER,
            listener_end: NEVER,
            backend_end: NEVER,
            session_end: NEVER,
            session_why: None,
            is_session: false,
            listener,
            backend: 0,
            rest: Rest::AtWork,
            rests_since: 0,
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

impl Default for Sessions {
    fn default() -> Self {
        Self::new()
    }
}

impl Sessions {
    /// An empty table.
    pub(crate) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            now: Cell::new(0),
            due: RefCell::default(),
            slots: RefCell::default(),
            free: RefCell::default(),
            open: Cell::new(0),
            first: Notify::new(),
        }
    }

    /// Milliseconds since the worker started, as of the last tick or [`Self::tell_time`].
    pub(crate) fn now(&self) -> u64 {
        self.now.get()
    }

    /// A time that has passed however old the one was that a deadline counts from.
    pub(crate) fn past(&self) -> u64 {
        self.now.get().saturating_sub(TICK.as_millis() as u64)
    }

    /// Takes an exact time that was read anyway.
    pub(crate) fn tell_time(&self, now: Instant) {
        self.now
            .set(now.saturating_duration_since(self.epoch).as_millis() as u64);
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.open.get()
    }

    /// A slot for a connection of the listening sockets `listener`.
    pub(crate) fn enter(self: &Rc<Self>, listener: u64) -> Session {
        let slot = Slot::new(listener);
        let index = match self.free.borrow_mut().pop() {
            Some(index) => {
                self.slots.borrow_mut()[index as usize] = slot;
                self.due.borrow_mut()[index as usize] = NEVER;
                index
            }
            None => {
                self.slots.borrow_mut().push(slot);
                self.due.borrow_mut().push(NEVER);
                (self.due.borrow().len() - 1) as u32
            }
        };
        if self.open.replace(self.open.get() + 1) == 0 {
            self.tell_time(Instant::now());
            self.first.notify_one();
        }
        Session {
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
            self.tell_time(Instant::now());
            // If we did not run for a while, what came meanwhile is looked at first: it was us who were silent.
            let stood_still = self.now.get() - before > LATE.as_millis() as u64;
            put_off = stood_still && !put_off;
            if !put_off {
                self.fire_due();
            }
        }
    }

    fn fire_due(&self) {
        let now = self.past();
        let mut due = self.due.borrow_mut();
        let mut slots = self.slots.borrow_mut();
        for (index, at) in due.iter_mut().enumerate() {
            if *at <= now {
                *at = NEVER;
                let slot = &mut slots[index];
                slot.fired = Some(if slot.drain_end() <= now {
                    Fired::Drained
                } else {
                    Fired::Deadline
                });
                if let Some(waker) = &slot.waker {
                    waker.wake_by_ref();
                }
            }
        }
    }

    /// Ends the connections that stand on `listener` (or on any) in `after` at the latest, and wakes those at rest.
    pub(crate) fn drain_listener(&self, listener: Option<u64>, after: Duration) {
        let end = self.after(after);
        self.drain(|slot| {
            let concerned = listener.is_none_or(|id| slot.listener == id);
            if concerned {
                slot.listener_end = slot.listener_end.min(end);
            }
            concerned
        });
    }

    /// Wakes those that have rested longest to end, at most `most` of them: of `listener`, or of any; those with half a
    /// head after the others. Returns how many.
    pub(crate) fn evict(&self, listener: Option<u64>, most: usize) -> usize {
        let mut slots = self.slots.borrow_mut();
        // The largest on top: what is the last to end of those that were found.
        let mut oldest = BinaryHeap::with_capacity(most + 1);
        for (index, slot) in slots.iter().enumerate() {
            let concerned = listener.is_none_or(|id| slot.listener == id);
            if concerned && slot.rest != Rest::AtWork && slot.fired.is_none() {
                oldest.push((slot.rest, slot.rests_since, index));
                if oldest.len() > most {
                    oldest.pop();
                }
            }
        }
        for (_, _, index) in &oldest {
            let slot = &mut slots[*index];
            slot.fired = Some(Fired::Evicted);
            if let Some(waker) = &slot.waker {
                waker.wake_by_ref();
            }
        }
        oldest.len()
    }

    /// Ends what stands on one of `backends` (sorted ids) in `after` at the latest.
    pub(crate) fn drain_backends(&self, backends: &[u64], after: Duration) {
        let end = self.after(after);
        self.drain(|slot| {
            if slot.backend_end != NEVER && backends.binary_search(&slot.backend).is_err() {
                // It has come back: what stands on it may stay.
                slot.backend_end = NEVER;
                return true;
            }
            let concerned = slot.backend != 0 && backends.binary_search(&slot.backend).is_ok();
            if concerned {
                slot.backend_end = slot.backend_end.min(end);
            }
            concerned
        });
    }

    /// Ends the sessions on `backend` in `after`; `None`: an earlier order no longer holds. What is no session yet
    /// follows when it becomes one.
    pub(crate) fn end_sessions(&self, backend: u64, after: Option<Duration>, why: Reason) {
        let end = after.map_or(NEVER, |after| self.after(after));
        let mut due = self.due.borrow_mut();
        for (slot, due) in self.slots.borrow_mut().iter_mut().zip(due.iter_mut()) {
            if slot.backend == backend {
                (slot.session_end, slot.session_why) = (end, Some(why));
                *due = slot.due();
            }
        }
    }

    /// `after` from now in the table's time.
    fn after(&self, after: Duration) -> u64 {
        self.now.get().saturating_add(after.as_millis() as u64)
    }

    fn drain(&self, mut set_end: impl FnMut(&mut Slot) -> bool) {
        let mut due = self.due.borrow_mut();
        for (slot, due) in self.slots.borrow_mut().iter_mut().zip(due.iter_mut()) {
            if set_end(slot) {
                *due = slot.due();
                if let (Rest::Whole, Some(waker)) = (slot.rest, &slot.waker) {
                    waker.wake_by_ref();
                }
            }
        }
    }
}

/// One connection's slot; free again when dropped.
#[derive(Debug)]
pub(crate) struct Session {
    table: Rc<Sessions>,
    index: u32,
}

impl Session {
    /// Remembers whom to wake. Once for each task is enough, since a task keeps its waker.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let mut slots = self.table.slots.borrow_mut();
        let slot = &mut slots[self.index as usize];
        if slot.waker.is_none() {
            slot.waker = Some(cx.waker().clone());
        }
    }

    /// Sets the deadline `after` from now, in place of the one before.
    pub(crate) fn set_deadline(&self, after: Duration) {
        self.set_deadline_at(self.table.now().saturating_add(after.as_millis() as u64));
    }

    /// Sets the deadline in the table's milliseconds, in place of the one before.
    pub(crate) fn set_deadline_at(&self, at: u64) {
        let index = self.index as usize;
        let slot = &mut self.table.slots.borrow_mut()[index];
        slot.deadline = at;
        slot.fired = slot.fired.filter(|fired| *fired == Fired::Drained);
        self.table.due.borrow_mut()[index] = slot.due();
    }

    /// What woke the connection, if the table did; taken.
    pub(crate) fn take_fired(&self) -> Option<Fired> {
        self.table.slots.borrow_mut()[self.index as usize]
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
    pub(crate) fn set_rest(&self, rest: Rest) {
        let slot = &mut self.table.slots.borrow_mut()[self.index as usize];
        if slot.rest != rest {
            (slot.rest, slot.rests_since) = (rest, self.table.now());
        }
    }

    /// The backend it stands on; 0 for none.
    pub(crate) fn set_backend(&self, backend: u64) {
        let index = self.index as usize;
        let slot = &mut self.table.slots.borrow_mut()[index];
        slot.backend = backend;
        if slot.backend_end != NEVER || slot.session_end != NEVER {
            (slot.backend_end, slot.session_end) = (NEVER, NEVER);
            self.table.due.borrow_mut()[index] = slot.due();
        }
    }

    /// From now on it is a session.
    pub(crate) fn begin_session(&self) {
        self.change(|slot, _| slot.is_session = true, Duration::ZERO);
    }

    /// Why it was drained.
    pub(crate) fn drained_for(&self) -> Reason {
        let slot = &self.table.slots.borrow()[self.index as usize];
        let by_order = slot.session_end != NEVER && slot.session_end == slot.drain_end();
        slot.session_why
            .filter(|_| by_order)
            .unwrap_or(Reason::Drained)
    }

    /// Ends the connection in `after` at the latest, unless it moves on to another backend before.
    pub(crate) fn drain_backend(&self, after: Duration) {
        self.change(
            |slot, end| slot.backend_end = slot.backend_end.min(end),
            after,
        );
    }

    /// Ends the connection in `after` at the latest.
    pub(crate) fn drain(&self, after: Duration) {
        self.change(
            |slot, end| slot.listener_end = slot.listener_end.min(end),
            after,
        );
    }

    fn change(&self, set: impl Fn(&mut Slot, u64), after: Duration) {
        let index = self.index as usize;
        let slot = &mut self.table.slots.borrow_mut()[index];
        set(slot, self.table.after(after));
        self.table.due.borrow_mut()[index] = slot.due();
    }

    /// The table's time.
    pub(crate) fn now(&self) -> u64 {
        self.table.now()
    }

    /// See [`Sessions::past`].
    pub(crate) fn past(&self) -> u64 {
        self.table.past()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.table.slots.borrow_mut()[self.index as usize] = Slot::new(0);
        self.table.due.borrow_mut()[self.index as usize] = NEVER;
        self.table.free.borrow_mut().push(self.index);
        self.table.open.set(self.table.open.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(table: &Rc<Sessions>, listener: u64) -> Session {
        let session = table.enter(listener);
        session.register(&Context::from_waker(Waker::noop()));
        session
    }

    fn advance(table: &Sessions, ms: u64) {
        table.now.set(table.now.get() + ms);
        table.fire_due();
    }

    #[test]
    fn a_deadline_fires_once_and_can_be_moved() {
        let table = Rc::new(Sessions::new());
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
        let table = Rc::new(Sessions::new());
        let (first, second) = (registered(&table, 1), registered(&table, 2));
        second.set_backend(7);
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
        table.drain_backends(&[7, 9], Duration::ZERO);
        advance(&table, 50);
        assert_eq!(second.take_fired(), Some(Fired::Drained));
    }

    #[test]
    fn a_connection_that_moves_on_does_not_drain_with_its_former_backend() {
        let table = Rc::new(Sessions::new());
        let session = registered(&table, 1);
        session.set_backend(7);
        table.drain_backends(&[7], Duration::from_secs(1));
        session.set_backend(0);
        advance(&table, 10_000);
        assert_eq!(session.take_fired(), None);
    }

    #[test]
    fn an_order_ends_sessions_on_one_backend_and_no_requests() {
        let table = Rc::new(Sessions::new());
        let [session, request, other, moved] = [(); 4].map(|()| registered(&table, 1));
        for (slot, backend) in [(&session, 7), (&request, 7), (&other, 8), (&moved, 7)] {
            slot.set_backend(backend);
        }
        for slot in [&session, &other, &moved] {
            slot.begin_session();
        }
        table.end_sessions(7, Some(Duration::ZERO), Reason::BackendDown);
        moved.set_backend(8);
        advance(&table, 50);
        assert_eq!(session.take_fired(), Some(Fired::Drained));
        assert_eq!(session.drained_for(), Reason::BackendDown);
        for slot in [&request, &other, &moved] {
            assert_eq!(slot.take_fired(), None);
        }
        // It was a request when the order came, and is upgraded after it.
        request.begin_session();
        advance(&table, 50);
        assert_eq!(request.take_fired(), Some(Fired::Drained));
        assert_eq!(request.drained_for(), Reason::BackendDown);
    }

    #[test]
    fn an_order_can_be_taken_back() {
        let table = Rc::new(Sessions::new());
        let session = registered(&table, 1);
        session.set_backend(7);
        session.begin_session();
        table.end_sessions(7, Some(Duration::from_secs(1)), Reason::BackendDown);
        table.end_sessions(7, None, Reason::BackendDown);
        advance(&table, 10_000);
        assert_eq!(session.take_fired(), None);
        session.drain(Duration::ZERO);
        assert_eq!(session.drained_for(), Reason::Drained);
    }

    #[test]
    fn half_a_head_is_evicted_after_all_that_rest() {
        let table = Rc::new(Sessions::new());
        let [half, whole, at_work] = [(); 3].map(|()| registered(&table, 1));
        half.set_rest(Rest::Half);
        advance(&table, 10);
        whole.set_rest(Rest::Whole);
        assert_eq!(table.evict(None, 1), 1);
        assert_eq!(whole.take_fired(), Some(Fired::Evicted));
        whole.set_rest(Rest::AtWork);
        assert_eq!(table.evict(None, 5), 1);
        assert_eq!(half.take_fired(), Some(Fired::Evicted));
        assert_eq!(at_work.take_fired(), None);
    }

    #[test]
    fn those_that_rested_longest_are_evicted() {
        let table = Rc::new(Sessions::new());
        let all: Vec<Session> = (0..5).map(|index| registered(&table, index % 2)).collect();
        for session in &all[..4] {
            session.set_rest(Rest::Whole);
            advance(&table, 10);
            session.set_rest(Rest::Whole);
        }
        all[0].set_rest(Rest::AtWork);
        let evicted = || -> Vec<usize> {
            let fired = |(index, session): (usize, &Session)| {
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
        let table = Rc::new(Sessions::new());
        drop(registered(&table, 1));
        let again = registered(&table, 1);
        assert_eq!((again.index, table.open()), (0, 1));
    }
}
