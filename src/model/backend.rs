//! A backend's identity and live state.
//!
//! One [`Backend`] lives as long as its place (cluster, address, and for a name which of its addresses) is a member,
//! through every generation of the configuration; it is the only state that workers share on the path of a request, and all of it is atomic.
//!
//! A backend that the peer set doubts goes through [`Doubt`]: the writer of snapshots raises it, the health checks
//! answer it with a probe at once.

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

    /// The number, never 0.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

/// How far a doubt of the peer set has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Doubt {
    /// There is none.
    None,
    /// A probe is to be made at once.
    Raised,
    /// The probe is on its way.
    Probing,
    /// A probe that began since has passed.
    Answered,
}

/// Why a backend is in its state, for people: written and read by the control plane alone.
#[derive(Debug, Clone)]
pub struct HealthNote {
    /// One short line, as in `check failed: status 500`.
    pub reason: String,
    /// Since when.
    pub since: SystemTime,
    /// The health bits that it was written for.
    pub health: Health,
}

/// A member of a cluster: identity, health and load.
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
    /// A backend that is thought healthy.
    pub fn new(cluster: Arc<str>, address: BackendAddress) -> Self {
        let (host, label) = (address.host(), address.to_string());
        Self::labelled(cluster, address, host.into(), label.into())
    }

    /// The backend at `ip` of a name, with that in its label.
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

    /// Its identity.
    pub fn id(&self) -> BackendId {
        self.id
    }

    /// Name of the cluster.
    pub fn cluster(&self) -> &Arc<str> {
        &self.cluster
    }

    /// Address as the file or the member set gave it.
    pub fn address(&self) -> &BackendAddress {
        &self.address
    }

    /// The address as text, a name without its addresses: what a backend is called as a host.
    pub fn host(&self) -> &Arc<str> {
        &self.host
    }

    /// Label of metrics, log and status, and input of the hash ring: the address as text, or `name@ip:port`.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// The reasons against it now.
    pub fn health(&self) -> Health {
        Health::from_bits_retain(self.health.load(Ordering::Relaxed))
    }

    /// Whether no bit speaks against it.
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

    /// A live connection could not be made: out at once. True if the control plane has yet to hear of it.
    pub fn report_refused(&self) -> bool {
        self.set_health(Health::REFUSED);
        !self.reported.swap(true, Ordering::AcqRel)
    }

    /// A live connection was made. True if this changed the health, so that the control plane must look.
    pub fn report_connected(&self) -> bool {
        const ENDED: Health = Health::REFUSED.union(Health::TRIAL);
        self.health().intersects(ENDED) && self.clear_health(ENDED).is_refused()
    }

    /// Takes the report of a refused connection; the control plane's side of [`Self::report_refused`].
    pub fn take_report(&self) -> bool {
        // The load first: the control plane looks at every backend, and a swap would take the line from the workers.
        self.reported.load(Ordering::Acquire) && self.reported.swap(false, Ordering::AcqRel)
    }

    /// Takes the one trial of a refused backend, if there is one to take.
    pub fn claim_trial(&self) -> bool {
        self.health().contains(Health::TRIAL)
            && self.clear_health(Health::TRIAL).contains(Health::TRIAL)
    }

    /// Requests and sessions that this process has open on it.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts one request or session more; its end is [`Self::finish`].
    pub fn start(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one request or session less.
    pub fn finish(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// The doubt about it.
    pub fn doubt(&self) -> Doubt {
        match self.doubt.load(Ordering::Acquire) {
            0 => Doubt::None,
            1 => Doubt::Raised,
            2 => Doubt::Probing,
            _ => Doubt::Answered,
        }
    }

    /// Raises a doubt, if there is none yet: it is probed at once, and one failure is enough from now on. True if
    /// this is new, so that the health checks must be woken.
    pub fn raise_doubt(&self) -> bool {
        self.step_doubt(Doubt::None, Doubt::Raised)
    }

    /// There is no doubt any more.
    pub fn end_doubt(&self) {
        self.doubt.store(Doubt::None as u8, Ordering::Release);
    }

    /// Takes a raised doubt, to answer it with a probe; the health checks' side of [`Self::raise_doubt`].
    pub fn take_doubt(&self) -> bool {
        self.step_doubt(Doubt::Raised, Doubt::Probing)
    }

    /// A probe passed that began after the doubt was taken.
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

    /// Why it is in its state. Never called by a worker.
    pub fn note(&self) -> HealthNote {
        self.note
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Says why it is in its state; `since` moves only when the reason changes. Never called by a worker.
    pub fn set_note(&self, reason: impl Into<String>) {
        let reason = reason.into();
        let mut note = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        note.health = self.health();
        if note.reason != reason {
            note.reason = reason;
            note.since = SystemTime::now();
        }
    }

    /// Gives a newer reason for the state that goes on; `since` stays. Never called by a worker.
    pub fn amend_note(&self, reason: impl Into<String>) {
        let mut note = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        note.reason = reason.into();
        note.health = self.health();
    }

    /// Whether it is no longer a member: pooled connections go, sessions drain.
    pub fn has_departed(&self) -> bool {
        self.departed.load(Ordering::Relaxed)
    }

    /// Says whether it has left its cluster; a backend that returns while it drains is itself again.
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
    fn a_refusal_is_reported_once_and_a_connection_ends_it() {
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
    fn a_trial_is_taken_once() {
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
        assert!(!b.raise_doubt(), "it is doubted already");
        b.answer_doubt();
        assert_eq!(b.doubt(), Doubt::Raised, "by a probe that began before");
        assert!(b.take_doubt());
        assert!(!b.take_doubt());
        b.answer_doubt();
        assert!(!b.raise_doubt());
        assert_eq!(b.doubt(), Doubt::Answered);
        b.end_doubt();
        assert!(b.raise_doubt());
    }

    #[test]
    fn a_live_connection_does_not_overrule_the_check() {
        let b = backend();
        b.set_health(Health::CHECK_DOWN | Health::REFUSED);
        b.report_connected();
        assert_eq!(b.health(), Health::CHECK_DOWN);
    }
}
