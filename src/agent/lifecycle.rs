//! The lifecycle of an announced service: starting → ready ⇄ failing → draining → left. Pure: what happened and when
//! comes in, what to do comes out, at most one action per event.
//!
//! Without a check a service is ready at once; a supervised one as soon as its process runs. With a check one pass
//! makes it ready and two failures in a row make it failing. The second check comes [`QUICK`] after the first, so a
//! failure is announced about one interval after it began. A process that ends is failing without any check.
//!
//! A drain is ordered so that no request is lost. First `draining` is announced and sent (or [`ANNOUNCE_WITHIN`]
//! passes, since there may be nobody to send it to). Then proxies get `drain_delay` to act on it. Only then the process
//! is told to stop. It has `drain_timeout` to end, and is killed after that; then the agent leaves. A service that is
//! not supervised gets the whole `drain_timeout`, since whatever ends it does so after the agent. A second request to
//! drain cuts this short.

use std::time::Duration;

use crate::gossip::Time;
use crate::gossip::record::ServiceState;

/// Time between two checks while a first pass is awaited, and until a failure is confirmed.
pub(crate) const QUICK: Duration = Duration::from_millis(200);
/// How long an announcement may take to be sent before the drain continues without it.
pub(crate) const ANNOUNCE_WITHIN: Duration = Duration::from_secs(2);
/// How long a killed process may take to end before the agent leaves without it.
const KILL_WITHIN: Duration = Duration::from_secs(2);

/// What the lifecycle of a service depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LifecycleRules {
    /// Time between two checks of a healthy service; absent: there is no check.
    pub interval: Option<Duration>,
    /// The agent runs the service.
    pub supervised: bool,
    /// The end of the process is the end of the agent.
    pub once: bool,
    /// Time from the announced drain until the process is told to stop.
    pub drain_delay: Duration,
    /// Time from there until it is killed; without a process, from the announced drain until the agent leaves.
    pub drain_timeout: Duration,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LifecycleEvent {
    /// The check that was due has passed or failed.
    Checked(bool),
    /// The process runs.
    Started,
    /// The process has ended, or could not be started.
    Exited,
    /// Other rules apply.
    RulesChanged(LifecycleRules),
    /// The agent is asked to end.
    Drain,
    /// The newest announcement was sent.
    Sent,
    /// The time of [`Lifecycle::due`] has come.
    Elapsed,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Announce this state.
    Announce(ServiceState),
    /// Tell the process to stop.
    Stop,
    /// Kill the process.
    Kill,
    /// Announce that the service has left, leave the peer set, and end.
    Leave,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LifecyclePhase {
    /// Starting, ready or failing.
    Serving,
    /// Draining is announced, but may not be sent yet.
    Announcing {
        until: Time,
    },
    /// It was sent; proxies stop sending requests.
    Delaying {
        until: Time,
    },
    /// What is in progress may end.
    Stopping {
        until: Time,
    },
    /// The process was killed.
    Killed {
        until: Time,
    },
    Left,
}

/// The lifecycle of one service.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    rules: LifecycleRules,
    state: ServiceState,
    phase: LifecyclePhase,
    /// The service runs, as far as the agent knows.
    runs: bool,
    /// The last check failed, which is not confirmed yet.
    doubted: bool,
    /// No check has passed since the process started.
    fresh: bool,
    check_at: Option<Time>,
}

impl Lifecycle {
    /// A service at its start; the caller announces [`Self::state`].
    pub(crate) fn new(rules: LifecycleRules, now: Time) -> Self {
        let checked = rules.interval.is_some();
        let runs = !rules.supervised;
        Self {
            state: if runs && !checked {
                ServiceState::Ready
            } else {
                ServiceState::Starting
            },
            phase: LifecyclePhase::Serving,
            runs,
            doubted: false,
            fresh: true,
            check_at: (runs && checked).then_some(now),
            rules,
        }
    }

