//! `lbproxy agent`: stands beside a service and speaks for it in the peer set.
//!
//! [`run`] puts the parts together: [`life`] decides what is announced and when; [`supervise`] runs the service if the
//! agent was given one; [`signals`] hears orders; [`source`] follows the file of the settings; the check is the proxy's own probe ([`crate::health::probe`]). How
//! an announcement reaches others is behind [`Announcer`]: by a member of the peer set ([`announcer`]). All of it but
//! that member lives on the thread that calls [`run`], in a runtime of its own.
//!
//! What a check says is announced, not acted upon: a failing service is not restarted, since a check that is wrong
//! must not end what works.

pub(crate) mod announcer;
pub(crate) mod life;
pub(crate) mod settings;
pub(crate) mod signals;
pub(crate) mod source;
mod spawn;
pub(crate) mod supervise;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use crate::config::schema::{AgentConfig, LocalCheck};
use crate::discovery::dns::resolve_all;
use crate::gossip::Time;
use crate::gossip::record::ServiceState;
use crate::health::probe::{Failed, Passed, probe};
use crate::model::address::{BackendAddress, SocketAddress};
use crate::model::signal::signal_name;
use life::{Act, Event, Life};
use rustix::process::Signal;
use settings::Settings;
use signals::Signals;
use source::Source;
use supervise::{Change, Supervisor};

/// Exit code after a second order to end.
const CUT_SHORT: u8 = 1;

/// How a service's state reaches the peer set.
pub(crate) trait Announcer {
    /// Announces the state from now on; returns at once.
    fn announce(&self, state: ServiceState);

    /// Resolves when the newest announcement has been sent to a peer at least once, or at once if there is none.
    /// May be dropped and asked for again; nothing waits for it longer than [`life::MOST_TELLING`].
    fn sent(&self) -> impl Future<Output = ()>;

    /// Goes on as another configuration has it: what is announced, by which keys, among whom. The state stays the one
    /// that was announced last.
    ///
    /// Errors: why it cannot be; nothing has changed then.
    fn change(&self, config: AgentConfig) -> impl Future<Output = Result<(), String>>;

    /// What it has to do beside all of that; dropped before it leaves.
    fn tend(&self) -> impl Future<Output = Infallible> {
        std::future::pending()
    }

    /// Announces [`ServiceState::Left`] and leaves the peer set; resolves when that is told, or cannot be, within a
    /// bound of its own.
    fn leave(self) -> impl Future<Output = ()>;
}

/// Why an agent cannot run.
#[derive(Debug, Error)]
pub(crate) enum AgentError {
    /// No runtime.
    #[error("cannot start the agent: {0}")]
    Runtime(io::Error),
    /// Signals cannot be heard.
    #[error("cannot follow signals: {0}")]
    Signals(io::Error),
}

/// Runs an agent until it is told to end, and returns its exit code: with `once` that of the process, else 0 after a
/// drain and 1 after one that was cut short. The calling thread must live as long as the program: the kernel ends the
/// process with the thread that started it.
///
/// # Errors
/// Nothing was started.
pub(crate) fn run(
    settings: Settings,
    source: Option<Source>,
    announcer: impl Announcer,
) -> Result<u8, AgentError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AgentError::Runtime)?;
    let code = runtime.block_on(async {
        let signals = Signals::listen().map_err(AgentError::Signals)?;
        serve(settings, source, announcer, signals).await
    });
    // A look-up of a name may still hang in the system's resolver.
    runtime.shutdown_background();
    code
}

/// [`run`] within a current-thread runtime, with the signals of the caller's choice.
///
/// # Errors
/// Nothing was started.
pub(crate) async fn serve(
    settings: Settings,
    source: Option<Source>,
    announcer: impl Announcer,
    signals: Signals,
) -> Result<u8, AgentError> {
    let (tell, told) = mpsc::channel(1);
    let follow = async {
        match &source {
            Some(source) => source.follow(tell).await,
            None => std::future::pending().await,
        }
    };
    let orders = Orders {
        signals,
        source: source.as_ref(),
        told,
    };
    let code = tokio::select! {
        code = live(settings, orders, &announcer) => code?,
        never = announcer.tend() => match never {},
        never = follow => match never {},
    };
    announcer.leave().await;
    info!("left");
    Ok(code)
}

/// What comes to an agent from outside.
struct Orders<'a> {
    signals: Signals,
    source: Option<&'a Source>,
    /// What the source holds.
    told: mpsc::Receiver<Settings>,
}

