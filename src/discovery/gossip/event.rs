//! What the log says of candidates: one event a change.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::net::SocketAddr;
use std::time::Duration;

use tracing::{info, warn};

use super::Refusal;
use crate::gossip::view::Revocation;

/// Lines of one kind that one update may write; a last one counts the rest.
const MOST_LINES: usize = 20;

/// Something happened to a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Of this cluster.
    pub cluster: String,
    /// Its address; of several, the first.
    pub backend: SocketAddr,
    /// What.
    pub kind: Kind,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It came in.
    Joined,
    /// Out: its agent drains it.
    Draining,
    /// Out: its agent has left in order.
    Left,
    /// Out: its member is there, but no longer announces it.
    Withdrawn,
    /// Out: its member may not announce it any more.
    Revoked(Revocation),
    /// Out: its agent says that it fails (or starts), and there is no check of ours that could say otherwise.
    Failing,
    /// The set calls it down or forgot it.
    Down {
        /// There is a check, which is made at once.
        checked: bool,
    },
    /// Down by the set's word, but its check passes, so it stays.
    DownButPasses,
    /// The set knows it alive again.
    Back,
    /// Out: down by the set's word, and by our own check or for too long.
    Removed,
    /// It came back too often, so it stays out for so long.
    HeldDown(Duration),
    /// Too many are lost at once, so they stay.
    MassRemovalHeld {
        /// Those that are lost.
        lost: usize,
        /// All.
        of: usize,
        /// Those that are lost because their tokens have expired, or because they have none.
        expired: usize,
    },
    /// All of those are back.
    MassRemovalOver,
    /// Records were refused.
    Refused {
        /// Why.
        reason: Refusal,
        /// How many.
        count: usize,
    },
}

/// Writes the events to the log, at most 20 of each kind.
pub(crate) fn log(events: &[Event]) {
    let mut written: HashMap<Discriminant<Kind>, (usize, &Event)> = HashMap::new();
    for event in events {
        let (count, _) = written
            .entry(discriminant(&event.kind))
            .or_insert((0, event));
        *count += 1;
        if *count <= MOST_LINES {
            line(event);
        }
    }
    for (count, example) in written.into_values() {
        if count > MOST_LINES {
            let more = count - MOST_LINES;
            info!(more, kind = ?example.kind, "more of the same of the peer set");
        }
    }
}

fn line(event: &Event) {
    let Event {
        cluster,
        backend,
        kind,
    } = event;
    match kind {
        Kind::Joined => info!(%cluster, %backend, "a backend joined by the peer set"),
        Kind::Draining => info!(%cluster, %backend, "a backend drains: its agent says so"),
        Kind::Left => info!(%cluster, %backend, "a backend left: its agent says so"),
        Kind::Withdrawn => {
            warn!(%cluster, %backend, "a backend is out: its member no longer announces it");
        }
        Kind::Revoked(Revocation::Expired) => {
            warn!(%cluster, %backend, "a backend is out: the token of its agent has expired");
        }
        Kind::Revoked(Revocation::NoToken) => {
            warn!(%cluster, %backend, "a backend is out: its agent has no token, and one is asked for now");
        }
        Kind::Revoked(Revocation::NotPermitted) => {
            warn!(%cluster, %backend, "a backend is out: the token key does not permit it any more");
        }
        Kind::Failing => {
            warn!(%cluster, %backend, "a backend is out: its agent says that it fails, and it has no check")
        }
        Kind::Down { checked: true } => {
            warn!(%cluster, %backend, "the peer set says that a backend is down: it is checked at once");
        }
        Kind::Down { checked: false } => {
            warn!(%cluster, %backend, "the peer set says that a backend is down: without a check it stays for 30 s");
        }
        Kind::DownButPasses => {
            warn!(%cluster, %backend, "the peer set says that a backend is down, but its check passes: it stays");
        }
        Kind::Back => info!(%cluster, %backend, "the peer set knows a backend alive again"),
        Kind::Removed => {
            warn!(%cluster, %backend, "a backend is out: down by the peer set, and it fails or has been lost for too long");
        }
        Kind::HeldDown(time) => {
            warn!(%cluster, %backend, ?time, "a backend came and went too often: it is held down");
        }
        Kind::MassRemovalHeld { lost, of, expired } => warn!(
            %cluster, lost, of, without_token = expired,
            "the peer set lost too many backends at once: they stay for now"
        ),
        Kind::MassRemovalOver => {
            info!(%cluster, "the peer set has found the backends that it lost")
        }
        Kind::Refused { reason, count } => warn!(
            %cluster, %backend, reason = reason.as_str(), count, "announced backends are refused"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::capture::Capture;

    #[test]
    fn a_thousand_joins_are_no_thousand_lines() {
        let lines = Capture::begin();
        let events: Vec<Event> = (1..=1000)
            .map(|port| Event {
                cluster: "web".to_owned(),
                backend: SocketAddr::from(([10, 0, 0, 1], port)),
                kind: Kind::Joined,
            })
            .collect();
        log(&events);
        assert_eq!(lines.count("joined by the peer set"), MOST_LINES);
        assert_eq!(lines.count("more=980"), 1);
    }

    #[test]
    fn a_check_is_only_spoken_of_where_there_is_one() {
        let lines = Capture::begin();
        for checked in [true, false] {
            log(&[Event {
                cluster: "web".to_owned(),
                backend: SocketAddr::from(([10, 0, 0, 1], 80)),
                kind: Kind::Down { checked },
            }]);
            assert_eq!(
                lines.count("says that a backend is down"),
                1 + usize::from(!checked)
            );
        }
        assert_eq!(lines.count("it is checked at once"), 1);
    }
}
