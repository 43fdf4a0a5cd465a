//! The life of an announced service: starting → ready ⇄ failing → draining → left. Pure: what happened and when comes
//! in, what to do comes out, at most one act an event.
//!
//! Without a check a service is ready at once; a supervised one as soon as its process runs. With a check one pass
//! makes it ready and two failures in a row make it failing. The second look comes [`QUICK`] after the first, so that
//! a failure is told about an interval after it began. A process that ends is failing without any check.
//!
//! The order of a drain is the one that loses no request: `draining` is announced, and is out (or [`MOST_TELLING`] has
//! passed: there may be nobody to tell); proxies get `drain_delay` to act on it; only then the process is told to
//! stop; it has `drain_timeout` to end, and is killed after that; then the agent leaves. A service that is not
//! supervised gets `drain_timeout`, for whoever ends it does so after the agent. A second order cuts it short.

use std::time::Duration;

use crate::gossip::Time;
use crate::gossip::record::ServiceState;

/// Between two checks while a pass is waited for, and before a failure is believed.
pub(crate) const QUICK: Duration = Duration::from_millis(200);
/// How long an announcement may take to be out before the drain goes on without it.
pub(crate) const MOST_TELLING: Duration = Duration::from_secs(2);
/// How long a killed process may take to end before the agent leaves without it.
const MOST_DYING: Duration = Duration::from_secs(2);

/// What is known of the service in advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Between two checks of a service that is well; absent: there is no check.
    pub interval: Option<Duration>,
    /// The agent runs the service.
    pub supervised: bool,
    /// The end of the process is the end of the agent.
    pub once: bool,
    /// From the announced drain to the stop of the process.
    pub drain_delay: Duration,
    /// From there to its kill; without a process, from the announced drain to the end.
    pub drain_timeout: Duration,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The check that was due has passed or failed.
    Checked(bool),
    /// The process runs.
    Started,
    /// The process has ended, or could not be started.
    Exited,
    /// Other rules hold.
    Changed(Rules),
    /// An order to end.
    Drain,
    /// The newest announcement is out.
    Sent,
    /// The moment of [`Life::due`] has come.
    Elapsed,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Announce this state.
    Announce(ServiceState),
    /// Tell the process to stop.
    Stop,
    /// Kill it.
    Kill,
    /// Announce that it has left, leave the peer set, end.
    Leave,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Starting, ready or failing.
    Serving,
    /// Draining is announced and perhaps not out.
    Telling {
        until: Time,
    },
    /// It is out; proxies turn away.
    Turning {
        until: Time,
    },
    /// What is live may end.
    Ending {
        until: Time,
    },
    /// The process was killed.
    Dying {
        until: Time,
    },
    Left,
}

/// One service.
#[derive(Debug)]
pub(crate) struct Life {
    rules: Rules,
    state: ServiceState,
    phase: Phase,
    /// There is a service to look at.
    runs: bool,
    /// The last check failed, and that is not believed yet.
    doubted: bool,
    /// No check has passed since the process started.
    fresh: bool,
    check_at: Option<Time>,
}

impl Life {
    /// A service at its start; [`Self::state`] is to be announced.
    pub(crate) fn new(rules: Rules, now: Time) -> Self {
        let checked = rules.interval.is_some();
        let runs = !rules.supervised;
        Self {
            state: if runs && !checked {
                ServiceState::Ready
            } else {
                ServiceState::Starting
            },
            phase: Phase::Serving,
            runs,
            doubted: false,
            fresh: true,
            check_at: (runs && checked).then_some(now),
            rules,
        }
    }

    /// As it was last to be announced.
    pub(crate) fn state(&self) -> ServiceState {
        self.state
    }

    /// When the next check is due; `None`: none, and the result of one that is on its way no longer counts.
    pub(crate) fn check_due(&self) -> Option<Time> {
        self.check_at
    }

