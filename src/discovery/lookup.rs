//! Asks the system's resolver, which blocks, on threads of its own.
//!
//! There are at most `THREADS` of them, whatever hangs: no page of the admin server, no reload and no end of the
//! process waits for a name server. A name is looked up once at a time: whoever else asks for it meanwhile gets the
//! same answer. A look-up is given up after the time that the resolver itself may take, as `/etc/resolv.conf` has it:
//! with one silent server of two, the answer comes after the first one's `timeout`, and giving up just then would never
//! let it come.
//!
//! Dead names do not hold up others: a name whose last look-up took long waits in a queue of its own, which never gets
//! all of the threads, and of the others only those that began a moment ago count as busy. Waiting in a queue is
//! bounded too.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::files;

/// Most threads, each of which does one look-up at a time.
const THREADS: usize = 64;
/// Threads that slow names leave to others.
const RESERVED: usize = 16;
/// Most busy look-ups of either queue at a time.
const MOST_BUSY: usize = 16;
/// A look-up that takes so long makes its name slow. A look-up counts as busy for `BUSY` if its name was not slow, else
/// for `LOST`, when its answer must be lost.
const SLOW: Duration = LEAST;
const BUSY: Duration = Duration::from_secs(1);
const LOST: Duration = MOST;
/// How long a name waits in a queue, and how often it is checked whether its turn has come.
const LONGEST_WAIT: Duration = MOST;
const TURN_POLL: Duration = Duration::from_millis(250);
/// Most slow names that are remembered; if there are more, all are forgotten.
const MOST_SLOW: usize = 10_000;
/// Shortest and longest time that a look-up is given.
const LEAST: Duration = Duration::from_secs(5);
const MOST: Duration = Duration::from_secs(60);
/// Time for what the resolver does besides waiting.
const MARGIN: Duration = Duration::from_secs(1);
/// How long the content of `/etc/resolv.conf` is kept.
const KEPT: Duration = Duration::from_secs(10);
const RESOLV_CONF: &str = "/etc/resolv.conf";
const LARGEST_CONF: usize = 64 << 10;

/// Looks up all addresses of a host, with this port, in the resolver's order.
///
/// # Errors
/// What the resolver said, or that it took too long.
pub(crate) async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    static POOL: LazyLock<Arc<LookUpPool>> =
        LazyLock::new(|| LookUpPool::new(|host| Ok((host, 0).to_socket_addrs()?.collect())));
    let limit = time_limit(host).await;
    let mut addresses = POOL.look_up(host, limit).await?;
    for address in &mut addresses {
        address.set_port(port);
    }
    Ok(addresses)
}

/// The result of a look-up, for all that wait for it.
type Answer = Result<Arc<[SocketAddr]>, SharedError>;

/// An error that can be cloned.
#[derive(Debug, Clone)]
struct SharedError(io::ErrorKind, Arc<str>);

/// How far the look-up of a name has come.
#[derive(Debug, Clone)]
enum LookUpState {
    Queued,
    RunningSince(Instant),
    Done(Answer),
}

/// The blocking resolver.
type BlockingResolver = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

struct LookUpPool {
    resolve: Box<BlockingResolver>,
    look_ups: Mutex<LookUps>,
}

#[derive(Default)]
struct LookUps {
    /// Names that wait, slow ones and others.
    slow_queue: VecDeque<Arc<str>>,
    queue: VecDeque<Arc<str>>,
    /// One for each thread.
    running: Vec<RunningLookUp>,
    /// All that wait or run.
    wanted: HashMap<Arc<str>, watch::Sender<LookUpState>>,
    /// Names whose last look-up took long.
    slow: HashSet<Arc<str>>,
}

struct RunningLookUp {
    name: Arc<str>,
    since: Instant,
    /// Whether the name was slow when the look-up began.
    slow: bool,
    given_up: bool,
}