/// Until it is time to leave.
async fn live(
    settings: Settings,
    mut orders: Orders<'_>,
    announcer: &impl Announcer,
) -> Result<u8, AgentError> {
    let began = Instant::now();
    let mut supervisor = match &settings.command[..] {
        [] => None,
        command => Some(
            Supervisor::new(command.to_vec(), settings.config.once).map_err(AgentError::Signals)?,
        ),
    };
    let mut changing = None;
    let mut service = Service {
        life: Life::new(settings.rules(), Time::ZERO),
        settings,
        probing: None,
        failure: None,
        end: None,
        code: 0,
    };
    announcer.announce(service.life.state());
    let AgentConfig {
        cluster, backend, ..
    } = &service.settings.config;
    info!(cluster, %backend, state = service.life.state().as_str(), "announced");
    loop {
        let at = |time: Option<Time>| time.map(|time| began + time);
        let (check_due, due) = (at(service.life.check_due()), at(service.life.due()));
        if check_due.is_none() {
            service.probing = None;
        }
        let event = tokio::select! {
            biased;
            signal = orders.signals.next() => service.heard(signal, supervisor.as_ref(), orders.source),
            change = next(supervisor.as_mut()) => Some(service.changed(change)),
            () = announcer.sent(), if service.life.is_telling() => Some(Event::Sent),
            result = done(&mut service.probing) => Some(service.checked(result)),
            Some(next) = orders.told.recv(), if changing.is_none() => {
                changing = Some(Box::pin(change(announcer, next)));
                None
            }
            result = done(&mut changing) => {
                changing = None;
                service.change(result, supervisor.as_mut(), orders.source)
            }
            () = until(check_due), if service.probing.is_none() => service.begin_check(),
            () = until(due) => Some(Event::Elapsed),
        };
        let Some(act) = event.and_then(|event| service.life.on(event, began.elapsed())) else {
            continue;
        };
        match act {
            Act::Announce(state) => {
                announcer.announce(state);
                service.log(state);
            }
            Act::Stop => {
                if let (Some(supervisor), Some(signal)) = (&supervisor, service.end) {
                    let name = signal_name(signal.as_raw());
                    info!(signal = %name, "stopping the process");
                    supervisor.send(signal);
                }
            }
            Act::Kill => {
                warn!("killing the process");
                supervisor.iter().for_each(Supervisor::kill);
            }
            Act::Leave => return Ok(service.code),
        }
    }
}

type Probed = Result<Passed, Failed>;
type Probing = Pin<Box<dyn Future<Output = Probed>>>;

/// The service, as far as it is known.
struct Service {
    life: Life,
    settings: Settings,
    probing: Option<Probing>,
    /// Of the last check.
    failure: Option<Failed>,
    /// The first order to end, which is passed on to the process.
    end: Option<Signal>,
    code: u8,
}

impl Service {
    fn heard(
        &mut self,
        signal: Signal,
        supervisor: Option<&Supervisor>,
        source: Option<&Source>,
    ) -> Option<Event> {
        if Signals::is_end(signal) {
            let name = signal_name(signal.as_raw());
            info!(signal = %name, again = self.end.is_some(), "told to end");
            if self.end.is_some() {
                self.code = CUT_SHORT;
            }
            self.end.get_or_insert(signal);
            return Some(Event::Drain);
        }
        if let Some(source) = source.filter(|_| signal == Signal::HUP) {
            source.read_again();
            return None;
        }
        match supervisor {
            Some(supervisor) => supervisor.send(signal),
            None => {
                debug!(signal = %signal_name(signal.as_raw()), "no process that it could be for")
            }
        }
        None
    }

    /// Other settings, which the announcer has taken to or not.
    fn change(
        &mut self,
        (settings, taken): (Settings, Result<(), String>),
        supervisor: Option<&mut Supervisor>,
        source: Option<&Source>,
    ) -> Option<Event> {
        if let Err(error) = taken {
            warn!(
                error,
                "the configuration is not applied, the one before stays"
            );
            return None;
        }
        let before = std::mem::replace(&mut self.settings, settings);
        let config = &self.settings.config;
        if before.config.check != config.check {
            self.probing = None;
            self.failure = None;
        }
        supervisor
            .into_iter()
            .for_each(|supervisor| supervisor.set_once(config.once));
        source
            .into_iter()
            .for_each(|source| source.applied(config, &before.config));
        Some(Event::Changed(self.settings.rules()))
    }

    fn changed(&mut self, change: Change) -> Event {
        match change {
            Change::Started => Event::Started,
            Change::Ended(exit) => {
                self.failure = None;
                if self.settings.config.once {
                    self.code = exit.code();
                }
                Event::Exited
            }
        }
    }

    fn begin_check(&mut self) -> Option<Event> {
        self.probing = Some(Box::pin(ask(self.settings.config.check.clone()?)));
        None
    }

    fn checked(&mut self, result: Probed) -> Event {
        self.probing = None;
        let is_local = matches!(&result, Err(failed) if failed.is_local());
        if is_local && self.failure.is_none() && self.life.state() != ServiceState::Starting {
            debug!("the check says nothing: we lack descriptors or ports");
            return Event::Checked(true);
        }
        if let Err(failed) = &result {
            let first = self.failure.is_none();
            match self.life.state() {
                // Why it is not ready yet, once: it may never be.
                ServiceState::Starting if first => info!("not ready yet: check failed: {failed}"),
                _ => debug!("check failed: {failed}"),
            }
        }
        let passed = result.is_ok();
        self.failure = result.err();
        Event::Checked(passed)
    }

    fn log(&self, state: ServiceState) {
        let state = state.as_str();
        match &self.failure {
            Some(failed) if self.life.state() == ServiceState::Failing => {
                warn!(state, "announced; check failed: {failed}");
            }
            _ => info!(state, "announced"),
        }
    }
}

/// One check, after a look-up that may take as long again; a name that does not resolve has no address and fails.
async fn ask(LocalCheck { target, check }: LocalCheck) -> Probed {
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

async fn next(supervisor: Option<&mut Supervisor>) -> Change {
    match supervisor {
        Some(supervisor) => supervisor.next().await,
        None => std::future::pending().await,
    }
}

/// What comes of it, if there is anything that something can come of. Cancel-safe.
async fn done<F: Future + Unpin>(running: &mut Option<F>) -> F::Output {
    match running {
        Some(running) => running.await,
        None => std::future::pending().await,
    }
}

/// Has the announcer take to other settings.
async fn change(announcer: &impl Announcer, settings: Settings) -> (Settings, Result<(), String>) {
    let changed = announcer.change(settings.config.clone()).await;
    (settings, changed)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
