//! A backend's identity and live state.
//!
//! A [`Backend`] lives as long as its cluster has it (same address, and for a name the same one of its addresses),
//! through every generation of the configuration. It is the only state that workers share on the path of a request, and
//! what they use of it is atomic.
//!
//! If the peer set doubts a backend, the [`Doubt`] is raised by the writer of snapshots and answered by the health
//! checks with an immediate probe.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::address::BackendAddress;
use super::health::Health;

/// Identity of a backend, unique within the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(NonZeroU64);

impl BackendId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NonZeroU64::new(NEXT.fetch_add(1, Ordering::Relaxed));
        Self(id.unwrap_or(NonZeroU64::MAX))
    }

    /// The identity with this number, for tests.
    #[cfg(test)]
    pub(crate) fn of(number: u64) -> Self {
        Self(NonZeroU64::new(number).unwrap())
    }

    /// The number, never 0.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

/// The state of a doubt that the peer set has about a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Doubt {
    /// There is no doubt.
    None,
    /// A probe has to start at once.
    Raised,
    /// The probe has started.
    Probing,
    /// A probe that started after the doubt was raised has passed.
    Answered,
}

/// Why a backend is in its state, for people. Only the control plane writes and reads it.
#[derive(Debug, Clone)]
pub struct HealthNote {
    /// One short line, as in `check failed: status 500`.
    pub reason: String,
    /// Since when the reason applies.
    pub since: SystemTime,
    /// The health that the reason was written for.
    pub health: Health,
}

/// The identity, health and load of one backend of a cluster.
#[derive(Debug)]
pub struct Backend {
    id: BackendId,
    cluster: Arc<str>,
    address: BackendAddress,
    host: Arc<str>,
    label: Arc<str>,
    health: AtomicU8,
    reported: AtomicBool,
    in_flight: AtomicU32,
    departed: AtomicBool,
    doubt: AtomicU8,
    note: Mutex<HealthNote>,
}

impl Backend {
    /// Creates a backend, healthy until something speaks against it.
    pub fn new(cluster: Arc<str>, address: BackendAddress) -> Self {
        let (host, label) = (address.host(), address.to_string());
        Self::labelled(cluster, address, host.into(), label.into())
    }

    /// Creates the backend at `ip`, one of the addresses of `name`; its label has both.
    pub fn at(cluster: Arc<str>, name: BackendAddress, ip: IpAddr) -> Self {
        let (host, label) = (name.to_string(), name.label_at(ip));
        Self::labelled(cluster, name, host.into(), label.into())
    }

    fn labelled(
        cluster: Arc<str>,
        address: BackendAddress,
        host: Arc<str>,
        label: Arc<str>,
    ) -> Self {
        Self {
            id: BackendId::next(),
            cluster,
            address,
            host,
            label,
            health: AtomicU8::new(0),
            reported: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            departed: AtomicBool::new(false),
            doubt: AtomicU8::new(Doubt::None as u8),
            note: Mutex::new(HealthNote {
                reason: "not checked yet".to_owned(),
                since: SystemTime::now(),
                health: Health::empty(),
            }),
        }
    }

    /// The identity of the backend.
    pub fn id(&self) -> BackendId {
        self.id
    }

    /// Name of the cluster that the backend belongs to.
    pub fn cluster(&self) -> &Arc<str> {
        &self.cluster
    }

    /// The address as the configuration or the peer set gives it.
    pub fn address(&self) -> &BackendAddress {
        &self.address
    }

    /// The host that requests name by default: the address as text; for a name, the name and port.
    pub fn host(&self) -> &Arc<str> {
        &self.host
    }

    /// The label in metrics, logs and status, and the input of the hash ring: the address as text, or `name@ip:port`.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// The current health.
    pub fn health(&self) -> Health {
        Health::from_bits_retain(self.health.load(Ordering::Relaxed))
    }

    /// Whether no health bit is set.
    pub fn is_healthy(&self) -> bool {
        self.health().is_healthy()
    }

    /// Sets health bits and returns the previous ones.
    pub fn set_health(&self, bits: Health) -> Health {
        Health::from_bits_retain(self.health.fetch_or(bits.bits(), Ordering::AcqRel))
    }

    /// Clears health bits and returns the previous ones.
    pub fn clear_health(&self, bits: Health) -> Health {
        Health::from_bits_retain(self.health.fetch_and(!bits.bits(), Ordering::AcqRel))
    }

    /// Reports that a live connection failed; the backend is excluded at once. Returns whether the control plane has to
    /// be notified.
    pub fn report_refused(&self) -> bool {
        self.set_health(Health::REFUSED);
        !self.reported.swap(true, Ordering::AcqRel)
    }

    /// Reports that a live connection succeeded. Returns whether this changed the health, so that the control plane has
    /// to be notified.
    pub fn report_connected(&self) -> bool {
        const ENDED: Health = Health::REFUSED.union(Health::TRIAL);
        self.health().intersects(ENDED) && self.clear_health(ENDED).is_refused()
    }