    /// When [`Event::Elapsed`] is due.
    pub(crate) fn due(&self) -> Option<Time> {
        match self.phase {
            Phase::Telling { until }
            | Phase::Turning { until }
            | Phase::Ending { until }
            | Phase::Dying { until } => Some(until),
            Phase::Serving | Phase::Left => None,
        }
    }

    /// Whether [`Event::Sent`] is waited for.
    pub(crate) fn is_telling(&self) -> bool {
        matches!(self.phase, Phase::Telling { .. })
    }

    /// Takes in what happened. What no longer matters changes nothing.
    pub(crate) fn on(&mut self, event: Event, now: Time) -> Option<Act> {
        match event {
            Event::Checked(passed) => self.checked(passed, now),
            Event::Started => self.started(now),
            Event::Exited => self.exited(),
            Event::Changed(rules) => self.change(rules, now),
            Event::Drain => self.drain(now),
            Event::Sent if self.is_telling() => self.turn(now),
            Event::Elapsed if self.due().is_some_and(|due| due <= now) => self.elapsed(now),
            Event::Sent | Event::Elapsed => None,
        }
    }

    fn checked(&mut self, passed: bool, now: Time) -> Option<Act> {
        self.check_at?;
        let next = match (passed, self.state) {
            (true, _) => ServiceState::Ready,
            (false, ServiceState::Ready) if self.doubted => ServiceState::Failing,
            (false, state) => state,
        };
        self.doubted = !passed && next == ServiceState::Ready;
        self.fresh &= !passed;
        let act = self.become_state(next);
        self.check_at = Some(now + self.pace());
        act
    }

    /// From the end of a check to the next.
    fn pace(&self) -> Duration {
        let interval = self.rules.interval.unwrap_or_default();
        match self.state {
            _ if self.fresh || self.doubted => QUICK,
            ServiceState::Failing => (interval / 2).max(QUICK),
            _ => interval,
        }
    }

    fn started(&mut self, now: Time) -> Option<Act> {
        self.runs = true;
        self.fresh = true;
        if self.phase != Phase::Serving {
            return None;
        }
        if self.rules.interval.is_some() {
            self.check_at = Some(now);
            return None;
        }
        self.become_state(ServiceState::Ready)
    }

    /// A check that is new is due at once, and what it follows on stands until it says
    /// otherwise; a drain that has begun keeps the times that it began with.
    fn change(&mut self, rules: Rules, now: Time) -> Option<Act> {
        let rules = std::mem::replace(&mut self.rules, rules);
        if self.phase != Phase::Serving || !self.runs || rules == self.rules {
            return None;
        }
        self.doubted = false;
        self.check_at = self.rules.interval.map(|_| now);
        if self.check_at.is_some() {
            return None;
        }
        self.become_state(ServiceState::Ready)
    }

    fn exited(&mut self) -> Option<Act> {
        self.runs = false;
        self.doubted = false;
        self.check_at = None;
        match self.phase {
            Phase::Serving if !self.rules.once => self.become_state(ServiceState::Failing),
            Phase::Left => None,
            _ => self.leave(),
        }
    }

    fn drain(&mut self, now: Time) -> Option<Act> {
        let process = self.rules.supervised && self.runs;
        self.check_at = None;
        match self.phase {
            Phase::Left => None,
            Phase::Serving if process => {
                self.phase = Phase::Telling {
                    until: now + MOST_TELLING,
                };
                self.become_state(ServiceState::Draining)
            }
            // Nobody was ever told that it is ready, so nothing of ours can be live.
            Phase::Serving if self.rules.supervised || self.state == ServiceState::Starting => {
                self.leave()
            }
            Phase::Serving => {
                self.end(now);
                self.become_state(ServiceState::Draining)
            }
            Phase::Telling { .. } | Phase::Turning { .. } | Phase::Ending { .. } if process => {
                self.kill(now)
            }
            _ => self.leave(),
        }
    }

