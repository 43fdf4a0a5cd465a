//! The signals of the process, heard on a thread of their own whatever the rest of it does.
//!
//! SIGTERM, SIGINT and SIGQUIT ask for the end: the first one for a drain, a second one for an end at once. Those that
//! come within [`ONE_WISH`] of the first are the same wish, since some supervisors signal a process and its group. If the
//! process is still there [`MERCY`] after a second wish, this thread ends it. SIGHUP reloads, SIGUSR1 reopens the log. All
//! others that would end the process without a word are ignored with a line that says what there is.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tracing::{debug, info, warn};

use crate::control::Signals;
use crate::logging::events::last_words;
use crate::model::signal::signal_name;

/// Signals for the end that come so close together are one wish.
const ONE_WISH: Duration = Duration::from_secs(1);
/// How long the way out may take after a second wish.
const MERCY: Duration = Duration::from_secs(5);

const ENDS: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];

/// Would end the process (signal(7)), and are nothing that the process did wrong.
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

/// How often the end was asked for.
#[derive(Debug, Clone)]
pub(super) struct Ends(watch::Receiver<u32>);

impl Ends {
    /// Waits until the end was asked for so many times.
    pub(super) async fn wished(&mut self, times: u32) {
        if self.0.wait_for(|wishes| *wishes >= times).await.is_err() {
            // The thread has failed; the panic is in the log.
            std::future::pending::<()>().await;
        }
    }
}

/// Follows the signals of this process from now on.
///
/// # Errors
/// A handler cannot be set, or there is no thread.
pub(super) fn follow() -> io::Result<(Ends, Signals)> {
    let signals = Signals {
        reload: Arc::default(),
        file_event: Arc::default(),
        reopen: Arc::default(),
    };
    let (wishes, ends) = watch::channel(0);
    let (reload, reopen) = (Arc::clone(&signals.reload), Arc::clone(&signals.reopen));
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let heard = {
        let _inside = runtime.enter();
        listen(&runtime)?
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(obey(heard, &wishes, &reload, &reopen)))?;
    Ok((Ends(ends), signals))
}

/// All of them, by number, one after another.
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
            debug!(signal = %signal_name(number), %error, "a signal keeps its meaning");
        }
    }
    Ok(signals)
}

async fn obey(
    mut signals: mpsc::Receiver<i32>,
    wishes: &watch::Sender<u32>,
    reload: &Notify,
    reopen: &Notify,
) {
    let mut last: Option<Instant> = None;
    while let Some(number) = signals.recv().await {
        let name = signal_name(number);
        match number {
            libc::SIGHUP => reload.notify_one(),
            libc::SIGUSR1 => reopen.notify_one(),
            number if ENDS.contains(&number) => {
                let now = Instant::now();
                if is_same_wish(last, now) {
                    debug!(signal = %name, "the same wish once more");
                    continue;
                }
                last = Some(now);
                wishes.send_modify(|wishes| *wishes += 1);
                info!(signal = %name, again = *wishes.borrow() > 1, "told to end");
                if *wishes.borrow() == 2 {
                    end_after_mercy();
                }
            }
            _ => warn!(
                signal = %name,
                "ignored: SIGTERM, SIGINT and SIGQUIT drain and end, SIGHUP reloads, SIGUSR1 reopens the access log"
            ),
        }
    }
}

fn is_same_wish(last: Option<Instant>, now: Instant) -> bool {
    last.is_some_and(|last| now.saturating_duration_since(last) < ONE_WISH)
}

/// Ends the process if it does not end by itself.
fn end_after_mercy() {
    tokio::spawn(async {
        tokio::time::sleep(MERCY).await;
        last_words("told to stop twice, and the way out hangs: ended without it");
        std::process::exit(1);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_within_a_second_is_one_wish() {
        let now = Instant::now();
        assert!(!is_same_wish(None, now));
        assert!(is_same_wish(Some(now), now));
        assert!(is_same_wish(Some(now), now + Duration::from_millis(999)));
        assert!(!is_same_wish(Some(now), now + ONE_WISH));
    }
}