    /// Takes the report of a refused connection, if there is one; the control plane's side of [`Self::report_refused`].
    pub fn take_report(&self) -> bool {
        // Loads first: the control plane visits every backend, and a swap would take the cache line from the workers.
        self.reported.load(Ordering::Acquire) && self.reported.swap(false, Ordering::AcqRel)
    }

    /// Claims the trial of a refused backend, if one is granted.
    pub fn claim_trial(&self) -> bool {
        self.health().contains(Health::TRIAL)
            && self.clear_health(Health::TRIAL).contains(Health::TRIAL)
    }

    /// Requests and sessions that this process has open with the backend.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a request or session that begins; [`Self::finish`] must follow.
    pub fn start(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request or session that has ended.
    pub fn finish(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// The state of the peer set's doubt.
    pub fn doubt(&self) -> Doubt {
        match self.doubt.load(Ordering::Acquire) {
            0 => Doubt::None,
            1 => Doubt::Raised,
            2 => Doubt::Probing,
            _ => Doubt::Answered,
        }
    }

    /// Raises a doubt, if there is none yet: the backend is probed at once, and one failure takes it down from now on.
    /// Returns whether the doubt is new, so that the health checks have to be woken.
    pub fn raise_doubt(&self) -> bool {
        self.step_doubt(Doubt::None, Doubt::Raised)
    }

    /// Ends the doubt.
    pub fn end_doubt(&self) {
        self.doubt.store(Doubt::None as u8, Ordering::Release);
    }

    /// Takes a raised doubt, if there is one, to answer it with a probe; the health checks' side of
    /// [`Self::raise_doubt`].
    pub fn take_doubt(&self) -> bool {
        self.step_doubt(Doubt::Raised, Doubt::Probing)
    }

    /// Reports that a probe passed that started after the doubt was taken.
    pub fn answer_doubt(&self) {
        self.step_doubt(Doubt::Probing, Doubt::Answered);
    }

    fn step_doubt(&self, from: Doubt, to: Doubt) -> bool {
        self.doubt() == from
            && self
                .doubt
                .compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
    }

    /// Why the backend is in its state. Never called by a worker.
    pub fn note(&self) -> HealthNote {
        self.note
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Sets why the backend is in its state; `since` changes only if the reason does. Never called by a worker.
    pub fn set_note(&self, reason: impl Into<String>) {
        let reason = reason.into();
        let mut note = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        note.health = self.health();
        if note.reason != reason {
            note.reason = reason;
            note.since = SystemTime::now();
        }
    }

    /// Updates the reason for a state that continues; `since` stays. Never called by a worker.
    pub fn amend_note(&self, reason: impl Into<String>) {
        let mut note = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        note.reason = reason.into();
        note.health = self.health();
    }

    /// Whether the backend has left its cluster: its pooled connections are closed and its sessions drain.
    pub fn has_departed(&self) -> bool {
        self.departed.load(Ordering::Relaxed)
    }

    /// Sets whether the backend has left its cluster; one that returns while it drains keeps its identity.
    pub fn set_departed(&self, departed: bool) {
        self.departed.store(departed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend() -> Backend {
        Backend::new("web".into(), "127.0.0.1:1".parse().unwrap())
    }

    #[test]
    fn a_refused_connection_is_reported_once_and_a_connection_ends_it() {
        let b = backend();
        assert!(b.report_refused());
        assert!(!b.report_refused(), "the control plane already knows");
        assert!(!b.is_healthy());
        assert!(b.take_report());
        assert!(b.report_connected());
        assert!(b.is_healthy());
        assert!(!b.report_connected());
    }

    #[test]
    fn a_trial_is_claimed_once() {
        let b = backend();
        b.set_health(Health::REFUSED | Health::TRIAL);
        assert!(b.claim_trial());
        assert!(!b.claim_trial());
        assert_eq!(b.health(), Health::REFUSED);
    }

    #[test]
    fn a_doubt_is_raised_taken_and_answered_once() {
        let b = backend();
        assert!(!b.take_doubt());
        b.answer_doubt();
        assert_eq!(b.doubt(), Doubt::None);
        assert!(b.raise_doubt());
        assert!(!b.raise_doubt(), "there is a doubt already");
        b.answer_doubt();
        assert_eq!(b.doubt(), Doubt::Raised, "the probe started before");
        assert!(b.take_doubt());
        assert!(!b.take_doubt());
        b.answer_doubt();
        assert!(!b.raise_doubt());
        assert_eq!(b.doubt(), Doubt::Answered);
        b.end_doubt();
        assert!(b.raise_doubt());
    }

    #[test]
    fn a_live_connection_does_not_override_the_check() {
        let b = backend();
        b.set_health(Health::CHECK_DOWN | Health::REFUSED);
        b.report_connected();
        assert_eq!(b.health(), Health::CHECK_DOWN);
    }
}
