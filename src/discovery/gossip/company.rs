//! What the log says of the company that a member is in: others found, all lost, nobody there yet.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::gossip::identity::Role;
use crate::gossip::view::{Liveness, Report};

/// How long nobody may be there before that is told, and told again.
const NOBODY_FIRST: Duration = Duration::from_secs(5);
const NOBODY_AGAIN: Duration = Duration::from_secs(60);

const WAITS: &str =
    "asks no other member, having no seeds or none whose name resolves: waits to be found";

/// Tells of the company that `reports` show, for ever; a member that ends and another one that begins start anew. A
/// proxy may well wait for others to find it; an agent that does is seen by nobody.
pub(crate) async fn follow(
    mut reports: watch::Receiver<Option<Arc<Report>>>,
    role: Role,
) -> Infallible {
    let mut began = Instant::now();
    let mut company = Company::default();
    loop {
        if reports.changed().await.is_err() {
            return std::future::pending().await;
        }
        let Some(report) = reports.borrow_and_update().clone() else {
            (began, company) = (Instant::now(), Company::default());
            continue;
        };
        let (others, tries) = (others(&report), report.counters.exchanges_failed);
        match company.look(began.elapsed(), others, tries) {
            Some(Word::Joined) => info!(others, "joined the peer set"),
            Some(Word::Lost) => warn!("no other member of the peer set answers any more"),
            Some(Word::Nobody { tries }) => warn!(
                tries,
                "no member answers yet; one with another key or label never does"
            ),
            Some(Word::Waits) if role == Role::Agent => warn!("{WAITS}"),
            Some(Word::Waits) => info!("{WAITS}"),
            None => {}
        }
    }
}

/// How many other members answer.
fn others(report: &Report) -> usize {
    let answers = |liveness| matches!(liveness, Liveness::Alive | Liveness::Suspect);
    let members = report.set.members.iter();
    members
        .filter(|member| member.address != report.address && answers(member.liveness))
        .count()
}

/// What there is to say of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// The first is there, or there again.
    Joined,
    /// The last is gone.
    Lost,
    /// Still none, after so many tries.
    Nobody { tries: u64 },
    /// None, and nobody was asked; said once.
    Waits,
}

/// Whether there are others, and what was said of it. Pure.
#[derive(Debug, Default)]
struct Company {
    there: bool,
    /// When it was last said that nobody is there.
    said: Option<Duration>,
    /// Tries before the others were lost.
    before: u64,
    /// It was said that it waits.
    waits: bool,
}

impl Company {
    /// Takes in the number of others and of tries that failed since the start. A member without seeds tries nothing: it
    /// waits for others, which is no news each minute.
    fn look(&mut self, now: Duration, others: usize, failed: u64) -> Option<Word> {
        match (self.there, others > 0) {
            (false, true) => {
                self.there = true;
                Some(Word::Joined)
            }
            (true, false) => {
                *self = Self {
                    there: false,
                    said: Some(now),
                    before: failed,
                    waits: true,
                };
                Some(Word::Lost)
            }
            (true, true) => None,
            (false, false) => {
                let due = self.said.map_or(NOBODY_FIRST, |said| said + NOBODY_AGAIN);
                let tries = failed.saturating_sub(self.before);
                if now < due || (tries == 0 && self.waits) {
                    return None;
                }
                if tries == 0 {
                    self.waits = true;
                    return Some(Word::Waits);
                }
                self.said = Some(now);
                Some(Word::Nobody { tries })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Word::{Joined, Lost, Nobody, Waits};
    use super::*;

    #[test]
    fn each_change_is_told_once_and_solitude_each_minute() {
        let mut company = Company::default();
        for (second, others, failed, word) in [
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
            let said = company.look(Duration::from_secs(second), others, failed);
            assert_eq!(said, word, "at {second} s");
        }
    }

    #[test]
    fn who_asks_nobody_misses_nobody() {
        let mut company = Company::default();
        for (second, others, failed, word) in [
            (4, 0, 0, None),
            (5, 0, 0, Some(Waits)),
            (100, 0, 0, None),
            // Its seed's name resolves at last.
            (101, 0, 1, Some(Nobody { tries: 1 })),
            (102, 1, 1, Some(Joined)),
            (200, 0, 1, Some(Lost)),
            (300, 0, 1, None),
        ] {
            let said = company.look(Duration::from_secs(second), others, failed);
            assert_eq!(said, word, "at {second} s");
        }
    }
}
