//! Asks the system's resolver, which blocks, on threads of its own.
//!
//! There are at most `THREADS` of them, whatever hangs: no page of the admin server, no reload and no end of the process
//! waits for a name server. A name is looked up once at a time: who asks for it meanwhile waits for the same answer. A
//! look-up is given up after the time that the resolver itself may take, as `/etc/resolv.conf` has it: with one silent
//! server of two the answer comes after the first one's `timeout`, and giving up just then would never let it come.
//!
//! Dead names do not hold up others: a name whose last look-up took long stands in a line of its own, which never has all
//! of the threads, and of the others only those that began a moment ago count as busy. Who waits in line is given up too.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::files;

/// Threads, each with one look-up.
const THREADS: usize = 64;
/// Of these, the ones that slow names leave to others.
const KEPT: usize = 16;
/// Look-ups of either line that count as busy, at a time.
const AT_A_TIME: usize = 16;
/// A look-up that takes so long makes its name a slow one. It counts as busy for `BUSY` while its name was not, else
/// until it must be lost.
const SLOW: Duration = LEAST;
const BUSY: Duration = Duration::from_secs(1);
const LOST: Duration = MOST;
/// How long a name waits in line, and how often it looks whether its time has come.
const LONGEST_WAIT: Duration = MOST;
const LOOK: Duration = Duration::from_millis(250);
/// Slow names that are known; with more of them all count as others again.
const MOST_SLOW: usize = 10_000;
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
pub(crate) async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    static POOL: LazyLock<Arc<Pool>> =
        LazyLock::new(|| Pool::new(|host| Ok((host, 0).to_socket_addrs()?.collect())));
    let patience = patience(host).await;
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
    /// In line: slow names, and others.
    slow_line: VecDeque<Arc<str>>,
    line: VecDeque<Arc<str>>,
    /// One for each thread.
    under_way: Vec<UnderWay>,
    /// Those in line and those under way.
    wanted: HashMap<Arc<str>, watch::Sender<Progress>>,
    /// Names whose last look-up took long.
    slow: HashSet<Arc<str>>,
}

struct UnderWay {
    name: Arc<str>,
    since: Instant,
    /// Whether the name was slow when it began.
    slow: bool,
    given_up: bool,
}

impl Work {
    fn may_begin(&self, slow: bool, now: Instant) -> bool {
        let (most, counts) = match slow {
            true => (THREADS - KEPT, LOST),
            false => (THREADS, BUSY),
        };
        let busy = self.under_way.iter().filter(|look_up| {
            look_up.slow == slow && now.saturating_duration_since(look_up.since) < counts
        });
        self.under_way.len() < most && busy.count() < AT_A_TIME
    }

    /// The next name in line whose time has come; it is under way then.
    fn begin(&mut self) -> Option<Arc<str>> {
        let now = Instant::now();
        for slow in [false, true] {
            while self.may_begin(slow, now) {
                let line = match slow {
                    true => &mut self.slow_line,
                    false => &mut self.line,
                };
                let Some(name) = line.pop_front() else { break };
                match self.wanted.get(&name) {
                    Some(sender) if sender.receiver_count() > 0 => {
                        sender.send_replace(Progress::Since(now));
                        self.under_way.push(UnderWay {
                            name: Arc::clone(&name),
                            since: now,
                            slow,
                            given_up: false,
                        });
                        return Some(name);
                    }
                    // Nobody waits for it any more.
                    _ => drop(self.wanted.remove(&name)),
                }
            }
        }
        None
    }

    fn wait_in_line(&mut self, name: Arc<str>) {
        match self.slow.contains(&name) {
            true => self.slow_line.push_back(name),
            false => self.line.push_back(name),
        }
    }

    fn set_slow(&mut self, name: &Arc<str>, slow: bool) {
        if !slow {
            self.slow.remove(name);
            return;
        }
        if self.slow.len() >= MOST_SLOW {
            self.slow.clear();
        }
        self.slow.insert(Arc::clone(name));
    }