impl LookUps {
    fn may_begin(&self, slow: bool, now: Instant) -> bool {
        let (most, counts) = match slow {
            true => (THREADS - RESERVED, LOST),
            false => (THREADS, BUSY),
        };
        let busy = self.running.iter().filter(|look_up| {
            look_up.slow == slow && now.saturating_duration_since(look_up.since) < counts
        });
        self.running.len() < most && busy.count() < MOST_BUSY
    }

    /// Takes the next name whose turn has come; its look-up counts as running from now on.
    fn begin(&mut self) -> Option<Arc<str>> {
        let now = Instant::now();
        for slow in [false, true] {
            while self.may_begin(slow, now) {
                let queue = match slow {
                    true => &mut self.slow_queue,
                    false => &mut self.queue,
                };
                let Some(name) = queue.pop_front() else { break };
                match self.wanted.get(&name) {
                    Some(sender) if sender.receiver_count() > 0 => {
                        sender.send_replace(LookUpState::RunningSince(now));
                        self.running.push(RunningLookUp {
                            name: Arc::clone(&name),
                            since: now,
                            slow,
                            given_up: false,
                        });
                        return Some(name);
                    }
                    // No task waits for it any more.
                    _ => drop(self.wanted.remove(&name)),
                }
            }
        }
        None
    }

    fn enqueue(&mut self, name: Arc<str>) {
        match self.slow.contains(&name) {
            true => self.slow_queue.push_back(name),
            false => self.queue.push_back(name),
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

    /// A task has waited for this look-up for as long as it may take.
    fn give_up(&mut self, host: &str) {
        let mut running = self.running.iter_mut();
        let Some(look_up) = running.find(|look_up| *look_up.name == *host) else {
            return;
        };
        look_up.given_up = true;
        let name = Arc::clone(&look_up.name);
        self.set_slow(&name, true);
    }

    /// The look-up of `name` has ended.
    fn finish(&mut self, name: &Arc<str>, answer: Answer) {
        let place = self.running.iter().position(|one| one.name == *name);
        if let Some(place) = place {
            let look_up = self.running.swap_remove(place);
            let slow = look_up.given_up || look_up.since.elapsed() >= SLOW;
            self.set_slow(name, slow);
        }
        if let Some(sender) = self.wanted.remove(name) {
            sender.send_replace(LookUpState::Done(answer));
        }
    }
}

impl LookUpPool {
    fn new(
        resolve: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            resolve: Box::new(resolve),
            look_ups: Mutex::default(),
        })
    }

    fn look_ups(&self) -> MutexGuard<'_, LookUps> {
        self.look_ups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_up(self: &Arc<Self>, host: &str, limit: Duration) -> io::Result<Vec<SocketAddr>> {
        let mut state = self.join(host)?;
        let asked = Instant::now();
        loop {
            let since = match &*state.borrow_and_update() {
                LookUpState::Queued => None,
                LookUpState::RunningSince(since) => Some(*since),
                LookUpState::Done(Ok(found)) => return Ok(found.to_vec()),
                LookUpState::Done(Err(SharedError(kind, said))) => {
                    return Err(io::Error::new(*kind, said.to_string()));
                }
            };
            let until = since.map_or(asked + LONGEST_WAIT, |since| since + limit);
            tokio::select! {
                biased;
                changed = state.changed() => {
                    changed.map_err(|_| io::Error::other("the look-up failed"))?;
                }
                () = sleep_until(until) => {
                    let said = if since.is_some() {
                        self.look_ups().give_up(host);
                        format!("no answer within {} s", limit.as_secs())
                    } else {
                        format!("too many slow look-ups: this one had no turn within {} s", LONGEST_WAIT.as_secs())
                    };
                    return Err(io::Error::new(io::ErrorKind::TimedOut, said));
                }
                () = sleep(TURN_POLL), if since.is_none() => self.begin_all(&mut self.look_ups())?,
            }
        }
    }