    fn elapsed(&mut self, now: Time) -> Option<Act> {
        match self.phase {
            Phase::Telling { .. } => self.turn(now),
            Phase::Turning { .. } => {
                self.end(now);
                Some(Act::Stop)
            }
            Phase::Ending { .. } if self.rules.supervised => self.kill(now),
            Phase::Ending { .. } | Phase::Dying { .. } => self.leave(),
            Phase::Serving | Phase::Left => None,
        }
    }

    fn turn(&mut self, now: Time) -> Option<Act> {
        self.phase = Phase::Turning {
            until: now + self.rules.drain_delay,
        };
        None
    }

    fn end(&mut self, now: Time) {
        self.phase = Phase::Ending {
            until: now + self.rules.drain_timeout,
        };
    }

    fn kill(&mut self, now: Time) -> Option<Act> {
        self.phase = Phase::Dying {
            until: now + MOST_DYING,
        };
        Some(Act::Kill)
    }

    fn leave(&mut self) -> Option<Act> {
        self.phase = Phase::Left;
        self.state = ServiceState::Left;
        Some(Act::Leave)
    }

    fn become_state(&mut self, next: ServiceState) -> Option<Act> {
        let changed = self.state != next;
        self.state = next;
        changed.then_some(Act::Announce(next))
    }
}

#[cfg(test)]
mod tests {
    use super::Act::{Announce, Kill, Leave, Stop};
    use super::Event::{Changed, Checked, Drain, Elapsed, Exited, Sent, Started};
    use super::ServiceState::{Draining, Failing, Left, Ready, Starting};
    use super::*;
    use Next::{At, Check, Nothing};

    const PASS: Event = Checked(true);
    const FAIL: Event = Checked(false);

    /// What is waited for, in ms.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Next {
        Check(u64),
        At(u64),
        Nothing,
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn say(state: ServiceState) -> Option<Act> {
        Some(Announce(state))
    }

    /// Drains take 1 s and 30 s.
    fn rules(interval: Option<u64>, supervised: bool) -> Rules {
        Rules {
            interval: interval.map(ms),
            supervised,
            once: false,
            drain_delay: ms(1_000),
            drain_timeout: ms(30_000),
        }
    }

    /// At each time an event: the act, and what is waited for then.
    #[track_caller]
    fn plays(rules: Rules, lines: &[(u64, Event, Option<Act>, Next)]) {
        let mut life = Life::new(rules, ms(0));
        for &(at, event, act, next) in lines {
            let place = format!("{event:?} at {at} ms");
            let state = match act {
                Some(Announce(state)) => state,
                Some(Leave) => Left,
                Some(Stop | Kill) | None => life.state(),
            };
            assert_eq!(life.on(event, ms(at)), act, "{place}");
            assert_eq!(life.state(), state, "{place}");
            let (check, due) = match next {
                Check(at) => (Some(ms(at)), None),
                At(at) => (None, Some(ms(at))),
                Nothing => (None, None),
            };
            assert_eq!((life.check_due(), life.due()), (check, due), "{place}");
        }
    }

    #[test]
    fn how_it_begins() {
        for (interval, supervised, state, check) in [
            (None, false, Ready, None),
            (None, true, Starting, None),
            (Some(1_000), false, Starting, Some(ms(0))),
            (Some(1_000), true, Starting, None),
        ] {
            let life = Life::new(rules(interval, supervised), ms(0));
            assert_eq!(life.state(), state);
            assert_eq!((life.check_due(), life.due()), (check, None));
        }
    }