    /// The state that was announced last.
    pub(crate) fn state(&self) -> ServiceState {
        self.state
    }

    /// When the next check is due; `None`: there is none, and the result of one that runs no longer counts.
    pub(crate) fn check_due(&self) -> Option<Time> {
        self.check_at
    }

    /// When [`LifecycleEvent::Elapsed`] is due.
    pub(crate) fn due(&self) -> Option<Time> {
        match self.phase {
            LifecyclePhase::Announcing { until }
            | LifecyclePhase::Delaying { until }
            | LifecyclePhase::Stopping { until }
            | LifecyclePhase::Killed { until } => Some(until),
            LifecyclePhase::Serving | LifecyclePhase::Left => None,
        }
    }

    /// Whether it waits for [`LifecycleEvent::Sent`].
    pub(crate) fn is_announcing(&self) -> bool {
        matches!(self.phase, LifecyclePhase::Announcing { .. })
    }

    /// Takes what happened. An event that no longer matters changes nothing.
    pub(crate) fn on(&mut self, event: LifecycleEvent, now: Time) -> Option<Action> {
        match event {
            LifecycleEvent::Checked(passed) => self.checked(passed, now),
            LifecycleEvent::Started => self.started(now),
            LifecycleEvent::Exited => self.exited(),
            LifecycleEvent::RulesChanged(rules) => self.change(rules, now),
            LifecycleEvent::Drain => self.drain(now),
            LifecycleEvent::Sent if self.is_announcing() => self.delay(now),
            LifecycleEvent::Elapsed if self.due().is_some_and(|due| due <= now) => {
                self.elapsed(now)
            }
            LifecycleEvent::Sent | LifecycleEvent::Elapsed => None,
        }
    }

    fn checked(&mut self, passed: bool, now: Time) -> Option<Action> {
        self.check_at?;
        let next = match (passed, self.state) {
            (true, _) => ServiceState::Ready,
            (false, ServiceState::Ready) if self.doubted => ServiceState::Failing,
            (false, state) => state,
        };
        self.doubted = !passed && next == ServiceState::Ready;
        self.fresh &= !passed;
        let action = self.become_state(next);
        self.check_at = Some(now + self.check_delay());
        action
    }

    /// Time from the end of a check to the next one.
    fn check_delay(&self) -> Duration {
        let interval = self.rules.interval.unwrap_or_default();
        match self.state {
            _ if self.fresh || self.doubted => QUICK,
            ServiceState::Failing => (interval / 2).max(QUICK),
            _ => interval,
        }
    }

    fn started(&mut self, now: Time) -> Option<Action> {
        self.runs = true;
        self.fresh = true;
        if self.phase != LifecyclePhase::Serving {
            return None;
        }
        if self.rules.interval.is_some() {
            self.check_at = Some(now);
            return None;
        }
        self.become_state(ServiceState::Ready)
    }

    /// A new check is due at once, and the current state stands until it says otherwise. A drain keeps the times that
    /// it began with.
    fn change(&mut self, rules: LifecycleRules, now: Time) -> Option<Action> {
        let rules = std::mem::replace(&mut self.rules, rules);
        if self.phase != LifecyclePhase::Serving || !self.runs || rules == self.rules {
            return None;
        }
        self.doubted = false;
        self.check_at = self.rules.interval.map(|_| now);
        if self.check_at.is_some() {
            return None;
        }
        self.become_state(ServiceState::Ready)
    }

    fn exited(&mut self) -> Option<Action> {
        self.runs = false;
        self.doubted = false;
        self.check_at = None;
        match self.phase {
            LifecyclePhase::Serving if !self.rules.once => self.become_state(ServiceState::Failing),
            LifecyclePhase::Left => None,
            _ => self.leave(),
        }
    }

