//! Waits for whatever happens to the agent (signals, the process, checks, settings, time), passes it to the lifecycle,
//! and does what that decides.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;

use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::lifecycle::{Action, Lifecycle, LifecycleEvent};
use super::settings::AgentSettings;
use super::settings_file::SettingsFile;
use super::signals::AgentSignals;
use super::supervise::{ProcessEvent, Supervisor};
use super::{AgentError, Announcer};
use crate::config::schema::LocalCheck;
use crate::discovery::dns::resolve_all;
use crate::gossip::Time;
use crate::gossip::record::ServiceState;
use crate::health::probe::{ProbeFailure, ProbeSuccess, probe};
use crate::model::address::{BackendAddress, SocketAddress};
use crate::model::signal::signal_name;

/// Exit code after a drain that a second signal cut short.
const CUT_SHORT: u8 = 1;

type CheckResult = Result<ProbeSuccess, ProbeFailure>;
type BoxedFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;
/// New settings, and whether the announcer has taken them over.
type ChangeResult = (AgentSettings, Result<(), String>);

/// An agent that runs.
pub(super) struct EventLoop<'a, A> {
    began: Instant,
    service: Service,
    supervisor: Option<Supervisor>,
    announcer: &'a A,
    signals: AgentSignals,
    file: Option<&'a SettingsFile>,
    /// What the file holds from now on.
    new_settings: mpsc::Receiver<AgentSettings>,
    check: Option<BoxedFuture<'static, CheckResult>>,
    change: Option<BoxedFuture<'a, ChangeResult>>,
}

/// What is known of the service.
struct Service {
    lifecycle: Lifecycle,
    settings: AgentSettings,
    /// Why the last check failed.
    failure: Option<ProbeFailure>,
    /// The first signal that asked the agent to end; it is passed on to the process.
    end: Option<Signal>,
    exit_code: u8,
}

impl<'a, A: Announcer> EventLoop<'a, A> {
    /// Announces the service for the first time.
    ///
    /// # Errors
    /// The process cannot be supervised.
    pub(super) fn start(
        settings: AgentSettings,
        file: Option<&'a SettingsFile>,
        new_settings: mpsc::Receiver<AgentSettings>,
        announcer: &'a A,
        signals: AgentSignals,
    ) -> Result<Self, AgentError> {
        let supervisor = match &settings.command[..] {
            [] => None,
            command => Some(Supervisor::new(command.to_vec(), settings.config.once)),
        };
        let supervisor = supervisor.transpose().map_err(AgentError::Signals)?;
        let service = Service {
            lifecycle: Lifecycle::new(settings.lifecycle_rules(), Time::ZERO),
            settings,
            failure: None,
            end: None,
            exit_code: 0,
        };
        let (state, config) = (service.lifecycle.state(), &service.settings.config);
        announcer.announce(state);
        info!(
            cluster = config.cluster, backend = %config.backend, state = state.as_str(),
            "announced"
        );
        Ok(Self {
            began: Instant::now(),
            service,
            supervisor,
            announcer,
            signals,
            file,
            new_settings,
            check: None,
            change: None,
        })
    }

    /// Runs until it is time to leave; returns the exit code.
    pub(super) async fn run(mut self) -> u8 {
        loop {
            let Some(event) = self.next_event().await else {
                continue;
            };
            let now = self.began.elapsed();
            let Some(action) = self.service.lifecycle.on(event, now) else {
                continue;
            };
            if let ControlFlow::Break(code) = self.act(action) {
                return code;
            }
        }
    }