    #[test]
    fn checks_alone_make_ready_and_failing() {
        plays(
            rules(Some(1_000), false),
            &[
                (10, FAIL, None, Check(210)),
                (215, FAIL, None, Check(415)),
                (420, PASS, say(Ready), Check(1_420)),
                (1_420, PASS, None, Check(2_420)),
                // One failure is looked at again at once, and forgotten if it does not repeat.
                (2_420, FAIL, None, Check(2_620)),
                (2_620, PASS, None, Check(3_620)),
                (3_620, FAIL, None, Check(3_820)),
                (3_820, FAIL, say(Failing), Check(4_320)),
                (4_320, FAIL, None, Check(4_820)),
                (4_820, PASS, say(Ready), Check(5_820)),
                (5_820, FAIL, None, Check(6_020)),
            ],
        );
    }

    #[test]
    fn a_failing_service_is_not_checked_faster_than_is_sane() {
        plays(
            rules(Some(300), false),
            &[
                (0, PASS, say(Ready), Check(300)),
                (300, FAIL, None, Check(500)),
                (500, FAIL, say(Failing), Check(700)),
            ],
        );
    }

    #[test]
    fn a_service_that_others_run_drains_for_the_whole_time() {
        plays(
            rules(None, false),
            &[
                (5, Drain, say(Draining), At(30_005)),
                (6, PASS, None, At(30_005)),
                (7, Sent, None, At(30_005)),
                (30_004, Elapsed, None, At(30_005)),
                (30_005, Elapsed, Some(Leave), Nothing),
                (30_006, Drain, None, Nothing),
                (30_006, Exited, None, Nothing),
            ],
        );
        plays(
            rules(Some(1_000), false),
            &[
                (0, PASS, say(Ready), Check(1_000)),
                (5, Drain, say(Draining), At(30_005)),
                (9, FAIL, None, At(30_005)),
                (10, Drain, Some(Leave), Nothing),
            ],
        );
        // It was never ready.
        plays(
            rules(Some(1_000), false),
            &[(5, Drain, Some(Leave), Nothing)],
        );
    }

    #[test]
    fn a_process_is_checked_while_it_runs() {
        plays(
            rules(Some(1_000), true),
            &[
                (0, PASS, None, Nothing),
                (10, Started, None, Check(10)),
                (11, FAIL, None, Check(211)),
                (211, PASS, say(Ready), Check(1_211)),
                (1_211, FAIL, None, Check(1_411)),
                (1_300, Exited, say(Failing), Nothing),
                (1_301, PASS, None, Nothing),
                // A new process is looked at as often as the first.
                (2_300, Started, None, Check(2_300)),
                (2_301, FAIL, None, Check(2_501)),
                (2_501, PASS, say(Ready), Check(3_501)),
                (3_501, FAIL, None, Check(3_701)),
                (3_701, FAIL, say(Failing), Check(4_201)),
            ],
        );
    }

    #[test]
    fn without_a_check_a_process_is_ready_while_it_runs() {
        plays(
            rules(None, true),
            &[
                (0, Exited, say(Failing), Nothing),
                (1_000, Started, say(Ready), Nothing),
                (1_500, Exited, say(Failing), Nothing),
                // Nothing runs: there is nothing to wait for.
                (1_600, Drain, Some(Leave), Nothing),
            ],
        );
    }

    #[test]
    fn a_process_is_stopped_when_proxies_know() {
        plays(
            rules(Some(1_000), true),
            &[
                (0, Started, None, Check(0)),
                (10, PASS, say(Ready), Check(1_010)),
                (100, Drain, say(Draining), At(2_100)),
                (150, Sent, None, At(1_150)),
                (160, Sent, None, At(1_150)),
                (1_149, Elapsed, None, At(1_150)),
                (1_150, Elapsed, Some(Stop), At(31_150)),
                (5_000, Exited, Some(Leave), Nothing),
            ],
        );
    }

    #[test]
    fn a_drain_that_nobody_hears_of_and_a_process_that_does_not_stop() {
        plays(
            rules(None, true),
            &[
                (0, Started, say(Ready), Nothing),
                (100, Drain, say(Draining), At(2_100)),
                (2_100, Elapsed, None, At(3_100)),
                (3_100, Elapsed, Some(Stop), At(33_100)),
                (33_100, Elapsed, Some(Kill), At(35_100)),
                (35_100, Elapsed, Some(Leave), Nothing),
            ],
        );
    }

