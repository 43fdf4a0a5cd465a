//! Asks the system's resolver, which blocks, on threads of its own.
//!
//! There are at most `THREADS` of them, whatever hangs: no page of the admin server, no reload and no end of the process
//! waits for a name server. A name is looked up once at a time: who asks for it meanwhile waits for the same answer. A
//! look-up is given up after the time that the resolver itself may take, as `/etc/resolv.conf` has it: with one silent
//! server of two the answer comes after the first one's `timeout`, and giving up just then would never let it come.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::files;

/// Look-ups at a time.
const THREADS: usize = 16;
/// Least and most that a look-up is given.
const LEAST: Duration = Duration::from_secs(5);
const MOST: Duration = Duration::from_secs(60);
/// For what the resolver does beside waiting.
const MARGIN: Duration = Duration::from_secs(1);
/// How long what `/etc/resolv.conf` said is believed.
const BELIEVED: Duration = Duration::from_secs(10);
const RESOLV_CONF: &str = "/etc/resolv.conf";
const LARGEST_CONF: usize = 64 << 10;

/// All addresses of a host, with this port, in the resolver's order.
///
/// # Errors
/// What the resolver said, or that it took too long.
pub async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    static POOL: LazyLock<Arc<Pool>> =
        LazyLock::new(|| Pool::new(|host| Ok((host, 0).to_socket_addrs()?.collect())));
    let patience = patience().await;
    let mut addresses = POOL.look_up(host, patience).await?;
    for address in &mut addresses {
        address.set_port(port);
    }
    Ok(addresses)
}

type Found = Result<Arc<[SocketAddr]>, Failure>;

/// As an error that several can have.
#[derive(Debug, Clone)]
struct Failure(io::ErrorKind, Arc<str>);

#[derive(Debug, Clone)]
enum Progress {
    Waiting,
    Since(Instant),
    Done(Found),
}

/// The resolver.
type Ask = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

struct Pool {
    ask: Box<Ask>,
    work: Mutex<Work>,
}

#[derive(Default)]
struct Work {
    threads: usize,
    queue: VecDeque<Arc<str>>,
    /// Those in the queue and those under way.
    wanted: HashMap<Arc<str>, watch::Sender<Progress>>,
}

impl Pool {
    fn new(ask: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            ask: Box::new(ask),
            work: Mutex::default(),
        })
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_up(
        self: &Arc<Self>,
        host: &str,
        patience: Duration,
    ) -> io::Result<Vec<SocketAddr>> {
        let mut progress = self.join(host)?;
        loop {
            let since = match &*progress.borrow_and_update() {
                Progress::Waiting => None,
                Progress::Since(since) => Some(*since),
                Progress::Done(Ok(found)) => return Ok(found.to_vec()),
                Progress::Done(Err(Failure(kind, said))) => {
                    return Err(io::Error::new(*kind, said.to_string()));
                }
            };
            let until = since.unwrap_or_else(Instant::now) + patience;
            tokio::select! {
                biased;
                changed = progress.changed() => {
                    changed.map_err(|_| io::Error::other("the look-up failed"))?;
                }
                () = sleep_until(until), if since.is_some() => {
                    let said = format!("no answer within {} s", patience.as_secs());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, said));
                }
            }
        }
    }

    /// The look-up of this name that waits or is under way, begun if there is none.
    fn join(self: &Arc<Self>, host: &str) -> io::Result<watch::Receiver<Progress>> {
        let mut work = self.work();
        if let Some(known) = work.wanted.get(host) {
            return Ok(known.subscribe());
        }
        if work.threads < THREADS {
            let pool = Arc::clone(self);
            let thread = std::thread::Builder::new().name("names".to_owned());
            match thread.spawn(move || while pool.next() {}) {
                Ok(_) => work.threads += 1,
                Err(error) if work.threads == 0 => return Err(error),
                // Those that there are will come to it.
                Err(_) => {}
            }
        }
        let name: Arc<str> = host.into();
        let (sender, progress) = watch::channel(Progress::Waiting);
        work.queue.push_back(Arc::clone(&name));
        work.wanted.insert(name, sender);
        Ok(progress)
    }

    /// Looks one name up; false if there is none, and then the thread must end.
    fn next(&self) -> bool {
        let mut work = self.work();
        let Some(name) = work.queue.pop_front() else {
            work.threads -= 1;
            return false;
        };
        let is_wanted = work.wanted.get(&name).is_some_and(|sender| {
            sender.send_replace(Progress::Since(Instant::now()));
            sender.receiver_count() > 0
        });
        if !is_wanted {
            work.wanted.remove(&name);
            return true;
        }
        drop(work);
        let found = (self.ask)(&name);
        let found = found
            .map(Into::into)
            .map_err(|error| Failure(error.kind(), error.to_string().into()));
        if let Some(sender) = self.work().wanted.remove(&name) {
            sender.send_replace(Progress::Done(found));
        }
        true
    }
}

/// How long a look-up may take, as the resolver's own configuration has it.
async fn patience() -> Duration {
    static KNOWN: Mutex<Option<(Instant, Duration)>> = Mutex::new(None);
    let known = *KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((when, patience)) = known
        && when.elapsed() < BELIEVED
    {
        return patience;
    }
    let text = files::read_async(Path::new(RESOLV_CONF), LARGEST_CONF).await;
    let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
    let environment = std::env::var("RES_OPTIONS").unwrap_or_default();
    let patience = patience_of(&text, &environment);
    *KNOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), patience));
    patience
}