    /// Somebody has waited for this look-up for as long as it may take.
    fn give_up(&mut self, host: &str) {
        let mut under_way = self.under_way.iter_mut();
        let Some(look_up) = under_way.find(|look_up| *look_up.name == *host) else {
            return;
        };
        look_up.given_up = true;
        let name = Arc::clone(&look_up.name);
        self.set_slow(&name, true);
    }

    /// The look-up of `name` has ended.
    fn end(&mut self, name: &Arc<str>, found: Found) {
        let place = self.under_way.iter().position(|one| one.name == *name);
        if let Some(place) = place {
            let look_up = self.under_way.swap_remove(place);
            let slow = look_up.given_up || look_up.since.elapsed() >= SLOW;
            self.set_slow(name, slow);
        }
        if let Some(sender) = self.wanted.remove(name) {
            sender.send_replace(Progress::Done(found));
        }
    }
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
        let asked = Instant::now();
        loop {
            let since = match &*progress.borrow_and_update() {
                Progress::Waiting => None,
                Progress::Since(since) => Some(*since),
                Progress::Done(Ok(found)) => return Ok(found.to_vec()),
                Progress::Done(Err(Failure(kind, said))) => {
                    return Err(io::Error::new(*kind, said.to_string()));
                }
            };
            let until = since.map_or(asked + LONGEST_WAIT, |since| since + patience);
            tokio::select! {
                biased;
                changed = progress.changed() => {
                    changed.map_err(|_| io::Error::other("the look-up failed"))?;
                }
                () = sleep_until(until) => {
                    let said = if since.is_some() {
                        self.work().give_up(host);
                        format!("no answer within {} s", patience.as_secs())
                    } else {
                        format!("other names take so long that this one had no turn within {} s", LONGEST_WAIT.as_secs())
                    };
                    return Err(io::Error::new(io::ErrorKind::TimedOut, said));
                }
                () = sleep(LOOK), if since.is_none() => self.begin_all(&mut self.work())?,
            }
        }
    }

    /// The look-up of this name that waits or is under way, begun if there is none.
    fn join(self: &Arc<Self>, host: &str) -> io::Result<watch::Receiver<Progress>> {
        let mut work = self.work();
        if let Some(known) = work.wanted.get(host) {
            return Ok(known.subscribe());
        }
        let name: Arc<str> = host.into();
        let (sender, progress) = watch::channel(Progress::Waiting);
        work.wanted.insert(Arc::clone(&name), sender);
        work.wait_in_line(name);
        self.begin_all(&mut work)?;
        Ok(progress)
    }

    /// A thread for every name in line whose time has come.
    ///
    /// # Errors
    /// There is no thread at all, and none can be had.
    fn begin_all(self: &Arc<Self>, work: &mut Work) -> io::Result<()> {
        while let Some(name) = work.begin() {
            let (pool, first) = (Arc::clone(self), Arc::clone(&name));
            let thread = std::thread::Builder::new().name("names".to_owned());
            if let Err(error) = thread.spawn(move || pool.run(first)) {
                let failure = Failure(error.kind(), error.to_string().into());
                work.end(&name, Err(failure));
                // Those that there are will come to the others.
                return match work.under_way.is_empty() {
                    true => Err(error),
                    false => Ok(()),
                };
            }
        }
        Ok(())
    }

    /// Looks `name` up, and then others as long as there are some.
    fn run(&self, mut name: Arc<str>) {
        loop {
            let found = (self.ask)(&name)
                .map(Into::into)
                .map_err(|error| Failure(error.kind(), error.to_string().into()));
            let mut work = self.work();
            work.end(&name, found);
            match work.begin() {
                Some(next) => name = next,
                None => return,
            }
        }
    }
}

/// How long a look-up of `host` may take, as the resolver's own configuration has it.
async fn patience(host: &str) -> Duration {
    static KNOWN: Mutex<Option<(Instant, Asking)>> = Mutex::new(None);
    let known = *KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((when, asking)) = known
        && when.elapsed() < BELIEVED
    {
        return asking.patience(host);
    }
    let text = files::read_async(Path::new(RESOLV_CONF), LARGEST_CONF).await;
    let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
    let variable = |name| std::env::var(name).ok();
    let asking = Asking::of(&text, variable("RES_OPTIONS"), variable("LOCALDOMAIN"));
    *KNOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), asking));
    asking.patience(host)
}

