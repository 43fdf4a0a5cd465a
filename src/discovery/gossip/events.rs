//! What is logged about candidates: one event per change.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::net::SocketAddr;
use std::time::Duration;

use tracing::{info, warn};

use super::admission::CandidateRefusal;
use crate::gossip::record::Revocation;

/// Most lines of one kind that one update may log; one more line counts the rest.
const MAX_LINES: usize = 20;

/// Something that happened to a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CandidateEvent {
    /// The cluster.
    pub cluster: String,
    /// Address of the candidate; of several, the first.
    pub backend: SocketAddr,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// It was added.
    Joined,
    /// It was removed: its agent drains it.
    Draining,
    /// It was removed: its agent has left in order.
    Left,
    /// It was removed: its member is alive, but no longer announces it.
    Withdrawn,
    /// It was removed: its member may no longer announce it.
    Revoked(Revocation),
    /// It was removed: its agent says that it fails (or starts), and no check of ours could say otherwise.
    Failing,
    /// The set considers it down, or has forgotten it.
    Down {
        /// It has a check, which is made at once.
        checked: bool,
    },
    /// The set considers it down, but its check passes, so it stays.
    DownButPasses,
    /// The set knows it as alive again.
    Back,
    /// It was removed: the set considers it down, and our own check agrees or it was lost for too long.
    Removed,
    /// It came back too often, so it is kept out for this time.
    HeldDown(Duration),
    /// Too many are lost at once, so they stay.
    MassRemovalHeld {
        /// How many are lost.
        lost: usize,
        /// How many there are.
        of: usize,
        /// How many of the lost ones have an expired token, or none.
        expired: usize,
    },
    /// All of those are back.
    MassRemovalOver,
    /// Records were refused.
    Refused {
        /// Why.
        reason: CandidateRefusal,
        /// How many.
        count: usize,
    },
}

/// Logs the events, at most 20 of each kind.
pub(crate) fn log(events: &[CandidateEvent]) {
    let mut written: HashMap<Discriminant<EventKind>, (usize, &CandidateEvent)> = HashMap::new();
    for event in events {
        let (count, _) = written
            .entry(discriminant(&event.kind))
            .or_insert((0, event));
        *count += 1;
        if *count <= MAX_LINES {
            log_one(event);
        }
    }
    for (count, example) in written.into_values() {
        if count > MAX_LINES {
            let more = count - MAX_LINES;
            info!(more, kind = ?example.kind, "peer set: more events of this kind");
        }
    }
}

fn log_one(event: &CandidateEvent) {
    let CandidateEvent {
        cluster,
        backend,
        kind,
    } = event;
    match kind {
        EventKind::Joined => info!(%cluster, %backend, "backend joined through the peer set"),
        EventKind::Draining => info!(%cluster, %backend, "backend removed: its agent drains it"),
        EventKind::Left => info!(%cluster, %backend, "backend removed: its agent has left"),
        EventKind::Withdrawn => {
            warn!(%cluster, %backend, "backend removed: its member no longer announces it");
        }
        EventKind::Revoked(Revocation::Expired) => {
            warn!(%cluster, %backend, "backend removed: its agent's token has expired");
        }
        EventKind::Revoked(Revocation::NoToken) => {
            warn!(%cluster, %backend, "backend removed: its agent has no token, and tokens are required now");
        }
        EventKind::Revoked(Revocation::NotPermitted) => {
            warn!(%cluster, %backend, "backend removed: it is no longer permitted by a token key");
        }
        EventKind::Failing => {
            warn!(%cluster, %backend, "backend removed: its agent reports that it fails, and the cluster has no check");
        }
        EventKind::Down { checked: true } => {
            warn!(%cluster, %backend, "the peer set reports a backend as down; checking it at once");
        }
        EventKind::Down { checked: false } => {
            warn!(%cluster, %backend, "the peer set reports a backend as down; without a check it stays for 30 s");
        }
        EventKind::DownButPasses => {
            warn!(%cluster, %backend, "the peer set reports a backend as down, but its check passes; keeping it");
        }
        EventKind::Back => {
            info!(%cluster, %backend, "the peer set reports a backend as alive again")
        }
        EventKind::Removed => warn!(
            %cluster, %backend,
            "backend removed: the peer set reports it as down, and it fails or was lost for too long"
        ),
        EventKind::HeldDown(time) => {
            warn!(%cluster, %backend, ?time, "backend held down: it came and went too often");
        }
        EventKind::MassRemovalHeld { lost, of, expired } => warn!(
            %cluster, lost, of, without_token = expired,
            "the peer set lost too many backends at once; keeping them for now"
        ),
        EventKind::MassRemovalOver => {
            info!(%cluster, "the peer set has found the lost backends again");
        }
        EventKind::Refused { reason, count } => warn!(
            %cluster, %backend, reason = reason.as_str(), count, "announced backends were refused"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::capture::LogCapture;

    #[test]
    fn a_thousand_joins_do_not_make_a_thousand_lines() {
        let lines = LogCapture::begin();
        let events: Vec<CandidateEvent> = (1..=1000)
            .map(|port| CandidateEvent {
                cluster: "web".to_owned(),
                backend: SocketAddr::from(([10, 0, 0, 1], port)),
                kind: EventKind::Joined,
            })
            .collect();
        log(&events);
        assert_eq!(lines.count("joined through the peer set"), MAX_LINES);
        assert_eq!(lines.count("more=980"), 1);
    }

    #[test]
    fn a_check_is_only_mentioned_if_there_is_one() {
        let lines = LogCapture::begin();
        for checked in [true, false] {
            log(&[CandidateEvent {
                cluster: "web".to_owned(),
                backend: SocketAddr::from(([10, 0, 0, 1], 80)),
                kind: EventKind::Down { checked },
            }]);
            assert_eq!(
                lines.count("reports a backend as down"),
                1 + usize::from(!checked)
            );
        }
        assert_eq!(lines.count("checking it at once"), 1);
    }
}
