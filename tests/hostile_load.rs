//! A hostile load beside a normal one: thousands of heads that never end, of readers that do not read and of bodies
//! that trickle. The normal load must not notice, and what the hostile one cost must be bounded and come back.
//!
//! All clients and backends live in this process: the hostile connections are 10,500, their backends' ends 3,000, and
//! the proxy, a process of its own, holds 13,500: what it keeps for its other listener is left alone. Where the descriptor
//! limit is too low for that, all counts shrink by the same factor.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use support::backend::{Action, Answer, Backend};
use support::client::Client;
use support::load::Load;
use support::process::Proxy;
use support::wait::{PATIENCE, pause, wait_for, wait_until};
use support::{alone, number_from_env, raise_descriptor_limit};

/// What a hostile connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Half a head, then a byte of it now and then.
    Head,
    /// Asks for a large answer and takes a few bytes of it now and then.
    Reader,
    /// Announces a body and sends a byte of it now and then.
    Body,
}

/// The kinds in the order in which they come, how many of each, and the memory that one of them may cost, in KiB: a
/// head is small, what a reader does not take is one read of the proxy's with what frames it, and a body is passed on.
const KINDS: [(Kind, usize, u64); 3] = [
    (Kind::Head, 7_500, 5),
    (Kind::Reader, 1_500, 96),
    (Kind::Body, 1_500, 8),
];

/// Beside that: each worker's memory for reads, which the first large answers touch, and what tables grow by.
const WORKERS: u64 = 2;
const FIXED_KIB: u64 = WORKERS * 1024 + 4096;

/// The normal load, on connections that are kept.
const CONNECTIONS: u64 = 8;
const RATE: u64 = 300;
/// Its connections, with the two of [`User`].
const NORMAL: u64 = CONNECTIONS + 2;

/// In this time each hostile connection has its turn once.
const ROUND: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(10);

/// Hostile clients from one source address.
const FROM_ONE_ADDRESS: usize = 5_000;
/// Segments as over Ethernet, and a small window: the kernel keeps little of what nobody reads.
const SEGMENT: u32 = 1_400;
const WINDOW: usize = 4_096;
/// What a backend's kernel keeps of an answer.
const BACKEND_KEEPS: usize = 8_192;
/// A large answer: more than all buffers on its way.
const LARGE: u64 = 16 << 20;

/// One hostile connection.
struct Member {
    kind: Kind,
    stream: TcpStream,
}

impl Member {
    /// The one with this number, connected and with its beginning sent.
    fn open(kind: Kind, number: usize, addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let source = 2 + u8::try_from(number / FROM_ONE_ADDRESS).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, source), 0)).into())?;
        socket.set_tcp_mss(SEGMENT)?;
        if kind == Kind::Reader {
            socket.set_recv_buffer_size(WINDOW)?;
        }
        socket.connect_timeout(&addr.into(), PATIENCE)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut stream = TcpStream::from(socket);
        let begin = match kind {
            Kind::Head => format!("GET /half HTTP/1.1\r\nhost: a\r\nx-number: {number}\r\nx: "),
            Kind::Reader if number.is_multiple_of(8) => large("chunks"),
            Kind::Reader => large("length"),
            Kind::Body => {
                "POST /body HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n".to_owned()
            }
        };
        stream.write_all(begin.as_bytes())?;
        Ok(Self { kind, stream })
    }

    /// Does the little that it does. An error means that the proxy has let it fall.
    fn step(&mut self) -> io::Result<()> {
        let mut buffer = [0; 8];
        if self.kind != Kind::Reader {
            self.stream.write_all(b"y")?;
        }
        match self.stream.read(&mut buffer) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(e),
            Ok(0) => Err(io::Error::other("closed")),
            Ok(_) if self.kind == Kind::Reader => Ok(()),
            Ok(n) => Err(io::Error::other(format!(
                "an answer: {}",
                buffer[..n].escape_ascii()
            ))),
        }
    }
}

fn large(framing: &str) -> String {
    format!("GET /large/{framing} HTTP/1.1\r\nhost: a\r\n\r\n")
}

/// All hostile connections, and the one thread that gives each its turn.
struct Crowd {
    addr: SocketAddr,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    members: Mutex<Vec<Member>>,
    steps: AtomicUsize,
    stop: AtomicBool,
    fallen: Mutex<Vec<String>>,
}

