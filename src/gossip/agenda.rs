//! What is due when: the earliest first, and of two at one moment the one that was planned first.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::Time;

/// See the module.
#[derive(Debug)]
pub(super) struct Agenda<T> {
    entries: BinaryHeap<Reverse<Entry<T>>>,
    planned: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Time,
    order: u64,
    what: T,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self {
            entries: BinaryHeap::new(),
            planned: 0,
        }
    }
}

impl<T> Agenda<T> {
    /// Plans something.
    pub(super) fn plan(&mut self, at: Time, what: T) {
        self.planned += 1;
        self.entries.push(Reverse(Entry {
            at,
            order: self.planned,
            what,
        }));
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Time> {
        self.entries.peek().map(|Reverse(entry)| entry.at)
    }

    /// The next one that is due at `now` or before, and when it was.
    pub(super) fn pop(&mut self, now: Time) -> Option<(Time, T)> {
        if self.next()? > now {
            return None;
        }
        let Reverse(entry) = self.entries.pop()?;
        Some((entry.at, entry.what))
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_first_and_then_in_the_order_of_planning() {
        let at = Time::from_secs;
        let mut agenda = Agenda::default();
        for (second, what) in [(2, 'b'), (1, 'a'), (2, 'c'), (9, 'd')] {
            agenda.plan(at(second), what);
        }
        assert_eq!(agenda.next(), Some(at(1)));
        assert_eq!(agenda.pop(at(0)), None);
        let mut due = Vec::new();
        while let Some((moment, what)) = agenda.pop(at(5)) {
            due.push((moment, what));
        }
        assert_eq!(due, [(at(1), 'a'), (at(2), 'b'), (at(2), 'c')]);
        assert_eq!((agenda.next(), agenda.len()), (Some(at(9)), 1));
    }
}
