//! Pure: who is due when, for ten thousand members and one timer.
//!
//! A binary heap of times with lazy removal: an entry that was moved or cancelled stays in the heap until it comes
//! up or until more than half of the heap is such, so every operation is O(log n) amortised and the memory is
//! bounded by the number of members.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Instant;

/// At most one time for each id.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    times: HashMap<u64, Instant>,
    heap: BinaryHeap<Reverse<(Instant, u64)>>,
}

impl Agenda {
    /// Puts `id` at `at`, wherever it was before.
    pub(super) fn set(&mut self, id: u64, at: Instant) {
        if self.times.insert(id, at) != Some(at) {
            self.heap.push(Reverse((at, id)));
            self.shed();
        }
    }

    /// Takes `id` off.
    pub(super) fn cancel(&mut self, id: u64) {
        self.times.remove(&id);
    }

    /// The earliest time.
    pub(super) fn next(&mut self) -> Option<Instant> {
        loop {
            let &Reverse((at, id)) = self.heap.peek()?;
            if self.times.get(&id) == Some(&at) {
                return Some(at);
            }
            self.heap.pop();
        }
    }

    /// Takes the earliest if its time has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(u64, Instant)> {
        let at = self.next().filter(|&at| at <= now)?;
        let Reverse((_, id)) = self.heap.pop()?;
        self.times.remove(&id);
        Some((id, at))
    }

    fn shed(&mut self) {
        if self.heap.len() > 2 * self.times.len() + 64 {
            self.heap = self
                .times
                .iter()
                .map(|(&id, &at)| Reverse((at, id)))
                .collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn comes_up_in_order_as_last_set() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut agenda = Agenda::default();
        for (id, ms) in [(1, 30), (2, 10), (3, 20), (4, 5), (2, 40)] {
            agenda.set(id, at(ms));
        }
        agenda.cancel(4);
        assert_eq!(agenda.next(), Some(at(20)));
        assert_eq!(agenda.pop(at(19)), None);
        let mut seen = Vec::new();
        while let Some((id, _)) = agenda.pop(at(100)) {
            seen.push(id);
        }
        assert_eq!(seen, [3, 1, 2]);
        assert_eq!(agenda.next(), None);
    }

    #[test]
    fn moving_one_about_takes_no_memory() {
        let start = Instant::now();
        let mut agenda = Agenda::default();
        for i in 0..100_000 {
            agenda.set(i % 7, start + Duration::from_millis(i));
        }
        assert!(agenda.heap.len() <= 2 * 7 + 65, "{}", agenda.heap.len());
        assert_eq!(
            agenda.pop(start + Duration::from_secs(1000)).map(|p| p.0),
            Some(99_993 % 7)
        );
    }
}
