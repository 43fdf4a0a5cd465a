//! Who may be connected to the admin server.
//!
//! There are so many places, a few of them for probes. When all others are taken, the connection that has been silent for
//! the longest time (nothing is asked, or not a whole head yet) gives its own to the one that comes. Only while every one
//! is being answered does a newcomer get a place for probes: there `/healthz` and `/readyz` are answered and nothing else,
//! and there too the most silent one gives way. So nobody who only holds connections, or reads slowly, hides the proxy from those who watch it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

/// Places that are kept for probes, or half of all, if those are fewer.
const PROBES: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Places {
    /// For all that may be asked.
    most: usize,
    /// And for probes.
    probes: usize,
    table: Mutex<Table>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    seats: HashMap<u64, Seat>,
    /// How many of them are for probes.
    probes: usize,
}

#[derive(Debug)]
struct Seat {
    /// `None` while it is being answered.
    silent_since: Option<Instant>,
    asked: bool,
    for_probes: bool,
    end: Arc<Notify>,
}

impl Places {
    /// So many, those for probes included; at least one of each.
    pub(super) fn new(places: usize) -> Arc<Self> {
        let probes = PROBES.min(places / 2).max(1);
        Arc::new(Self {
            most: places.saturating_sub(probes).max(1),
            probes,
            table: Mutex::default(),
            freed: Notify::new(),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection, now or when one is free.
    pub(super) async fn take(self: &Arc<Self>) -> Place {
        loop {
            let freed = self.freed.notified();
            if let Some(place) = self.try_take() {
                return place;
            }
            freed.await;
        }
    }

    /// A place, if there is one now.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<Place> {
        let mut table = self.table();
        let others = table.seats.len() - table.probes;
        let for_probes = if others < self.most || table.end_most_silent(false) {
            false
        } else if table.probes < self.probes || table.end_most_silent(true) {
            true
        } else {
            return None;
        };
        let (id, end) = table.sit(for_probes);
        Some(Place {
            places: Arc::clone(self),
            id,
            for_probes,
            end,
        })
    }

    /// How many more may come before anybody must give way.
    pub(super) fn free(&self) -> usize {
        let all = self.most + self.probes;
        all.saturating_sub(self.table().seats.len())
    }
}

impl Table {
    fn sit(&mut self, for_probes: bool) -> (u64, Arc<Notify>) {
        let (id, end) = (self.next, Arc::new(Notify::new()));
        let seat = Seat {
            silent_since: Some(Instant::now()),
            asked: false,
            for_probes,
            end: Arc::clone(&end),
        };
        self.next += 1;
        self.probes += usize::from(for_probes);
        self.seats.insert(id, seat);
        (id, end)
    }

    fn leave(&mut self, id: u64) -> Option<Seat> {
        let seat = self.seats.remove(&id)?;
        self.probes -= usize::from(seat.for_probes);
        Some(seat)
    }

    /// Takes its place from the connection that has been silent for the longest time, among those for probes or the
    /// others; whether there was one.
    fn end_most_silent(&mut self, for_probes: bool) -> bool {
        let seats = self
            .seats
            .iter()
            .filter(|(_, seat)| seat.for_probes == for_probes);
        let silent = seats.filter_map(|(id, seat)| Some((seat.silent_since?, *id)));
        let Some((_, id)) = silent.min() else {
            return false;
        };
        if let Some(seat) = self.leave(id) {
            seat.end.notify_one();
        }
        true
    }
}

/// A connection's place, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    for_probes: bool,
    end: Arc<Notify>,
}

impl Place {
    /// Whether only probes are answered here.
    pub(super) fn is_for_probes(&self) -> bool {
        self.for_probes
    }

    /// Waits until another connection has taken the place.
    pub(super) async fn lost(&self) {
        self.end.notified().await;
    }

    /// Whether anything was asked so far.
    pub(super) fn has_asked(&self) -> bool {
        let table = self.places.table();
        table.seats.get(&self.id).is_some_and(|seat| seat.asked)
    }

    /// Something is asked: the place is safe until what this gives back is dropped.
    pub(super) fn answer(&self) -> Answering {
        self.set(None);
        Answering {
            places: Arc::clone(&self.places),
            id: self.id,
        }
    }

    fn set(&self, silent_since: Option<Instant>) {
        set(&self.places, self.id, silent_since);
    }
}

fn set(places: &Places, id: u64, silent_since: Option<Instant>) {
    let mut table = places.table();
    if let Some(seat) = table.seats.get_mut(&id) {
        seat.asked = true;
        seat.silent_since = silent_since;
    }
    drop(table);
    if silent_since.is_some() {
        // Who waits may have this place.
        places.freed.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.places.table().leave(self.id));
        self.places.freed.notify_one();
    }
}

/// An answer under way.
#[derive(Debug)]
pub(super) struct Answering {
    places: Arc<Places>,
    id: u64,
}

impl Drop for Answering {
    fn drop(&mut self) {
        set(&self.places, self.id, Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_most_silent_one_gives_way_and_then_there_are_places_for_probes() {
        let places = Places::new(6);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(places.take().await);
        }
        let answering = held[0].answer();
        assert!(held[0].has_asked() && !held[1].has_asked());
        let fourth = places.take().await;
        assert!(!fourth.is_for_probes());
        held[1].lost().await;
        let busy = [held[2].answer(), fourth.answer()];
        let mut probes = Vec::new();
        for _ in 0..3 {
            probes.push(places.take().await);
        }
        assert!(probes.iter().all(Place::is_for_probes));
        // There too the most silent one gives way, and nobody while all are being answered.
        let asked: Vec<_> = probes[1..].iter().map(Place::answer).collect();
        let last = places.try_take().unwrap();
        assert!(last.is_for_probes());
        probes[0].lost().await;
        let asked = (asked, last.answer());
        assert!(places.try_take().is_none());
        // One that has lost its place and ends frees nothing that is another's.
        drop(held.remove(1));
        assert!(places.try_take().is_none());
        let waiting = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take().await }
        });
        tokio::task::yield_now().await;
        drop(answering);
        assert!(!waiting.await.unwrap().is_for_probes());
        held[0].lost().await;
        drop((asked, probes, last));
        drop(busy);
        drop(held);
        let table = places.table();
        assert_eq!((table.seats.len(), table.probes), (1, 0));
        drop(table);
        let counts = |places: usize| {
            let places = Places::new(places);
            (places.most, places.probes, places.free())
        };
        assert_eq!(counts(256), (240, 16, 256));
        assert_eq!(counts(8), (4, 4, 8));
        assert_eq!(counts(0), (1, 1, 2));
    }
}