impl Crowd {
    fn gather(addr: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.trickle()
        });
        Self {
            addr,
            shared,
            thread,
        }
    }

    fn len(&self) -> usize {
        self.shared.members.lock().unwrap().len()
    }

    /// Opens `count` more, never many more than the proxy has accepted, so that the kernel turns none away.
    fn open(&self, kind: Kind, count: usize, proxy: &Proxy) {
        let first = self.len();
        for number in first..first + count {
            let member = Member::open(kind, number, self.addr).unwrap();
            self.shared.members.lock().unwrap().push(member);
            if number.is_multiple_of(250) {
                wait_until(PATIENCE, "the proxy keeps up with accepting", || {
                    active(proxy) + 1000 >= number as u64
                });
            }
        }
    }

    /// Waits until everybody has had `n` turns more.
    fn wait_turns(&self, n: usize) {
        let goal = self.shared.steps.load(Relaxed) + n * self.len();
        wait_until(PATIENCE, "everybody has had a turn", || {
            self.shared.steps.load(Relaxed) >= goal
        });
    }

    /// What the proxy has let fall so far.
    fn fallen(&self) -> Vec<String> {
        self.shared.fallen.lock().unwrap().clone()
    }

    /// Goes away: one in ten closes in order and so keeps its port from others for a minute, the rest resets.
    fn leave(self) {
        self.shared.stop.store(true, Relaxed);
        self.thread.join().unwrap();
        for (i, member) in self.shared.members.lock().unwrap().drain(..).enumerate() {
            if !i.is_multiple_of(10) {
                let linger = SockRef::from(&member.stream).set_linger(Some(Duration::ZERO));
                linger.unwrap();
            }
        }
    }
}

impl Shared {
    fn trickle(&self) {
        let mut next = 0;
        while !self.stop.load(Relaxed) {
            pause(STEP);
            let mut members = self.members.lock().unwrap();
            let turns = members.len() * STEP.as_millis() as usize / ROUND.as_millis() as usize + 1;
            for _ in 0..turns.min(members.len()) {
                next = (next + 1) % members.len();
                let member = &mut members[next];
                if let Err(e) = member.step() {
                    let text = format!("{:?} {next}: {e}", member.kind);
                    self.fallen.lock().unwrap().push(text);
                }
            }
            self.steps.fetch_add(turns, Relaxed);
        }
    }
}