    /// The state of the look-up of this name, which is begun or queued if there is none.
    fn join(self: &Arc<Self>, host: &str) -> io::Result<watch::Receiver<LookUpState>> {
        let mut look_ups = self.look_ups();
        if let Some(known) = look_ups.wanted.get(host) {
            return Ok(known.subscribe());
        }
        let name: Arc<str> = host.into();
        let (sender, state) = watch::channel(LookUpState::Queued);
        look_ups.wanted.insert(Arc::clone(&name), sender);
        look_ups.enqueue(name);
        self.begin_all(&mut look_ups)?;
        Ok(state)
    }

    /// Starts a thread for every name whose turn has come.
    ///
    /// # Errors
    /// No thread runs, and none can be started.
    fn begin_all(self: &Arc<Self>, look_ups: &mut LookUps) -> io::Result<()> {
        while let Some(name) = look_ups.begin() {
            let (pool, first) = (Arc::clone(self), Arc::clone(&name));
            let thread = std::thread::Builder::new().name("names".to_owned());
            if let Err(error) = thread.spawn(move || pool.run(first)) {
                let failure = SharedError(error.kind(), error.to_string().into());
                look_ups.finish(&name, Err(failure));
                // The threads that run will take the other names.
                return match look_ups.running.is_empty() {
                    true => Err(error),
                    false => Ok(()),
                };
            }
        }
        Ok(())
    }

    /// Looks `name` up, and then others as long as any wait.
    fn run(&self, mut name: Arc<str>) {
        loop {
            let answer = (self.resolve)(&name)
                .map(Into::into)
                .map_err(|error| SharedError(error.kind(), error.to_string().into()));
            let mut look_ups = self.look_ups();
            look_ups.finish(&name, answer);
            match look_ups.begin() {
                Some(next) => name = next,
                None => return,
            }
        }
    }
}

/// How long a look-up of `host` may take by the resolver's own configuration.
async fn time_limit(host: &str) -> Duration {
    static KNOWN: Mutex<Option<(Instant, ResolverConfig)>> = Mutex::new(None);
    let known = *KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((when, config)) = known
        && when.elapsed() < KEPT
    {
        return config.time_limit(host);
    }
    let text = files::read_async(Path::new(RESOLV_CONF), LARGEST_CONF).await;
    let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
    let variable = |name| std::env::var(name).ok();
    let config = ResolverConfig::parse(&text, variable("RES_OPTIONS"), variable("LOCALDOMAIN"));
    *KNOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), config));
    config.time_limit(host)
}

/// What decides how long the resolver may take (resolv.conf(5)).
#[derive(Debug, Clone, Copy)]
struct ResolverConfig {
    /// Seconds that one name may take at all servers.
    seconds: u64,
    /// Number of domains that a name is tried in.
    domains: u64,
}

impl ResolverConfig {
    /// Reads `timeout` × `attempts` × name servers, and the search list, from this text and from `RES_OPTIONS` and
    /// `LOCALDOMAIN`.
    fn parse(text: &str, options: Option<String>, local_domain: Option<String>) -> Self {
        /// The default and the most that the resolver itself takes (`MAXNS`, `RES_MAXRETRANS`, `RES_MAXRETRY` of its
        /// resolv.h).
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

    /// How long a look-up of `host` may take, within bounds. The host is tried as it is and in each domain, unless it
    /// ends in a dot; `ndots` only decides which comes first.
    fn time_limit(self, host: &str) -> Duration {
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

    const LIMIT: Duration = Duration::from_secs(20);

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
            let config = ResolverConfig::parse(text, Some(environment.to_owned()), None);
            let limit = config.time_limit("web.internal");
            assert_eq!(
                limit,
                Duration::from_secs(seconds),
                "{text:?} {environment:?}"
            );
        }
        let config = ResolverConfig::parse("search a b c", None, Some("d e".to_owned()));
        assert_eq!(config.time_limit("web"), Duration::from_secs(31));
        assert_eq!(config.time_limit("web.internal."), Duration::from_secs(11));
    }

