//! The signals of the process, handled on a thread of their own, whatever the rest of the process does.
//!
//! SIGTERM, SIGINT and SIGQUIT ask for the end: the first one for a drain, a second one for an immediate end. Signals
//! within [`SAME_REQUEST`] of the first are the same request, since some supervisors signal a process and its group. If
//! the process is still there [`GRACE`] after a second request, this thread ends it. SIGHUP reloads, SIGUSR1 reopens
//! the access log. All other signals that would end the process without a message are ignored, with a log line that
//! says which signals there are.

use std::io;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use crate::control::ControlHandle;
use crate::logging::events::print_at_exit;
use crate::model::signal::signal_name;

/// Signals for the end that come so close together are one request.
const SAME_REQUEST: Duration = Duration::from_secs(1);
/// How long the process may take to end after a second request.
const GRACE: Duration = Duration::from_secs(5);

const ENDS: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];

/// Signals that would end the process (signal(7)) without it having done anything wrong.
const IGNORED: [i32; 9] = [
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
    libc::SIGXFSZ,
];

/// How often the end was requested.
#[derive(Debug, Clone)]
pub(super) struct EndRequests(watch::Receiver<u32>);

impl EndRequests {
    /// Waits until the end has been requested so many times.
    pub(super) async fn requested(&mut self, times: u32) {
        if self.0.wait_for(|count| *count >= times).await.is_err() {
            // The thread has failed; the panic is in the log.
            std::future::pending::<()>().await;
        }
    }
}

/// Follows the signals of this process from now on; those that are for control go to `control`.
///
/// # Errors
/// A handler cannot be set, or the thread cannot be started.
pub(super) fn follow(control: ControlHandle) -> io::Result<EndRequests> {
    let (requests, ends) = watch::channel(0);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _inside = runtime.enter();
        listen(&runtime)?
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(handle(signals, &requests, &control)))?;
    Ok(EndRequests(ends))
}

/// Receives all signals by number, one after another.
fn listen(runtime: &tokio::runtime::Runtime) -> io::Result<mpsc::Receiver<i32>> {
    let (heard, signals) = mpsc::channel(64);
    let follow = |number: i32| -> io::Result<()> {
        let mut arrivals = signal(SignalKind::from_raw(number))?;
        let heard = heard.clone();
        runtime.spawn(async move {
            while arrivals.recv().await.is_some() && heard.send(number).await.is_ok() {}
        });
        Ok(())
    };
    for number in ENDS.into_iter().chain([libc::SIGHUP, libc::SIGUSR1]) {
        follow(number)?;
    }
    for number in IGNORED
        .into_iter()
        .chain(libc::SIGRTMIN()..=libc::SIGRTMAX())
    {
        if let Err(error) = follow(number) {
            debug!(signal = %signal_name(number), %error, "a signal keeps its default action");
        }
    }
    Ok(signals)
}

async fn handle(
    mut signals: mpsc::Receiver<i32>,
    requests: &watch::Sender<u32>,
    control: &ControlHandle,
) {
    let mut last: Option<Instant> = None;
    while let Some(number) = signals.recv().await {
        let name = signal_name(number);
        match number {
            // The outcome is in the log.
            libc::SIGHUP => drop(control.reload()),
            libc::SIGUSR1 => control.reopen_logs(),
            number if ENDS.contains(&number) => {
                let now = Instant::now();
                if is_same_request(last, now) {
                    debug!(signal = %name, "the same request again");
                    continue;
                }
                last = Some(now);
                requests.send_modify(|count| *count += 1);
                info!(signal = %name, again = *requests.borrow() > 1, "asked to stop");
                if *requests.borrow() == 2 {
                    end_after_grace();
                }
            }
            _ => warn!(
                signal = %name,
                "ignored: SIGTERM, SIGINT and SIGQUIT drain and end, SIGHUP reloads, SIGUSR1 reopens the access log"
            ),
        }
    }
}

fn is_same_request(last: Option<Instant>, now: Instant) -> bool {
    last.is_some_and(|last| now.saturating_duration_since(last) < SAME_REQUEST)
}

/// Ends the process if it does not end by itself.
fn end_after_grace() {
    tokio::spawn(async {
        tokio::time::sleep(GRACE).await;
        print_at_exit("asked to stop twice, and the shutdown hangs: ended without it");
        std::process::exit(1);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_within_a_second_are_one_request() {
        let now = Instant::now();
        assert!(!is_same_request(None, now));
        assert!(is_same_request(Some(now), now));
        assert!(is_same_request(Some(now), now + Duration::from_millis(999)));
        assert!(!is_same_request(Some(now), now + SAME_REQUEST));
    }
}