/// A user who looks at the clock: a request on a connection that is kept, then one on a connection of its own.
struct User {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

#[derive(Default)]
struct Seen {
    /// When each request was sent and how long it took.
    times: Vec<(Instant, Duration)>,
    errors: Vec<String>,
}

impl User {
    fn start(addr: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut seen = Seen::default();
                let mut kept = Client::connect(addr);
                for number in 0.. {
                    if stop.load(Relaxed) {
                        break;
                    }
                    pause(STEP);
                    seen.ask(Ok(&mut kept), &format!("/kept/{number}"));
                    let mut own = Client::try_connect(addr);
                    seen.ask(
                        own.as_mut().map_err(|e| e.to_string()),
                        &format!("/own/{number}"),
                    );
                }
                seen
            }
        });
        Self { stop, thread }
    }

    fn stop(self) -> Seen {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

impl Seen {
    fn ask(&mut self, client: Result<&mut Client, String>, target: &str) {
        let begin = Instant::now();
        let answer = client.and_then(|client| {
            let answer = client.try_request("GET", target, "", b"");
            answer.map_err(|e| e.to_string())
        });
        self.times.push((begin, begin.elapsed()));
        match answer {
            Ok(answer) if answer.status == 200 && answer.text() == format!("a {target}") => {}
            other => self.errors.push(format!("{target}: {other:?}")),
        }
    }

    /// Times of the requests sent between two moments: how long a half and 99 of 100 took at most, and the longest.
    fn percentiles(&self, from: Instant, to: Instant) -> String {
        let sent = self.times.iter().filter(|(at, _)| (from..to).contains(at));
        let mut times: Vec<Duration> = sent.map(|(_, time)| *time).collect();
        times.sort_unstable();
        let count = times.len();
        let at = |hundredths: usize| times.get(count * hundredths / 100).copied();
        let [p50, p99, most] =
            [at(50), at(99), times.last().copied()].map(Option::unwrap_or_default);
        format!("{count} requests, p50 {p50:.1?}, p99 {p99:.1?}, longest {most:.1?}")
    }
}

fn active(proxy: &Proxy) -> u64 {
    proxy.count("lbproxy_connections_active", &[("listener", "web")])
}

fn in_flight(proxy: &Proxy) -> u64 {
    proxy.count("lbproxy_backend_in_flight", &[])
}

fn rejected(proxy: &Proxy) -> u64 {
    proxy.count("lbproxy_rejected_total", &[("listener", "web")])
}

/// Resident memory once it stands still: five looks in a row within a hundredth.
fn settled_kib(proxy: &Proxy) -> u64 {
    let mut looks = Vec::new();
    wait_for(PATIENCE, "memory stands still", || {
        pause(5 * STEP);
        looks.push(proxy.rss_kib());
        let last = looks.last_chunk::<5>()?;
        let (least, most) = (last.iter().min()?, last.iter().max()?);
        (most - least <= most / 100).then_some(*most)
    })
}

/// The share of the full counts that the descriptor limit carries.
fn scale() -> f64 {
    let limit = raise_descriptor_limit();
    // The proxy keeps 1,024 or a quarter for itself, a quarter of the rest for its other listener and a thirty-second
    // for backends alone; so much is for the crowd.
    let carried = (limit - (limit / 4).min(1024)) / 4 * 3;
    let carried = (carried - carried / 32).saturating_sub(2 * NORMAL + 100);
    let wanted: usize = KINDS
        .iter()
        .map(|(kind, count, _)| {
            if *kind == Kind::Head {
                *count
            } else {
                2 * count
            }
        })
        .sum();
    let scale = (carried as f64 / wanted as f64).min(1.0);
    if scale < 1.0 {
        println!("{limit} descriptors: all counts by {scale:.3}");
    }
    scale
}

/// Half heads, trickled like those of the crowd, on a listener with a short time for heads: each gets its 408.
fn late_heads_get_their_answer(addr: SocketAddr) {
    let mut late: Vec<Client> = (0..20)
        .map(|_| {
            let mut client = Client::connect(addr);
            client.send("GET / HTTP/1.1\r\nhost: a\r\nx: ");
            client
        })
        .collect();
    let answered = Arc::new(AtomicBool::new(false));
    let trickling = std::thread::spawn({
        let answered = Arc::clone(&answered);
        let mut writers: Vec<TcpStream> =
            late.iter().map(|c| c.stream.try_clone().unwrap()).collect();
        move || {
            while !answered.load(Relaxed) {
                for writer in &mut writers {
                    // The proxy closes what it has answered.
                    let _ = writer.write_all(b"y");
                }
                pause(5 * STEP);
            }
        }
    });
    let statuses: Vec<_> = late
        .iter_mut()
        .map(|client| client.read_response("GET").map(|r| (r.status, r.closes())))
        .collect();
    answered.store(true, Relaxed);
    trickling.join().unwrap();
    for status in statuses {
        assert_eq!(status.unwrap(), (408, true));
    }
}

/// What one round of the hostile load came to.
struct Round {
    /// When it came, stood, went, and was gone.
    moments: [Instant; 4],
    /// Resident memory while all stood, in KiB.
    peak: u64,
}

/// The crowd comes, stands for a while and goes.
fn round(proxy: &Proxy, scale: f64, base: u64) -> Round {
    let comes = Instant::now();
    let crowd = Crowd::gather(proxy.addr("web"));
    let rejected_before = rejected(proxy);
    let mut bound = base + FIXED_KIB;
    let (mut upstreams, mut last) = (0, base);
    for (kind, count, each) in KINDS {
        let count = (count as f64 * scale) as usize;
        crowd.open(kind, count, proxy);
        // One of the normal connections may be missing at the moment.
        let open = crowd.len() as u64 + NORMAL - 1;
        wait_until(PATIENCE, "all are accepted", || active(proxy) >= open);
        upstreams += if kind == Kind::Head { 0 } else { count as u64 };
        wait_until(PATIENCE, "all have reached the backend", || {
            in_flight(proxy) >= upstreams
        });
        let now = settled_kib(proxy);
        let cost = now.saturating_sub(last) as f64 / count as f64;
        println!(
            "  {count} of {kind:?}: {cost:.2} KiB each, {} KiB above the base",
            now.saturating_sub(base)
        );
        last = now;
        bound += count as u64 * each;
    }
    let (stands, from) = (Instant::now(), proxy.cpu_time());
    crowd.wait_turns(2);
    let busy = (proxy.cpu_time() - from).as_secs_f64() / stands.elapsed().as_secs_f64();
    late_heads_get_their_answer(proxy.addr("strict"));
    let peak = settled_kib(proxy);
    println!(
        "  all: {} KiB above the base, {:.0} % of a processor",
        peak - base,
        100.0 * busy
    );
    assert!(peak <= bound, "{peak} KiB are more than {bound} KiB");
    assert_eq!(proxy.admin("/readyz").status, 200);
    assert!(active(proxy) >= crowd.len() as u64, "all stand");
    assert_eq!(crowd.fallen(), [""; 0]);
    assert_eq!(rejected(proxy), rejected_before, "nobody was turned away");
    let goes = Instant::now();
    crowd.leave();
    wait_until(PATIENCE, "the proxy has noticed that all are gone", || {
        active(proxy) <= NORMAL && in_flight(proxy) <= NORMAL
    });
    let gone = Instant::now();
    // A worker gives memory back behind a crowd; what fewer than a thousand of its connections leave may stay.
    let stays = if scale < 0.2 {
        FIXED_KIB + 2048
    } else {
        FIXED_KIB
    };
    wait_until(PATIENCE, "memory is back at its base", || {
        proxy.rss_kib() <= base + stays
    });
    println!(
        "  gone: {} KiB above the base after {:.1?}",
        proxy.rss_kib().saturating_sub(base),
        gone.elapsed()
    );
    Round {
        moments: [comes, stands, goes, gone],
        peak,
    }
}

#[test]
fn a_hostile_load_of_13_500_descriptors_disturbs_nobody_and_its_memory_is_bounded() {
    let _one = alone();
    let scale = scale();
    let backend = Backend::start_with_send_buffer("a", BACKEND_KEEPS);
    backend.behave(|request| match &*request.target {
        "/large/length" => Action::Download {
            length: LARGE,
            chunked: false,
        },
        "/large/chunks" => Action::Download {
            length: LARGE,
            chunked: true,
        },
        target => Answer::new(200, format!("a {target}"))
            .field("x-backend", "a")
            .into(),
    });
    let proxy = Proxy::start(&format!(
        r#"workers = {WORKERS}
[[listener]]
name = "web"
address = "127.0.0.1:0"
cluster = "web"
timeouts = {{ header = "5m", request_body = "5m", write = "5m" }}
[[listener]]
name = "strict"
address = "127.0.0.1:0"
cluster = "web"
timeouts = {{ header = "500ms" }}
[cluster.web]
backends = ["{}"]
timeouts = {{ response = "5m", idle = "2s" }}
"#,
        backend.addr
    ));
    let addr = proxy.addr("web");
    let descriptors = proxy.descriptors();
    let load = Load::to(addr).connections(CONNECTIONS).rate(RATE).start();
    let user = User::start(addr);
    let begin = Instant::now();
    wait_until(PATIENCE, "the normal load runs", || load.done() >= 2 * RATE);
    let base = settled_kib(&proxy);
    let came = Instant::now();
    let rounds: Vec<Round> = (1..=number_from_env("LBPROXY_TEST_HOSTILE_ROUNDS", 2))
        .map(|i| {
            println!("round {i}, base {base} KiB");
            round(&proxy, scale, base)
        })
        .collect();
    let seen = user.stop();
    let report = load.stop();
    println!("alone: {}", seen.percentiles(begin, came));
    for Round { moments, .. } in &rounds {
        for (what, span) in ["comes", "stands", "goes"].iter().zip(moments.windows(2)) {
            let beside = seen.percentiles(span[0], span[1]);
            println!("while it {what}, {:.1?}: {beside}", span[1] - span[0]);
        }
    }
    println!(
        "{} requests of the load in {:.1?}",
        report.ok,
        begin.elapsed()
    );
    report.assert_flawless();
    assert_eq!(seen.errors, [""; 0]);
    let first = &rounds[0];
    for later in &rounds[1..] {
        // How much of its 64 KiB a slow reader holds depends on the machine's speed at that moment; all that they may
        // hold is no growth.
        let readers = 72 * 1_500;
        let most = (first.peak + first.peak / 10).max(readers + 40 * 1_024);
        assert!(
            later.peak <= most,
            "{} KiB grew to {} KiB",
            first.peak,
            later.peak
        );
    }
    wait_until(PATIENCE, "the descriptors are back", || {
        proxy.descriptors() <= descriptors
    });
    assert_eq!(proxy.count("lbproxy_panics_total", &[]), 0);
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
}