    /// Look-ups hang here while it is shut.
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
    fn hanging() -> (Arc<LookUpPool>, Arc<Gate>) {
        let gate = Arc::new(Gate::default());
        let shared = Arc::clone(&gate);
        let pool = LookUpPool::new(move |host| {
            if !host.starts_with("good") {
                shared.pass();
            }
            Ok(vec!["192.0.2.1:0".parse().unwrap()])
        });
        (pool, gate)
    }

    type Asked = tokio::task::JoinHandle<io::Result<Vec<SocketAddr>>>;

    /// Asks for `dead0`, `dead1` and so on.
    fn ask_dead(pool: &Arc<LookUpPool>, names: std::ops::Range<usize>) -> Vec<Asked> {
        let ask = |n| {
            let pool = Arc::clone(pool);
            tokio::spawn(async move { pool.look_up(&format!("dead{n}"), LIMIT).await })
        };
        names.map(ask).collect()
    }

    async fn yield_until(condition: impl Fn() -> bool) {
        while !condition() {
            tokio::task::yield_now().await;
        }
    }

    /// Whether `name` has an answer before the paused clock advances.
    async fn is_answered_at_once(pool: &Arc<LookUpPool>, name: &'static str) -> bool {
        let pool = Arc::clone(pool);
        let began = Instant::now();
        let task = tokio::spawn(async move { pool.look_up(name, LIMIT).await });
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
        yield_until(|| gate.begun() == MOST_BUSY).await;
        // Those that hang make room for some more; all are given up, including those that never had their turn.
        for task in asked {
            assert!(is_timeout(task.await.unwrap()));
        }
        yield_until(|| gate.begun() == THREADS).await;
        assert_eq!(pool.look_ups().running.len(), THREADS);
        // One that hangs is not looked up a second time meanwhile.
        assert!(is_timeout(pool.look_up("dead0", LIMIT).await));
        assert_eq!(gate.begun(), THREADS);
        gate.turn(true);
        yield_until(|| pool.look_ups().running.is_empty()).await;
        // Names that no task waited for any more were not looked up.
        assert_eq!(gate.begun(), THREADS);
        assert!(pool.look_ups().wanted.is_empty());
        assert!(is_answered_at_once(&pool, "dead199").await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_name_does_not_wait_for_dead_ones() {
        let (pool, gate) = hanging();
        // As many as may begin at a time hang for good.
        for task in ask_dead(&pool, 0..MOST_BUSY) {
            assert!(is_timeout(task.await.unwrap()));
        }
        assert!(is_answered_at_once(&pool, "good").await);
        // Many that are known to be dead.
        for task in ask_dead(&pool, MOST_BUSY..THREADS) {
            assert!(is_timeout(task.await.unwrap()));
        }
        gate.turn(true);
        yield_until(|| pool.look_ups().running.is_empty()).await;
        gate.turn(false);
        let before = gate.begun();
        let asked = ask_dead(&pool, 0..THREADS);
        yield_until(|| pool.look_ups().wanted.len() == THREADS).await;
        yield_until(|| gate.begun() == before + MOST_BUSY).await;
        assert!(is_answered_at_once(&pool, "good new").await);
        assert_eq!(pool.look_ups().slow_queue.len(), THREADS - MOST_BUSY);
        // One that answers in time again is no longer slow. (Only what begins on this thread has the paused clock.)
        gate.turn(true);
        yield_until(|| asked.iter().all(|task| task.is_finished())).await;
        assert!(is_answered_at_once(&pool, "dead0").await);
        assert!(!pool.look_ups().slow.contains("dead0"));
    }

    #[tokio::test]
    async fn all_tasks_that_ask_for_a_name_get_its_one_answer() {
        let (pool, gate) = hanging();
        let asked: Vec<_> = (0..50).flat_map(|_| ask_dead(&pool, 0..1)).collect();
        yield_until(|| gate.begun() > 0).await;
        // One name does not wait for the other.
        pool.look_up("good", LIMIT).await.unwrap();
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