/// `timeout` × `attempts` × name servers of this text (resolv.conf(5)), and of `RES_OPTIONS`, within bounds.
fn patience_of(text: &str, environment: &str) -> Duration {
    /// What the resolver itself takes of each (`MAXNS`, `RES_MAXRETRANS`, `RES_MAXRETRY` of its resolv.h).
    const SERVERS: u64 = 3;
    const TIMEOUT: (u64, u64) = (5, 30);
    const ATTEMPTS: (u64, u64) = (2, 5);
    let (mut servers, mut timeout, mut attempts) = (0, TIMEOUT.0, ATTEMPTS.0);
    let mut take = |option: &str| match option.split_once(':') {
        Some(("timeout", value)) => timeout = value.parse().unwrap_or(timeout).min(TIMEOUT.1),
        Some(("attempts", value)) => attempts = value.parse().unwrap_or(attempts).min(ATTEMPTS.1),
        _ => {}
    };
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => servers += 1,
            Some("options") => words.for_each(&mut take),
            _ => {}
        }
    }
    environment.split_ascii_whitespace().for_each(&mut take);
    let seconds = timeout * attempts * servers.clamp(1, SERVERS);
    Duration::from_secs(seconds).clamp(LEAST, MOST) + MARGIN
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_look_up_is_given_what_the_resolver_may_take() {
        for (text, environment, seconds) in [
            ("", "", 11),
            ("nameserver 10.0.0.1\n", "", 11),
            ("nameserver 10.0.0.1\nnameserver 10.0.0.2\n", "", 21),
            (
                "nameserver a\nnameserver b\nnameserver c\nnameserver d\n",
                "",
                31,
            ),
            ("nameserver a\noptions timeout:1 rotate attempts:1", "", 6),
            (
                "nameserver a\nnameserver b\noptions timeout:30 attempts:5",
                "",
                61,
            ),
            ("nameserver a\noptions timeout:99999999999999999999", "", 11),
            ("options timeout:99 attempts:99 timeout:x attempts:", "", 61),
            ("# options timeout:30\n; nameserver x\n", "", 11),
            ("nameserver a\noptions timeout:2", "attempts:4", 9),
        ] {
            let patience = patience_of(text, environment);
            assert_eq!(
                patience,
                Duration::from_secs(seconds),
                "{text:?} {environment:?}"
            );
        }
    }

    /// A pool whose look-ups hang until its sender goes, and how many did begin. Names that start with `good` do not hang.
    fn hanging() -> (Arc<Pool>, mpsc::Sender<()>, Arc<AtomicUsize>) {
        let (release, hold) = mpsc::channel::<()>();
        let hold = Mutex::new(hold);
        let begun = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&begun);
        let pool = Pool::new(move |host| {
            counted.fetch_add(1, Ordering::SeqCst);
            if !host.starts_with("good") {
                let _ = hold.lock().unwrap().recv();
            }
            Ok(vec!["192.0.2.1:0".parse().unwrap()])
        });
        (pool, release, begun)
    }

    #[tokio::test(start_paused = true)]
    async fn names_that_hang_take_so_many_threads_and_no_more() {
        let (pool, release, begun) = hanging();
        let asked: Vec<_> = (0..200)
            .map(|i| {
                let pool = Arc::clone(&pool);
                tokio::spawn(async move { pool.look_up(&format!("dead{i}"), PATIENCE).await })
            })
            .collect();
        while begun.load(Ordering::SeqCst) < THREADS {
            tokio::task::yield_now().await;
        }
        // The first ones are given up, and asked for again without a second look-up.
        let error = pool.look_up("dead0", PATIENCE).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = pool.look_up("dead0", PATIENCE).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.load(Ordering::SeqCst), THREADS);
        assert_eq!(pool.work().threads, THREADS);
        // What nobody waits for any more is not looked up.
        asked.iter().skip(THREADS).for_each(|task| task.abort());
        for task in asked {
            let _ = task.await;
        }
        drop(release);
        let found = pool.look_up("good", PATIENCE).await.unwrap();
        assert_eq!(found, ["192.0.2.1:0".parse().unwrap()]);
        while pool.work().threads > 0 {
            std::thread::yield_now();
        }
        assert_eq!(begun.load(Ordering::SeqCst), THREADS + 1);
        assert!(pool.work().wanted.is_empty());
    }

    #[tokio::test]
    async fn all_who_ask_for_a_name_get_its_one_answer() {
        let (pool, release, begun) = hanging();
        let ask = |pool: &Arc<Pool>| {
            let pool = Arc::clone(pool);
            tokio::spawn(async move { pool.look_up("slow", PATIENCE).await })
        };
        let asked: Vec<_> = (0..50).map(|_| ask(&pool)).collect();
        while begun.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // One does not wait behind the other.
        pool.look_up("good", PATIENCE).await.unwrap();
        drop(release);
        for task in asked {
            assert!(task.await.unwrap().is_ok());
        }
        assert_eq!(begun.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn the_real_resolver_answers_with_the_port_and_its_own_words() {
        let found = look_up("localhost", 81).await.unwrap();
        assert!(
            found.iter().all(|a| a.ip().is_loopback() && a.port() == 81),
            "{found:?}"
        );
        assert!(look_up("no-such-host.invalid", 81).await.is_err());
    }
}