    #[test]
    fn a_second_order_kills_and_a_third_does_not_wait_even_for_that() {
        let lines = [
            (0, Started, say(Ready), Nothing),
            (100, Drain, say(Draining), At(2_100)),
            (150, Sent, None, At(1_150)),
            (1_150, Elapsed, Some(Stop), At(31_150)),
        ];
        for begun in 2..=lines.len() {
            let again = [(1_200, Drain, Some(Kill), At(3_200))];
            for last in [Exited, Drain] {
                let last = [(1_201, last, Some(Leave), Nothing)];
                plays(
                    rules(None, true),
                    &[&lines[..begun], &again, &last].concat(),
                );
            }
        }
    }

    #[test]
    fn other_rules() {
        let [every_second, every_two, none] =
            [Some(1_000), Some(2_000), None].map(|i| rules(i, false));
        let mut life = Life::new(every_second, ms(0));
        // Never checked, and then there is nothing to wait for.
        assert_eq!(life.on(Changed(none), ms(5)), say(Ready));
        assert_eq!((life.check_due(), life.due()), (None, None));
        // What was ready is so until a check has failed twice.
        assert_eq!(life.on(Changed(every_second), ms(10)), None);
        assert_eq!((life.state(), life.check_due()), (Ready, Some(ms(10))));
        assert_eq!(life.on(FAIL, ms(11)), None);
        // A doubt about one check is none about another.
        assert_eq!(life.on(Changed(every_two), ms(12)), None);
        assert_eq!(life.on(FAIL, ms(12)), None);
        assert_eq!(life.on(PASS, ms(212)), None);
        assert_eq!(life.check_due(), Some(ms(2_212)));
        assert_eq!(life.on(Changed(every_two), ms(250)), None);
        assert_eq!(life.check_due(), Some(ms(2_212)), "nothing has changed");
        assert_eq!(life.on(FAIL, ms(260)), None);
        assert_eq!(life.on(FAIL, ms(270)), say(Failing));
        assert_eq!(life.on(Changed(every_second), ms(300)), None);
        assert_eq!((life.state(), life.check_due()), (Failing, Some(ms(300))));
        assert_eq!(life.on(PASS, ms(301)), say(Ready));
        // A drain keeps its times.
        assert_eq!(life.on(Drain, ms(400)), say(Draining));
        let hasty = Rules {
            drain_timeout: ms(1),
            ..none
        };
        assert_eq!(life.on(Changed(hasty), ms(500)), None);
        assert_eq!((life.check_due(), life.due()), (None, Some(ms(30_400))));
        // A process that does not run is not looked at before it does.
        let mut life = Life::new(rules(None, true), ms(0));
        assert_eq!(life.on(Changed(rules(Some(1_000), true)), ms(1)), None);
        assert_eq!(life.check_due(), None);
        assert_eq!(life.on(Started, ms(2)), None);
        assert_eq!((life.state(), life.check_due()), (Starting, Some(ms(2))));
    }

    #[test]
    fn only_a_drain_that_is_not_out_waits_for_that() {
        let mut life = Life::new(rules(None, true), ms(0));
        for (event, telling) in [(Started, false), (Drain, true), (Sent, false)] {
            life.on(event, ms(1));
            assert_eq!(life.is_telling(), telling, "{event:?}");
        }
    }

    #[test]
    fn once_ends_with_the_process() {
        let once = Rules {
            once: true,
            ..rules(None, true)
        };
        plays(
            once,
            &[
                (0, Started, say(Ready), Nothing),
                (9, Exited, Some(Leave), Nothing),
            ],
        );
        plays(once, &[(0, Exited, Some(Leave), Nothing)]);
    }
}
