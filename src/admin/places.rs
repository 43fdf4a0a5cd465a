//! Who may be connected to the admin server.
//!
//! There are so many places. When all are taken, the connection that has been silent for the longest time (nothing is
//! asked, or not a whole head yet) gives its own to the one that comes. Only while every one is being answered does a
//! newcomer get one of the few places that are kept for probes: there `/healthz` and `/readyz` are answered and nothing
//! else. So nobody who only holds connections, or reads slowly, hides the proxy from those who watch it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

/// Places that are kept for probes.
pub const PROBES: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct Places {
    most: usize,
    table: Mutex<Table>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    seats: HashMap<u64, Seat>,
    probes: usize,
}

#[derive(Debug)]
struct Seat {
    /// `None` while it is being answered.
    silent_since: Option<Instant>,
    asked: bool,
    end: Arc<Notify>,
}

impl Places {
    /// So many, and those for probes.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            table: Mutex::default(),
            freed: Notify::new(),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection, now or when one is free.
    pub async fn take(self: &Arc<Self>) -> Place {
        loop {
            let freed = self.freed.notified();
            if let Some(place) = self.try_take() {
                return place;
            }
            freed.await;
        }
    }

    /// A place, if there is one now.
    pub fn try_take(self: &Arc<Self>) -> Option<Place> {
        let mut table = self.table();
        if table.seats.len() >= self.most && !table.end_most_silent() {
            if table.probes >= PROBES {
                return None;
            }
            table.probes += 1;
            return Some(Place {
                places: Arc::clone(self),
                id: None,
                end: Arc::default(),
            });
        }
        let id = table.next;
        table.next += 1;
        let end = Arc::new(Notify::new());
        table.seats.insert(
            id,
            Seat {
                silent_since: Some(Instant::now()),
                asked: false,
                end: Arc::clone(&end),
            },
        );
        Some(Place {
            places: Arc::clone(self),
            id: Some(id),
            end,
        })
    }
}

impl Table {
    /// Takes its place from the connection that has been silent for the longest time; whether there was one.
    fn end_most_silent(&mut self) -> bool {
        let silent = self
            .seats
            .iter()
            .filter_map(|(id, seat)| Some((seat.silent_since?, *id)));
        let Some((_, id)) = silent.min() else {
            return false;
        };
        if let Some(seat) = self.seats.remove(&id) {
            seat.end.notify_one();
        }
        true
    }
}

/// A connection's place, until this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    /// `None`: one of those for probes.
    id: Option<u64>,
    end: Arc<Notify>,
}

impl Place {
    /// Whether only probes are answered here.
    pub fn is_for_probes(&self) -> bool {
        self.id.is_none()
    }

    /// Waits until another connection has taken the place.
    pub async fn lost(&self) {
        self.end.notified().await;
    }

    /// Whether anything was asked so far.
    pub fn has_asked(&self) -> bool {
        let table = self.places.table();
        let seat = self.id.and_then(|id| table.seats.get(&id));
        seat.is_some_and(|seat| seat.asked)
    }

    /// Something is asked: the place is safe until what this gives back is dropped.
    pub fn answer(&self) -> Answering {
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

fn set(places: &Places, id: Option<u64>, silent_since: Option<Instant>) {
    let mut table = places.table();
    if let Some(seat) = id.and_then(|id| table.seats.get_mut(&id)) {
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
        let mut table = self.places.table();
        match self.id {
            Some(id) => drop(table.seats.remove(&id)),
            None => table.probes -= 1,
        }
        drop(table);
        self.places.freed.notify_one();
    }
}

/// An answer under way.
#[derive(Debug)]
pub struct Answering {
    places: Arc<Places>,
    id: Option<u64>,
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
        let places = Places::new(3);
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
        for _ in 0..PROBES {
            probes.push(places.take().await);
        }
        assert!(probes.iter().all(Place::is_for_probes));
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
        drop(probes);
        drop(busy);
        drop(held);
        let table = places.table();
        assert_eq!((table.seats.len(), table.probes), (1, 0));
    }
}