/// How the resolver asks (resolv.conf(5)).
#[derive(Debug, Clone, Copy)]
struct Asking {
    /// Seconds that one name may take at all servers.
    seconds: u64,
    /// Domains that a name is tried in.
    domains: u64,
}

impl Asking {
    /// `timeout` × `attempts` × name servers, and the search list, of this text and of `RES_OPTIONS` and `LOCALDOMAIN`.
    fn of(text: &str, options: Option<String>, local_domain: Option<String>) -> Self {
        /// What the resolver itself takes of each (`MAXNS`, `RES_MAXRETRANS`, `RES_MAXRETRY` of its resolv.h).
        const SERVERS: u64 = 3;
        const TIMEOUT: (u64, u64) = (5, 30);
        const ATTEMPTS: (u64, u64) = (2, 5);
        let (mut servers, mut timeout, mut attempts) = (0, TIMEOUT.0, ATTEMPTS.0);
        let mut domains = 0;
        let mut take = |option: &str| match option.split_once(':') {
            Some(("timeout", value)) => timeout = value.parse().unwrap_or(timeout).min(TIMEOUT.1),
            Some(("attempts", value)) => {
                attempts = value.parse().unwrap_or(attempts).min(ATTEMPTS.1);
            }
            _ => {}
        };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => servers += 1,
                Some("options") => words.for_each(&mut take),
                // The last one counts.
                Some("search") => domains = words.count(),
                Some("domain") => domains = words.count().min(1),
                _ => {}
            }
        }
        if let Some(options) = options {
            options.split_ascii_whitespace().for_each(&mut take);
        }
        if let Some(list) = local_domain {
            domains = list.split_ascii_whitespace().count();
        }
        Self {
            seconds: timeout * attempts * servers.clamp(1, SERVERS),
            domains: domains as u64,
        }
    }

    /// For `host`, within bounds. It is tried as it is and in each domain, unless it ends in a dot; `ndots` says which
    /// comes first, and not how many there are.
    fn patience(self, host: &str) -> Duration {
        let names = match host.ends_with('.') {
            true => 1,
            false => self.domains.saturating_add(1),
        };
        let seconds = self.seconds.saturating_mul(names);
        Duration::from_secs(seconds).clamp(LEAST, MOST) + MARGIN
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;
    use std::sync::atomic::{AtomicUsize, Ordering};

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
            // Tried as it is, and in each domain of the last list.
            ("options ndots:5 attempts:1\nsearch a b c", "", 21),
            ("search a b c\ndomain d\noptions attempts:1", "", 11),
            ("search a b c d e f g", "", 61),
        ] {
            let asking = Asking::of(text, Some(environment.to_owned()), None);
            let patience = asking.patience("web.internal");
            assert_eq!(
                patience,
                Duration::from_secs(seconds),
                "{text:?} {environment:?}"
            );
        }
        let asking = Asking::of("search a b c", None, Some("d e".to_owned()));
        assert_eq!(asking.patience("web"), Duration::from_secs(31));
        assert_eq!(asking.patience("web.internal."), Duration::from_secs(11));
    }

    /// What look-ups hang at while it is shut.
    #[derive(Default)]
    struct Gate {
        open: Mutex<bool>,
        turned: Condvar,
        begun: AtomicUsize,
    }

    impl Gate {
        fn pass(&self) {
            self.begun.fetch_add(1, Ordering::SeqCst);
            let open = self.open.lock().unwrap();
            drop(self.turned.wait_while(open, |open| !*open).unwrap());
        }

        fn turn(&self, open: bool) {
            *self.open.lock().unwrap() = open;
            self.turned.notify_all();
        }

        fn begun(&self) -> usize {
            self.begun.load(Ordering::SeqCst)
        }
    }

    /// A pool whose look-ups hang at a gate, but for names that start with `good`.
    fn hanging() -> (Arc<Pool>, Arc<Gate>) {
        let gate = Arc::new(Gate::default());
        let shared = Arc::clone(&gate);
        let pool = Pool::new(move |host| {
            if !host.starts_with("good") {
                shared.pass();
            }
            Ok(vec!["192.0.2.1:0".parse().unwrap()])
        });
        (pool, gate)
    }

    type Asked = tokio::task::JoinHandle<io::Result<Vec<SocketAddr>>>;

    /// Asks for `dead0`, `dead1` and so on.
    fn ask_dead(pool: &Arc<Pool>, names: std::ops::Range<usize>) -> Vec<Asked> {
        let ask = |n| {
            let pool = Arc::clone(pool);
            tokio::spawn(async move { pool.look_up(&format!("dead{n}"), PATIENCE).await })
        };
        names.map(ask).collect()
    }

    async fn yield_until(condition: impl Fn() -> bool) {
        while !condition() {
            tokio::task::yield_now().await;
        }
    }

    /// Whether `name` has an answer before the paused clock goes on.
    async fn is_answered_at_once(pool: &Arc<Pool>, name: &'static str) -> bool {
        let pool = Arc::clone(pool);
        let began = Instant::now();
        let task = tokio::spawn(async move { pool.look_up(name, PATIENCE).await });
        yield_until(|| task.is_finished()).await;
        task.await.unwrap().is_ok() && began.elapsed().is_zero()
    }

    fn is_timeout(result: io::Result<Vec<SocketAddr>>) -> bool {
        result.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
    }

    #[tokio::test(start_paused = true)]
    async fn names_that_hang_take_so_many_threads_and_no_more() {
        let (pool, gate) = hanging();
        let asked = ask_dead(&pool, 0..200);
        yield_until(|| gate.begun() == AT_A_TIME).await;
        // Those that hang make room for some more; all are given up, also those that never had their turn.
        for task in asked {
            assert!(is_timeout(task.await.unwrap()));
        }
        yield_until(|| gate.begun() == THREADS).await;
        assert_eq!(pool.work().under_way.len(), THREADS);
        // One that hangs is not looked up a second time meanwhile.
        assert!(is_timeout(pool.look_up("dead0", PATIENCE).await));
        assert_eq!(gate.begun(), THREADS);
        gate.turn(true);
        yield_until(|| pool.work().under_way.is_empty()).await;
        // What nobody waited for any more was not looked up.
        assert_eq!(gate.begun(), THREADS);
        assert!(pool.work().wanted.is_empty());
        assert!(is_answered_at_once(&pool, "dead199").await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_name_is_not_behind_dead_ones() {
        let (pool, gate) = hanging();
        // As many as may begin at a time hang for good.
        for task in ask_dead(&pool, 0..AT_A_TIME) {
            assert!(is_timeout(task.await.unwrap()));
        }
        assert!(is_answered_at_once(&pool, "good").await);
        // Many that are known to be dead.
        for task in ask_dead(&pool, AT_A_TIME..THREADS) {
            assert!(is_timeout(task.await.unwrap()));
        }
        gate.turn(true);
        yield_until(|| pool.work().under_way.is_empty()).await;
        gate.turn(false);
        let before = gate.begun();
        let asked = ask_dead(&pool, 0..THREADS);
        yield_until(|| pool.work().wanted.len() == THREADS).await;
        yield_until(|| gate.begun() == before + AT_A_TIME).await;
        assert!(is_answered_at_once(&pool, "good new").await);
        assert_eq!(pool.work().slow_line.len(), THREADS - AT_A_TIME);
        // One that answers in time again is no longer slow. (Only what begins on this thread has the paused clock.)
        gate.turn(true);
        yield_until(|| asked.iter().all(|task| task.is_finished())).await;
        assert!(is_answered_at_once(&pool, "dead0").await);
        assert!(!pool.work().slow.contains("dead0"));
    }

    #[tokio::test]
    async fn all_who_ask_for_a_name_get_its_one_answer() {
        let (pool, gate) = hanging();
        let asked: Vec<_> = (0..50).flat_map(|_| ask_dead(&pool, 0..1)).collect();
        yield_until(|| gate.begun() > 0).await;
        // One does not wait behind the other.
        pool.look_up("good", PATIENCE).await.unwrap();
        gate.turn(true);
        for task in asked {
            assert!(task.await.unwrap().is_ok());
        }
        assert_eq!(gate.begun(), 1);
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