    fn drain(&mut self, now: Time) -> Option<Action> {
        let process = self.rules.supervised && self.runs;
        self.check_at = None;
        match self.phase {
            LifecyclePhase::Left => None,
            LifecyclePhase::Serving if process => {
                self.phase = LifecyclePhase::Announcing {
                    until: now + ANNOUNCE_WITHIN,
                };
                self.become_state(ServiceState::Draining)
            }
            // Nobody ever learned that it is ready, so no request can be in progress.
            LifecyclePhase::Serving
                if self.rules.supervised || self.state == ServiceState::Starting =>
            {
                self.leave()
            }
            LifecyclePhase::Serving => {
                self.end(now);
                self.become_state(ServiceState::Draining)
            }
            LifecyclePhase::Announcing { .. }
            | LifecyclePhase::Delaying { .. }
            | LifecyclePhase::Stopping { .. }
                if process =>
            {
                self.kill(now)
            }
            _ => self.leave(),
        }
    }

    fn elapsed(&mut self, now: Time) -> Option<Action> {
        match self.phase {
            LifecyclePhase::Announcing { .. } => self.delay(now),
            LifecyclePhase::Delaying { .. } => {
                self.end(now);
                Some(Action::Stop)
            }
            LifecyclePhase::Stopping { .. } if self.rules.supervised => self.kill(now),
            LifecyclePhase::Stopping { .. } | LifecyclePhase::Killed { .. } => self.leave(),
            LifecyclePhase::Serving | LifecyclePhase::Left => None,
        }
    }

    fn delay(&mut self, now: Time) -> Option<Action> {
        self.phase = LifecyclePhase::Delaying {
            until: now + self.rules.drain_delay,
        };
        None
    }

    fn end(&mut self, now: Time) {
        self.phase = LifecyclePhase::Stopping {
            until: now + self.rules.drain_timeout,
        };
    }

    fn kill(&mut self, now: Time) -> Option<Action> {
        self.phase = LifecyclePhase::Killed {
            until: now + KILL_WITHIN,
        };
        Some(Action::Kill)
    }

    fn leave(&mut self) -> Option<Action> {
        self.phase = LifecyclePhase::Left;
        self.state = ServiceState::Left;
        Some(Action::Leave)
    }

    fn become_state(&mut self, next: ServiceState) -> Option<Action> {
        let changed = self.state != next;
        self.state = next;
        changed.then_some(Action::Announce(next))
    }
}

#[cfg(test)]
mod tests {
    use super::Action::{Announce, Kill, Leave, Stop};
    use super::LifecycleEvent::{Checked, Drain, Elapsed, Exited, RulesChanged, Sent, Started};
    use super::ServiceState::{Draining, Failing, Left, Ready, Starting};
    use super::*;
    use Expected::{At, Check, Nothing};

    const PASS: LifecycleEvent = Checked(true);
    const FAIL: LifecycleEvent = Checked(false);

    /// What is awaited, in ms.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Expected {
        Check(u64),
        At(u64),
        Nothing,
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn say(state: ServiceState) -> Option<Action> {
        Some(Announce(state))
    }

    /// Drains take 1 s and 30 s.
    fn rules(interval: Option<u64>, supervised: bool) -> LifecycleRules {
        LifecycleRules {
            interval: interval.map(ms),
            supervised,
            once: false,
            drain_delay: ms(1_000),
            drain_timeout: ms(30_000),
        }
    }