    /// Waits for the next thing to happen; `None` if it does not concern the lifecycle.
    async fn next_event(&mut self) -> Option<LifecycleEvent> {
        let lifecycle = &self.service.lifecycle;
        let at = |time: Option<Time>| time.map(|time| self.began + time);
        let (check_due, due) = (at(lifecycle.check_due()), at(lifecycle.due()));
        let is_announcing = lifecycle.is_announcing();
        if check_due.is_none() {
            self.check = None;
        }
        tokio::select! {
            biased;
            signal = self.signals.next() => self.handle_signal(signal),
            event = next_process_event(self.supervisor.as_mut()) => {
                Some(self.service.process_changed(event))
            }
            () = self.announcer.sent(), if is_announcing => Some(LifecycleEvent::Sent),
            result = poll_optional(&mut self.check) => {
                self.check = None;
                Some(self.service.check_ended(result))
            }
            Some(next) = self.new_settings.recv(), if self.change.is_none() => {
                self.change = Some(Box::pin(change(self.announcer, next)));
                None
            }
            result = poll_optional(&mut self.change) => {
                self.change = None;
                self.change_settings(result)
            }
            () = sleep_until_optional(check_due), if self.check.is_none() => {
                let local = self.service.settings.config.check.clone();
                self.check = local.map(|local| -> BoxedFuture<'static, _> { Box::pin(check(local)) });
                None
            }
            () = sleep_until_optional(due) => Some(LifecycleEvent::Elapsed),
        }
    }

    /// Does what the lifecycle has decided.
    fn act(&mut self, action: Action) -> ControlFlow<u8> {
        match action {
            Action::Announce(state) => {
                self.announcer.announce(state);
                self.service.log(state);
            }
            Action::Stop => {
                if let (Some(supervisor), Some(signal)) = (&self.supervisor, self.service.end) {
                    let name = signal_name(signal.as_raw());
                    info!(signal = %name, "stopping the process");
                    supervisor.send(signal);
                }
            }
            Action::Kill => {
                warn!("killing the process");
                self.supervisor.iter().for_each(Supervisor::kill);
            }
            Action::Leave => return ControlFlow::Break(self.service.exit_code),
        }
        ControlFlow::Continue(())
    }

    fn handle_signal(&mut self, signal: Signal) -> Option<LifecycleEvent> {
        if AgentSignals::is_end(signal) {
            self.service.end(signal);
            return Some(LifecycleEvent::Drain);
        }
        if let Some(file) = self.file.filter(|_| signal == Signal::HUP) {
            file.read_again();
            return None;
        }
        match &self.supervisor {
            Some(supervisor) => supervisor.send(signal),
            None => {
                debug!(signal = %signal_name(signal.as_raw()), "signal ignored: there is no process to pass it on to");
            }
        }
        None
    }

    /// Continues with other settings, if the announcer has taken them over.
    fn change_settings(&mut self, (settings, taken): ChangeResult) -> Option<LifecycleEvent> {
        if let Err(error) = taken {
            warn!(
                error,
                "the new configuration was rejected; keeping the previous one"
            );
            return None;
        }
        let before = std::mem::replace(&mut self.service.settings, settings);
        let config = &self.service.settings.config;
        if before.config.check != config.check {
            self.check = None;
            self.service.failure = None;
        }
        if let Some(supervisor) = &mut self.supervisor {
            supervisor.set_once(config.once);
        }
        if let Some(file) = self.file {
            file.applied(config, &before.config);
        }
        let rules = self.service.settings.lifecycle_rules();
        Some(LifecycleEvent::RulesChanged(rules))
    }
}

impl Service {
    /// Notes a signal that asks the agent to end.
    fn end(&mut self, signal: Signal) {
        let name = signal_name(signal.as_raw());
        info!(signal = %name, again = self.end.is_some(), "asked to end");
        if self.end.is_some() {
            self.exit_code = CUT_SHORT;
        }
        self.end.get_or_insert(signal);
    }

    fn process_changed(&mut self, event: ProcessEvent) -> LifecycleEvent {
        match event {
            ProcessEvent::Started => LifecycleEvent::Started,
            ProcessEvent::Ended(exit) => {
                self.failure = None;
                if self.settings.config.once {
                    self.exit_code = exit.code();
                }
                LifecycleEvent::Exited
            }
        }
    }

    fn check_ended(&mut self, result: CheckResult) -> LifecycleEvent {
        let state = self.lifecycle.state();
        let is_local = matches!(&result, Err(failed) if failed.is_local());
        if is_local && self.failure.is_none() && state != ServiceState::Starting {
            debug!("the check has no result: we lack descriptors or ports");
            return LifecycleEvent::Checked(true);
        }
        if let Err(failed) = &result {
            let first = self.failure.is_none();
            match state {
                // Logged once: it may never become ready.
                ServiceState::Starting if first => info!("not ready yet: check failed: {failed}"),
                _ => debug!("check failed: {failed}"),
            }
        }
        let passed = result.is_ok();
        self.failure = result.err();
        LifecycleEvent::Checked(passed)
    }

    fn log(&self, state: ServiceState) {
        let state = state.as_str();
        match &self.failure {
            Some(failed) if self.lifecycle.state() == ServiceState::Failing => {
                warn!(state, "announced; check failed: {failed}");
            }
            _ => info!(state, "announced"),
        }
    }
}

/// Runs one check, after a look-up that may take as long again. A name that does not resolve has no address, so the
/// check fails.
async fn check(LocalCheck { target, check }: LocalCheck) -> CheckResult {
    let addresses: Vec<SocketAddress> = match target {
        BackendAddress::Ip(address) => vec![address.into()],
        BackendAddress::Unix(address) => vec![SocketAddress::Unix(address)],
        name @ BackendAddress::Name { .. } => {
            let mut found = resolve_all(std::iter::once(name.clone()), check.timeout).await;
            let found = found.remove(&name).unwrap_or_default();
            found.iter().copied().map(SocketAddress::Ip).collect()
        }
    };
    probe(&check, &addresses, "").await
}

/// Has the announcer take over other settings.
async fn change(announcer: &impl Announcer, settings: AgentSettings) -> ChangeResult {
    let changed = announcer.change(settings.config.clone()).await;
    (settings, changed)
}

async fn next_process_event(supervisor: Option<&mut Supervisor>) -> ProcessEvent {
    match supervisor {
        Some(supervisor) => supervisor.next().await,
        None => std::future::pending().await,
    }
}

/// The output of a future, if there is one; otherwise pending for ever. Cancel-safe.
async fn poll_optional<F: Future + Unpin>(running: &mut Option<F>) -> F::Output {
    match running {
        Some(running) => running.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until_optional(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
