//! Timers by the time at which they are due. Pure: the caller has the clock and decides when to look.
//!
//! A balanced tree in order of due time and then of insertion, so that a timer can be cancelled at once and nothing is
//! left over: every operation is O(log n), and memory is bounded by the timers that are set.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Names one timer of a [`TimerQueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId<At> {
    at: At,
    /// Counts the timers of the queue, which makes it unique and orders equal times.
    number: u64,
}

/// Any number of timers, each with an item. Of two that are due at the same time the one that was added first comes
/// first.
#[derive(Debug)]
pub struct TimerQueue<At, T> {
    timers: BTreeMap<TimerId<At>, T>,
    added: u64,
}

impl<At: Ord + Copy, T> TimerQueue<At, T> {
    /// Adds a timer.
    pub fn add(&mut self, at: At, item: T) -> TimerId<At> {
        self.added += 1;
        let id = TimerId {
            at,
            number: self.added,
        };
        self.timers.insert(id, item);
        id
    }

    /// Removes a timer; `None` if it has been removed already.
    pub fn cancel(&mut self, id: TimerId<At>) -> Option<T> {
        self.timers.remove(&id)
    }

    /// When the earliest timer is due.
    pub fn next_due(&self) -> Option<At> {
        self.timers.first_key_value().map(|(id, _)| id.at)
    }

    /// Takes the earliest timer if it is due at `now` or before, with the time at which it was due.
    pub fn pop_due(&mut self, now: At) -> Option<(At, T)> {
        let earliest = self.timers.first_entry()?;
        let at = earliest.key().at;
        (at <= now).then(|| (at, earliest.remove()))
    }

    /// How many timers are set.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.timers.len()
    }
}

impl<At, T> Default for TimerQueue<At, T> {
    fn default() -> Self {
        Self {
            timers: BTreeMap::new(),
            added: 0,
        }
    }
}

/// Timers of which each key has at most one.
#[derive(Debug)]
pub(crate) struct KeyedTimerQueue<At, K> {
    queue: TimerQueue<At, K>,
    timers: HashMap<K, TimerId<At>>,
}

impl<At: Ord + Copy, K: Eq + Hash + Copy> KeyedTimerQueue<At, K> {
    /// Sets the timer of `key`, wherever it was before.
    pub(crate) fn set(&mut self, key: K, at: At) {
        let timer = self.queue.add(at, key);
        if let Some(previous) = self.timers.insert(key, timer) {
            self.queue.cancel(previous);
        }
    }

    /// Removes the timer of `key`, if it has one.
    pub(crate) fn cancel(&mut self, key: K) {
        if let Some(timer) = self.timers.remove(&key) {
            self.queue.cancel(timer);
        }
    }

    /// When the earliest timer is due.
    pub(crate) fn next_due(&self) -> Option<At> {
        self.queue.next_due()
    }

    /// Takes the earliest timer if it is due at `now` or before, with the time at which it was due.
    pub(crate) fn pop_due(&mut self, now: At) -> Option<(K, At)> {
        let (at, key) = self.queue.pop_due(now)?;
        self.timers.remove(&key);
        Some((key, at))
    }
}

impl<At, K> Default for KeyedTimerQueue<At, K> {
    fn default() -> Self {
        Self {
            queue: TimerQueue::default(),
            timers: HashMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_then_the_first_added() {
        let mut queue = TimerQueue::default();
        let mut ids = Vec::new();
        for (at, item) in [(2, 'b'), (1, 'a'), (2, 'c'), (9, 'd'), (3, 'e')] {
            ids.push(queue.add(at, item));
        }
        assert_eq!(queue.cancel(ids[4]), Some('e'));
        assert_eq!(queue.cancel(ids[4]), None);
        assert_eq!(queue.next_due(), Some(1));
        assert_eq!(queue.pop_due(0), None);
        let due: Vec<_> = std::iter::from_fn(|| queue.pop_due(5)).collect();
        assert_eq!(due, [(1, 'a'), (2, 'b'), (2, 'c')]);
        assert_eq!((queue.next_due(), queue.len()), (Some(9), 1));
    }

    #[test]
    fn a_key_comes_up_once_as_it_was_set_last() {
        let mut queue = KeyedTimerQueue::default();
        for (key, at) in [(1, 30), (2, 10), (3, 20), (4, 5), (2, 40)] {
            queue.set(key, at);
        }
        queue.cancel(4);
        queue.cancel(5);
        assert_eq!(queue.next_due(), Some(20));
        assert_eq!(queue.pop_due(19), None);
        let due: Vec<_> = std::iter::from_fn(|| queue.pop_due(100)).collect();
        assert_eq!(due, [(3, 20), (1, 30), (2, 40)]);
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn memory_is_bounded_by_the_keys() {
        let mut queue = KeyedTimerQueue::default();
        for i in 0..100_000 {
            queue.set(i % 7, i);
        }
        assert_eq!((queue.queue.len(), queue.timers.len()), (7, 7));
        assert_eq!(queue.pop_due(100_000), Some((99_993 % 7, 99_993)));
    }
}