    /// At each time an event, with the expected action and what is awaited after it.
    #[track_caller]
    fn plays(rules: LifecycleRules, lines: &[(u64, LifecycleEvent, Option<Action>, Expected)]) {
        let mut lifecycle = Lifecycle::new(rules, ms(0));
        for &(at, event, action, next) in lines {
            let place = format!("{event:?} at {at} ms");
            let state = match action {
                Some(Announce(state)) => state,
                Some(Leave) => Left,
                Some(Stop | Kill) | None => lifecycle.state(),
            };
            assert_eq!(lifecycle.on(event, ms(at)), action, "{place}");
            assert_eq!(lifecycle.state(), state, "{place}");
            let (check, due) = match next {
                Check(at) => (Some(ms(at)), None),
                At(at) => (None, Some(ms(at))),
                Nothing => (None, None),
            };
            assert_eq!(
                (lifecycle.check_due(), lifecycle.due()),
                (check, due),
                "{place}"
            );
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
            let lifecycle = Lifecycle::new(rules(interval, supervised), ms(0));
            assert_eq!(lifecycle.state(), state);
            assert_eq!((lifecycle.check_due(), lifecycle.due()), (check, None));
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
    fn a_failing_service_is_not_checked_too_often() {
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
    fn a_second_request_kills_and_a_third_does_not_wait_even_for_that() {
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
        let mut lifecycle = Lifecycle::new(every_second, ms(0));
        // Never checked, and then there is nothing to wait for.
        assert_eq!(lifecycle.on(RulesChanged(none), ms(5)), say(Ready));
        assert_eq!((lifecycle.check_due(), lifecycle.due()), (None, None));
        // What was ready is so until a check has failed twice.
        assert_eq!(lifecycle.on(RulesChanged(every_second), ms(10)), None);
        assert_eq!(
            (lifecycle.state(), lifecycle.check_due()),
            (Ready, Some(ms(10)))
        );
        assert_eq!(lifecycle.on(FAIL, ms(11)), None);
        // A doubt about one check does not concern another.
        assert_eq!(lifecycle.on(RulesChanged(every_two), ms(12)), None);
        assert_eq!(lifecycle.on(FAIL, ms(12)), None);
        assert_eq!(lifecycle.on(PASS, ms(212)), None);
        assert_eq!(lifecycle.check_due(), Some(ms(2_212)));
        assert_eq!(lifecycle.on(RulesChanged(every_two), ms(250)), None);
        assert_eq!(
            lifecycle.check_due(),
            Some(ms(2_212)),
            "nothing has changed"
        );
        assert_eq!(lifecycle.on(FAIL, ms(260)), None);
        assert_eq!(lifecycle.on(FAIL, ms(270)), say(Failing));
        assert_eq!(lifecycle.on(RulesChanged(every_second), ms(300)), None);
        assert_eq!(
            (lifecycle.state(), lifecycle.check_due()),
            (Failing, Some(ms(300)))
        );
        assert_eq!(lifecycle.on(PASS, ms(301)), say(Ready));
        // A drain keeps its times.
        assert_eq!(lifecycle.on(Drain, ms(400)), say(Draining));
        let hasty = LifecycleRules {
            drain_timeout: ms(1),
            ..none
        };
        assert_eq!(lifecycle.on(RulesChanged(hasty), ms(500)), None);
        assert_eq!(
            (lifecycle.check_due(), lifecycle.due()),
            (None, Some(ms(30_400)))
        );
        // A process that does not run is not looked at before it does.
        let mut lifecycle = Lifecycle::new(rules(None, true), ms(0));
        assert_eq!(
            lifecycle.on(RulesChanged(rules(Some(1_000), true)), ms(1)),
            None
        );
        assert_eq!(lifecycle.check_due(), None);
        assert_eq!(lifecycle.on(Started, ms(2)), None);
        assert_eq!(
            (lifecycle.state(), lifecycle.check_due()),
            (Starting, Some(ms(2)))
        );
    }

    #[test]
    fn only_a_drain_that_is_not_sent_waits_for_that() {
        let mut lifecycle = Lifecycle::new(rules(None, true), ms(0));
        for (event, announcing) in [(Started, false), (Drain, true), (Sent, false)] {
            lifecycle.on(event, ms(1));
            assert_eq!(lifecycle.is_announcing(), announcing, "{event:?}");
        }
    }

    #[test]
    fn once_ends_with_the_process() {
        let once = LifecycleRules {
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
