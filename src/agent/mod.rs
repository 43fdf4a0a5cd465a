//! `lbproxy agent`: runs beside a service and announces it to the peer set.
//!
//! [`run`] puts the parts together in an [`event_loop`]. [`lifecycle`] decides what is announced and when;
//! [`supervise`] runs the service if the agent was given a command; [`signals`] receives signals; [`settings_file`]
//! follows the file of the settings; the check is the proxy's own probe ([`crate::health::probe`]). An [`Announcer`]
//! announces the service: outside of tests as a member of the peer set ([`announcer`]). Everything but that member
//! lives on the thread that calls [`run`], in a runtime of its own.
//!
//! The result of a check is announced, not acted on: a failing service is not restarted, since a wrong check must not
//! end a service that works.

pub(crate) mod announcer;
mod event_loop;
pub(crate) mod lifecycle;
pub(crate) mod settings;
pub(crate) mod settings_file;
pub(crate) mod signals;
mod spawn;
pub(crate) mod supervise;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::Future;
use std::io;

use thiserror::Error;
use tokio::sync::mpsc;
use tracing::info;

use crate::config::schema::AgentConfig;
use crate::gossip::record::ServiceState;
use event_loop::EventLoop;
use settings::AgentSettings;
use settings_file::SettingsFile;
use signals::AgentSignals;

/// How a service's state reaches the peer set.
pub(crate) trait Announcer {
    /// Announces a state from now on; returns at once.
    fn announce(&self, state: ServiceState);

    /// Resolves when the newest announcement was sent to a peer at least once, or at once if there is none. It may be
    /// dropped and called again; nobody waits for it longer than [`lifecycle::ANNOUNCE_WITHIN`].
    fn sent(&self) -> impl Future<Output = ()>;

    /// Continues with another configuration: what is announced, with which keys, to whom. The state stays the one that
    /// was announced last.
    ///
    /// Errors: why this is impossible; nothing has changed then.
    fn change(&self, config: AgentConfig) -> impl Future<Output = Result<(), String>>;

    /// Does whatever else there is to do; dropped before [`Self::leave`].
    fn run(&self) -> impl Future<Output = Infallible> {
        std::future::pending()
    }

    /// Announces [`ServiceState::Left`] and leaves the peer set. Resolves when that was sent, or cannot be, within a
    /// bound of its own.
    fn leave(self) -> impl Future<Output = ()>;
}

/// Why an agent cannot run.
#[derive(Debug, Error)]
pub(crate) enum AgentError {
    /// There is no runtime.
    #[error("cannot start the agent: {0}")]
    Runtime(io::Error),
    /// Signals cannot be received.
    #[error("cannot follow signals: {0}")]
    Signals(io::Error),
}

/// Runs an agent until it is asked to end, and returns its exit code: with `once` that of the process; otherwise 0
/// after a drain, and 1 after one that was cut short. The calling thread must live as long as the program, since the
/// kernel ends the process together with the thread that started it.
///
/// # Errors
/// Nothing was started.
pub(crate) fn run(
    settings: AgentSettings,
    file: Option<SettingsFile>,
    announcer: impl Announcer,
) -> Result<u8, AgentError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AgentError::Runtime)?;
    let code = runtime.block_on(async {
        let signals = AgentSignals::listen().map_err(AgentError::Signals)?;
        serve(settings, file, announcer, signals).await
    });
    // A name look-up may still hang in the system's resolver.
    runtime.shutdown_background();
    code
}

/// As [`run`], within a current-thread runtime and with signals of the caller's choice.
///
/// # Errors
/// Nothing was started.
pub(crate) async fn serve(
    settings: AgentSettings,
    file: Option<SettingsFile>,
    announcer: impl Announcer,
    signals: AgentSignals,
) -> Result<u8, AgentError> {
    let (sender, new_settings) = mpsc::channel(1);
    let follow = async {
        match &file {
            Some(file) => file.follow(sender).await,
            None => std::future::pending().await,
        }
    };
    let events = EventLoop::start(settings, file.as_ref(), new_settings, &announcer, signals)?;
    let code = tokio::select! {
        code = events.run() => code,
        never = announcer.run() => match never {},
        never = follow => match never {},
    };
    announcer.leave().await;
    info!("left");
    Ok(code)
}
