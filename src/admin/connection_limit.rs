//! How many connections the admin server has, and which of them give way.
//!
//! A few of them are kept for probes. When all others are taken, the connection that has been silent for the longest
//! time (it has sent no request, or no whole head yet) is closed in favour of a new one. Only while every connection is
//! being answered does a new one get what is kept for probes: there `/healthz` and `/readyz` are answered and nothing
//! else, and there too the most silent connection gives way. So nobody who only holds connections open, or reads
//! slowly, hides the proxy from those who watch it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

/// Connections that are kept for probes, or half of all if that is fewer.
const PROBES: usize = 16;

/// The limit, and the connections under it.
#[derive(Debug)]
pub(super) struct ConnectionLimit {
    /// Connections for all requests.
    most: usize,
    /// Connections for probes, in addition.
    probes: usize,
    table: Mutex<ConnectionTable>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct ConnectionTable {
    next_id: u64,
    connections: HashMap<u64, ConnectionEntry>,
    /// How many of them are for probes only.
    probes: usize,
}

#[derive(Debug)]
struct ConnectionEntry {
    /// `None` while it is being answered.
    silent_since: Option<Instant>,
    has_asked: bool,
    probes_only: bool,
    evicted: Arc<Notify>,
}

impl ConnectionLimit {
    /// A limit of so many connections, those for probes included; at least one of each kind.
    pub(super) fn new(connections: usize) -> Arc<Self> {
        let probes = PROBES.min(connections / 2).max(1);
        Arc::new(Self {
            most: connections.saturating_sub(probes).max(1),
            probes,
            table: Mutex::default(),
            freed: Notify::new(),
        })
    }

    fn table(&self) -> MutexGuard<'_, ConnectionTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits one more connection, now or when another one has ended.
    pub(super) async fn admit(self: &Arc<Self>) -> AdmittedConnection {
        loop {
            let freed = self.freed.notified();
            if let Some(connection) = self.try_admit() {
                return connection;
            }
            freed.await;
        }
    }

    /// Admits one more connection if it is possible now.
    pub(super) fn try_admit(self: &Arc<Self>) -> Option<AdmittedConnection> {
        let mut table = self.table();
        let others = table.connections.len() - table.probes;
        let probes_only = if others < self.most || table.evict_most_silent(false) {
            false
        } else if table.probes < self.probes || table.evict_most_silent(true) {
            true
        } else {
            return None;
        };
        let (id, evicted) = table.add(probes_only);
        Some(AdmittedConnection {
            limit: Arc::clone(self),
            id,
            probes_only,
            evicted,
        })
    }

    /// How many more may come before any must give way.
    pub(super) fn free(&self) -> usize {
        let all = self.most + self.probes;
        all.saturating_sub(self.table().connections.len())
    }

    /// Notes that a connection has asked something, and since when it is silent again.
    fn set_silent(&self, id: u64, silent_since: Option<Instant>) {
        let mut table = self.table();
        if let Some(connection) = table.connections.get_mut(&id) {
            connection.has_asked = true;
            connection.silent_since = silent_since;
        }
        drop(table);
        if silent_since.is_some() {
            // It can give way now.
            self.freed.notify_one();
        }
    }
}

impl ConnectionTable {
    fn add(&mut self, probes_only: bool) -> (u64, Arc<Notify>) {
        let (id, evicted) = (self.next_id, Arc::new(Notify::new()));
        let connection = ConnectionEntry {
            silent_since: Some(Instant::now()),
            has_asked: false,
            probes_only,
            evicted: Arc::clone(&evicted),
        };
        self.next_id += 1;
        self.probes += usize::from(probes_only);
        self.connections.insert(id, connection);
        (id, evicted)
    }

    fn remove(&mut self, id: u64) -> Option<ConnectionEntry> {
        let connection = self.connections.remove(&id)?;
        self.probes -= usize::from(connection.probes_only);
        Some(connection)
    }

    /// Evicts the connection that has been silent for the longest time, among those for probes or among the others.
    /// Whether there was one.
    fn evict_most_silent(&mut self, probes_only: bool) -> bool {
        let connections = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.probes_only == probes_only);
        let silent = connections.filter_map(|(id, entry)| Some((entry.silent_since?, *id)));
        let Some((_, id)) = silent.min() else {
            return false;
        };
        if let Some(connection) = self.remove(id) {
            connection.evicted.notify_one();
        }
        true
    }
}

/// A connection that counts towards the limit until this is dropped.
#[derive(Debug)]
pub(super) struct AdmittedConnection {
    limit: Arc<ConnectionLimit>,
    id: u64,
    probes_only: bool,
    evicted: Arc<Notify>,
}

impl AdmittedConnection {
    /// Whether only probes are answered on it.
    pub(super) fn is_for_probes(&self) -> bool {
        self.probes_only
    }

    /// Waits until it must give way to another connection.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Whether it has sent a request so far.
    pub(super) fn has_asked(&self) -> bool {
        let table = self.limit.table();
        let connection = table.connections.get(&self.id);
        connection.is_some_and(|connection| connection.has_asked)
    }

    /// It has sent a request: it does not give way until the guard is dropped.
    pub(super) fn answer(&self) -> AnswerGuard {
        self.limit.set_silent(self.id, None);
        AnswerGuard {
            limit: Arc::clone(&self.limit),
            id: self.id,
        }
    }
}

impl Drop for AdmittedConnection {
    fn drop(&mut self) {
        drop(self.limit.table().remove(self.id));
        self.limit.freed.notify_one();
    }
}

/// Exists as long as a connection is being answered.
#[derive(Debug)]
pub(super) struct AnswerGuard {
    limit: Arc<ConnectionLimit>,
    id: u64,
}

impl Drop for AnswerGuard {
    fn drop(&mut self) {
        self.limit.set_silent(self.id, Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_most_silent_connection_gives_way_and_then_those_for_probes_are_used() {
        let limit = ConnectionLimit::new(6);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(limit.admit().await);
        }
        let answering = held[0].answer();
        assert!(held[0].has_asked() && !held[1].has_asked());
        let fourth = limit.admit().await;
        assert!(!fourth.is_for_probes());
        held[1].evicted().await;
        let busy = [held[2].answer(), fourth.answer()];
        let mut probes = Vec::new();
        for _ in 0..3 {
            probes.push(limit.admit().await);
        }
        assert!(probes.iter().all(AdmittedConnection::is_for_probes));
        // There too the most silent one gives way, and none while all are being answered.
        let asked: Vec<_> = probes[1..].iter().map(AdmittedConnection::answer).collect();
        let last = limit.try_admit().unwrap();
        assert!(last.is_for_probes());
        probes[0].evicted().await;
        let asked = (asked, last.answer());
        assert!(limit.try_admit().is_none());
        // When an evicted connection ends, it frees nothing that another one has.
        drop(held.remove(1));
        assert!(limit.try_admit().is_none());
        let waiting = tokio::spawn({
            let limit = Arc::clone(&limit);
            async move { limit.admit().await }
        });
        tokio::task::yield_now().await;
        drop(answering);
        assert!(!waiting.await.unwrap().is_for_probes());
        held[0].evicted().await;
        drop((asked, probes, last));
        drop(busy);
        drop(held);
        let table = limit.table();
        assert_eq!((table.connections.len(), table.probes), (1, 0));
        drop(table);
        let counts = |connections: usize| {
            let limit = ConnectionLimit::new(connections);
            (limit.most, limit.probes, limit.free())
        };
        assert_eq!(counts(256), (240, 16, 256));
        assert_eq!(counts(8), (4, 4, 8));
        assert_eq!(counts(0), (1, 1, 2));
    }
}
