//! Logs whether the member has company: others were found, all are lost, nobody answers yet.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::gossip::identity::Role;
use crate::gossip::view::{Liveness, Report};

/// Time without any other member until that is logged, and until it is logged again.
const NOBODY_FIRST: Duration = Duration::from_secs(5);
const NOBODY_AGAIN: Duration = Duration::from_secs(60);

const NO_SEEDS: &str = "no reachable seeds; waiting to be contacted";

/// Logs what `reports` show, for ever. A member that takes another's place starts from scratch. It is normal for a
/// proxy to wait for others to find it, but an agent that nobody finds is of no use.
pub(crate) async fn follow(
    mut reports: watch::Receiver<Option<Arc<Report>>>,
    role: Role,
) -> Infallible {
    let mut began = Instant::now();
    let mut reporter = JoinReporter::default();
    loop {
        if reports.changed().await.is_err() {
            return std::future::pending().await;
        }
        let Some(report) = reports.borrow_and_update().clone() else {
            (began, reporter) = (Instant::now(), JoinReporter::default());
            continue;
        };
        let (others, tries) = (others(&report), report.counters.push_pulls_failed);
        match reporter.update(began.elapsed(), others, tries) {
            Some(JoinEvent::Joined) => info!(others, "joined the peer set"),
            Some(JoinEvent::Lost) => warn!("no other member of the peer set answers any more"),
            Some(JoinEvent::Nobody { tries }) => warn!(
                tries,
                "no member answers yet; members with another key or label never do"
            ),
            Some(JoinEvent::NoSeeds) if role == Role::Agent => warn!("{NO_SEEDS}"),
            Some(JoinEvent::NoSeeds) => info!("{NO_SEEDS}"),
            None => {}
        }
    }
}

/// The number of other members that are alive.
fn others(report: &Report) -> usize {
    let answers = |liveness| matches!(liveness, Liveness::Alive | Liveness::Suspect);
    let members = report.set.members.iter();
    members
        .filter(|member| member.address != report.address && answers(member.liveness))
        .count()
}

/// What there is to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JoinEvent {
    /// The first other member was found, or found again.
    Joined,
    /// The last other member is gone.
    Lost,
    /// There is still nobody, after so many tries.
    Nobody { tries: u64 },
    /// There is nobody, and nobody was asked. This is reported once.
    NoSeeds,
}

/// Whether there are other members, and what was reported of that. Pure.
#[derive(Debug, Default)]
struct JoinReporter {
    joined: bool,
    /// When it was last reported that nobody is there.
    reported: Option<Duration>,
    /// Failed tries before the others were lost.
    failed_before: u64,
    /// It was reported that there are no seeds.
    no_seeds: bool,
}

impl JoinReporter {
    /// Takes the number of other members, and of failed tries since the start. A member without seeds tries nothing: it
    /// waits for others, which is not reported every minute.
    fn update(&mut self, now: Duration, others: usize, failed: u64) -> Option<JoinEvent> {
        match (self.joined, others > 0) {
            (false, true) => {
                self.joined = true;
                Some(JoinEvent::Joined)
            }
            (true, false) => {
                *self = Self {
                    joined: false,
                    reported: Some(now),
                    failed_before: failed,
                    no_seeds: true,
                };
                Some(JoinEvent::Lost)
            }
            (true, true) => None,
            (false, false) => {
                let due = self.reported.map_or(NOBODY_FIRST, |at| at + NOBODY_AGAIN);
                let tries = failed.saturating_sub(self.failed_before);
                if now < due || (tries == 0 && self.no_seeds) {
                    return None;
                }
                if tries == 0 {
                    self.no_seeds = true;
                    return Some(JoinEvent::NoSeeds);
                }
                self.reported = Some(now);
                Some(JoinEvent::Nobody { tries })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::JoinEvent::{Joined, Lost, NoSeeds, Nobody};
    use super::*;

    #[test]
    fn each_change_is_reported_once_and_being_alone_every_minute() {
        let mut reporter = JoinReporter::default();
        for (second, others, failed, event) in [
            (1, 0, 1, None),
            (4, 0, 3, None),
            (5, 0, 4, Some(Nobody { tries: 4 })),
            (6, 0, 5, None),
            (64, 0, 16, None),
            (65, 0, 17, Some(Nobody { tries: 17 })),
            (66, 1, 17, Some(Joined)),
            (67, 2, 17, None),
            (300, 1, 18, None),
            (301, 0, 20, Some(Lost)),
            (302, 0, 21, None),
            (361, 0, 25, Some(Nobody { tries: 5 })),
            (362, 3, 25, Some(Joined)),
        ] {
            let reported = reporter.update(Duration::from_secs(second), others, failed);
            assert_eq!(reported, event, "at {second} s");
        }
    }

    #[test]
    fn a_member_without_seeds_reports_that_once() {
        let mut reporter = JoinReporter::default();
        for (second, others, failed, event) in [
            (4, 0, 0, None),
            (5, 0, 0, Some(NoSeeds)),
            (100, 0, 0, None),
            // The name of its seed finally resolves.
            (101, 0, 1, Some(Nobody { tries: 1 })),
            (102, 1, 1, Some(Joined)),
            (200, 0, 1, Some(Lost)),
            (300, 0, 1, None),
        ] {
            let reported = reporter.update(Duration::from_secs(second), others, failed);
            assert_eq!(reported, event, "at {second} s");
        }
    }
}
