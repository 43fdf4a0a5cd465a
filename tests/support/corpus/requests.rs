//! Runs the request cases: a client of the built program, the recording backend behind it, and the verdict.
//!
//! One proxy has all the listeners that a case may name:
//!
//! | listener | |
//! |---|---|
//! | `default` | everything goes to the cluster `default` |
//! | `routes` | `/admin/*` is answered with 403 by a route; `/a/b`, `X-Tenant: gold`, `X-Forwarded-Proto: https` and `Host: internal` lead to the cluster `other`, the rest as above |
//! | `trusted` | believes forwarding fields of loopback |
//! | `small` | takes bodies of at most 1 KiB |
//!
//! That nothing more reaches a backend is judged when a following good request has been answered, on the same
//! connection if it goes on and on another one else: with one worker, all that the proxy does for the case is done by
//! then, and whatever it has sent lies in the recorder's sockets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::process::{ACCESS_LOG, Proxy};
use super::super::wait::pause;
use super::answers::{self, Answer};
use super::bytes::show;
use super::data::{Reached, RequestCase};
use super::delivery::Delivery;
use super::ledger::{Entry, Ledger};
use super::recorder::{Recorded, Recorder, Recording, Rest, SERIAL};
use super::spread;
use super::wire::{End, Look, Patience, Wire};

const LISTENERS: [&str; 4] = ["default", "routes", "trusted", "small"];

/// How long an answer is held back, to see what does not wait for it.
const HELD: Duration = Duration::from_millis(20);

/// Below so many bytes each piece of a cut delivery is given time to be read by itself.
const PACED: usize = 2 << 10;

/// The proxy and what stands around it.
pub struct Runner {
    proxy: Proxy,
    addrs: BTreeMap<&'static str, SocketAddr>,
    recorder: Recorder,
    ledger: Ledger,
    patience: Patience,
    probes: u64,
}

/// What one delivery has shown.
struct Sight {
    client: Wire,
    /// The connection of the following request, if the first one has ended.
    other: Option<Wire>,
    recording: Recording,
    /// What is not as it must be.
    faults: Vec<String>,
}

/// Runs all cases in so many lanes, each with its own proxy; a text for each that fails.
pub fn run(cases: &[RequestCase], lanes: usize) -> Vec<String> {
    spread(cases, lanes, |own| {
        let mut runner = Runner::start();
        let failed: Vec<String> = own.filter_map(|case| runner.run(case)).collect();
        if failed.is_empty() {
            runner.ledger.close(&runner.proxy);
        }
        failed
    })
}

impl Runner {
    /// Starts the proxy and the backend.
    fn start() -> Self {
        let recorder = Recorder::start(&["default", "other"]);
        let proxy = Proxy::start(&config(&recorder));
        Self {
            addrs: LISTENERS.map(|name| (name, proxy.addr(name))).into(),
            ledger: Ledger::open(&proxy),
            patience: Patience::default(),
            probes: 0,
            recorder,
            proxy,
        }
    }

    /// Runs one case in its three deliveries, up to the first that fails.
    fn run(&mut self, case: &RequestCase) -> Option<String> {
        for delivery in Delivery::all(&case.place.name) {
            let Some(addr) = self.addrs.get(case.listener.as_str()) else {
                return Some(format!("{}: no listener {}", case.place, case.listener));
            };
            let mut sight = Sight {
                client: Wire::connect(*addr),
                other: None,
                recording: Recording::default(),
                faults: Vec::new(),
            };
            if let Err(fault) = self.play(case, delivery, &mut sight) {
                sight.faults.push(fault);
            }
            if !sight.faults.is_empty() {
                sight.recording.raw.extend(self.recorder.take().raw);
                let report = sight.report(case, delivery);
                // What is left of this case must not be taken for a part of the next one.
                let patience = std::mem::take(&mut self.patience);
                *self = Self::start();
                self.patience = patience;
                return Some(report);
            }
        }
        None
    }

    /// Delivers the case and compares what comes of it. An error means that it was waited in vain.
    fn play(
        &mut self,
        case: &RequestCase,
        delivery: Delivery,
        sight: &mut Sight,
    ) -> Result<(), String> {
        self.deliver(case, delivery, &mut sight.client);
        self.await_answers(case, &mut sight.client)?;
        check_statuses(case, &sight.answers())?;
        if let Some(tunnel) = &case.tunnel {
            let bytes = tunnel.len();
            self.until(&mut sight.client, "what goes through the tunnel", |c, r| {
                c.end.is_some() || r.tunnelled() >= bytes
            })?;
            sight.client.finish();
        }
        let probe = self.follow(case, sight)?;
        self.until(&mut sight.client, "the half request is given up", |_, r| {
            r.has_no_open_rest()
        })?;
        sight.recording = self.recorder.take();
        sight.check_answers(case);
        sight.check_recording(case, delivery, &probe);
        let entry = entry_of(case);
        if sight.faults.is_empty() {
            self.ledger.enter(&self.proxy, &entry, &mut self.patience)?;
        }
        Ok(())
    }

    fn deliver(&mut self, case: &RequestCase, delivery: Delivery, client: &mut Wire) {
        let mut at = 0;
        for piece in delivery.pieces(case.send.len()) {
            // A client that has been told of the end sends what is left in one go.
            let end = match client.end {
                None => at + piece,
                Some(_) => case.send.len(),
            };
            client.send(&case.send[at..end]);
            at = end;
            client.pump();
            self.recorder.pump();
            if at == case.send.len() {
                break;
            }
            if case.send.len() <= PACED || matches!(delivery, Delivery::Cuts(_)) {
                pause(Duration::from_micros(10));
            }
        }
        if case.ends {
            client.finish();
        }
    }

    /// Waits for the answers. While the backend holds one back, nothing may go to it.
    fn await_answers(&mut self, case: &RequestCase, client: &mut Wire) -> Result<(), String> {
        let wanted = case.answers.len();
        loop {
            self.until(client, "the answers", |client, recorder| {
                let ended = client.end.is_some();
                let answered = whole(client) >= wanted && (wanted > 0 || !case.closes);
                recorder.is_holding() || client.is_flushed() && (ended || answered)
            })?;
            if !self.recorder.is_holding() {
                return Ok(());
            }
            let until = Instant::now() + HELD;
            while Instant::now() < until {
                client.pump();
                self.recorder.pump();
                pause(Duration::from_millis(1));
            }
            self.recorder.release();
        }
    }

    /// Sends one more request: on the same connection if it goes on, else, once it has ended, on another. Returns its
    /// request line.
    fn follow(&mut self, case: &RequestCase, sight: &mut Sight) -> Result<String, String> {
        self.probes += 1;
        let line = format!("GET /after-{} HTTP/1.1", self.probes);
        let request = format!("{line}\r\nHost: after\r\n\r\n");
        if !case.closes {
            sight.client.send(request.as_bytes());
            let wanted = case.answers.len() + 1;
            self.until(&mut sight.client, "an answer to what follows", |c, _| {
                c.end.is_some() || whole(c) >= wanted
            })?;
            return Ok(line);
        }
        self.until(&mut sight.client, "the end of the connection", |c, _| {
            c.end.is_some()
        })?;
        let mut other = Wire::connect(self.addrs[case.listener.as_str()]);
        other.send(request.as_bytes());
        let answered = self.until(&mut other, "an answer on another connection", |c, _| {
            c.end.is_some() || whole(c) >= 1
        });
        sight.other = Some(other);
        answered.map(|()| line)
    }

    fn until(
        &mut self,
        client: &mut Wire,
        what: &str,
        done: impl Fn(&Wire, &Recorder) -> bool,
    ) -> Result<(), String> {
        let recorder = &mut self.recorder;
        self.patience.until(what, || {
            let moved = client.pump() | recorder.pump();
            Look::of(done(client, recorder), moved)
        })
    }
}

/// The statuses, and whether the end of the connection was announced.
fn check_statuses(case: &RequestCase, answers: &[Answer]) -> Result<(), String> {
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    if statuses != case.answers {
        let wanted = &case.answers;
        return Err(format!("answers {statuses:?} instead of {wanted:?}"));
    }
    let says_close = answers
        .last()
        .map(|last| last.fields.lists("connection", "close"));
    match says_close {
        Some(said) if case.tunnel.is_none() && said != case.closes => {
            Err(format!("Connection: close was said: {said}"))
        }
        _ => Ok(()),
    }
}

/// Answers that have come whole; what is not well formed is told later.
fn whole(client: &Wire) -> usize {
    let read = answers::read(&client.seen, client.end, false);
    read.map_or(usize::MAX, |(answers, _)| {
        answers.iter().filter(|answer| answer.whole).count()
    })
}

/// What the metrics and the access log must gain by one delivery: the exchanges of the case, then the following one.
fn entry_of(case: &RequestCase) -> Entry<'_> {
    let mut exchanges: Vec<_> = case.answers.iter().map(|status| (*status, None)).collect();
    match (case.reason.as_deref(), exchanges.last_mut()) {
        (Some(reason @ "client_left"), _) => exchanges.push((499, Some(reason))),
        (Some(reason), Some(last)) => last.1 = Some(reason),
        _ => {}
    }
    exchanges.push((200, None));
    Entry {
        exchanges,
        listener: &case.listener,
        error: None,
    }
}

impl Sight {
    fn answers(&self) -> Vec<Answer> {
        let read = answers::read(&self.client.seen, self.client.end, false);
        read.map(|(answers, _)| answers).unwrap_or_default()
    }

    fn fault(&mut self, text: impl Into<String>) {
        self.faults.push(text.into());
    }

    /// The client's side: nothing but the answers, each to its own request, and the end as it must be.
    fn check_answers(&mut self, case: &RequestCase) {
        let mut served = Vec::new();
        let streams = std::iter::once(&self.client).chain(&self.other);
        let mut faults = Vec::new();
        for wire in streams {
            match answers::read(&wire.seen, wire.end, false) {
                Ok((_, read)) if read < wire.seen.len() => {
                    let rest = show(&wire.seen[read..]);
                    faults.push(format!("something behind the answers: {rest}"));
                }
                Ok((answers, _)) => served.extend(answers),
                Err(wrong) => faults.push(format!("the client got no answer: {wrong}")),
            }
        }
        self.faults.extend(faults);
        let own = |status: u16| ![101, 200].contains(&status);
        let wanted: Vec<u16> = case.answers.iter().copied().chain([200]).collect();
        let statuses: Vec<u16> = served.iter().map(|answer| answer.status).collect();
        if statuses != wanted {
            self.fault(format!("answers {statuses:?} instead of {wanted:?}"));
            return;
        }
        let serials: Vec<Option<String>> = served
            .iter()
            .filter(|answer| !own(answer.status))
            .map(|answer| answer.fields.all(SERIAL).next().map(str::to_owned))
            .collect();
        let requests = self.recording.requests.iter();
        let sent: Vec<_> = requests.map(|r| Some(r.serial.to_string())).collect();
        if serials != sent {
            self.fault(format!("answers to {serials:?}, requests were {sent:?}"));
        }
        self.check_end(case);
    }

    fn check_end(&mut self, case: &RequestCase) {
        let left = case.reason.as_deref() == Some("client_left");
        match self.client.end {
            Some(End::Reset) if !left => self.fault("the connection was reset"),
            Some(_) if !case.closes => self.fault("the connection was closed"),
            None if case.closes => self.fault("the connection was not closed"),
            _ => {}
        }
    }

    /// The backend's side: exactly the requests of the case and the one that follows.
    fn check_recording(&mut self, case: &RequestCase, delivery: Delivery, probe: &str) {
        let Recording {
            requests,
            rest,
            raw,
            tunnelled,
        } = &self.recording;
        let mut faults = Vec::new();
        let following = Reached {
            line: probe.to_owned(),
            at: "default".to_owned(),
            ..Reached::default()
        };
        let wanted: Vec<&Reached> = case.reaches.iter().chain([&following]).collect();
        let lines: Vec<&str> = requests.iter().map(|r| r.request.line.as_str()).collect();
        let wanted_lines: Vec<&str> = wanted.iter().map(|r| r.line.as_str()).collect();
        if lines == wanted_lines {
            for (have, want) in requests.iter().zip(&wanted) {
                compare(have, want, &mut faults);
            }
        } else {
            faults.push(format!(
                "the backend got {lines:?} instead of {wanted_lines:?}"
            ));
        }
        let in_pieces = delivery != Delivery::Whole || case.ends || case.send.len() > PACED;
        let may_begin = case.partial && in_pieces;
        for rest in rest {
            match rest {
                Rest::Incomplete(_) if may_begin => {}
                Rest::Incomplete(bytes) => {
                    faults.push(format!("half a request at the backend: {}", show(bytes)));
                }
                Rest::Wrong(wrong) => faults.push(format!("the backend got no request: {wrong}")),
            }
        }
        for never in &case.never {
            if raw
                .iter()
                .any(|raw| memchr::memmem::find(raw, never).is_some())
            {
                faults.push(format!("the backend got {}", show(never)));
            }
        }
        if *tunnelled != *case.tunnel.as_deref().unwrap_or_default() {
            faults.push(format!("through the tunnel went {}", show(tunnelled)));
        }
        self.faults.extend(faults);
    }

    fn report(&self, case: &RequestCase, delivery: Delivery) -> String {
        let mut report = format!(
            "{} ({})\n  delivered {delivery} to `{}`\n",
            case.place, case.place.source, case.listener
        );
        for fault in &self.faults {
            report += &format!("  - {fault}\n");
        }
        report += &format!("  sent:\n        {}\n", show(&case.send));
        report += &format!("  the client got:\n        {}\n", show(&self.client.seen));
        for raw in &self.recording.raw {
            report += &format!("  a backend got:\n        {}\n", show(raw));
        }
        report
    }
}

/// Compares a request with what it must be.
fn compare(have: &Recorded, want: &Reached, faults: &mut Vec<String>) {
    let request = &have.request;
    let line = &request.line;
    if have.cluster != want.at {
        faults.push(format!("{line:?} went to `{}`", have.cluster));
    }
    if request.body != want.body {
        faults.push(format!("{line:?} has the body {}", show(&request.body)));
    }
    let trailers: Vec<String> = request.trailers.0.iter().map(as_line).collect();
    if trailers != want.trailers {
        faults.push(format!("{line:?} has the trailers {trailers:?}"));
    }
    for wanted in &want.has {
        if !has_line(&request.fields.0, wanted) {
            faults.push(format!("{line:?} has no {wanted:?}"));
        }
    }
    for name in want.lacks.iter().filter(|name| request.fields.has(name)) {
        faults.push(format!("{line:?} has a field {name}"));
    }
}

fn as_line((name, value): &(String, String)) -> String {
    format!("{name}: {value}")
}

/// Whether one of the fields is this line; the case of its name does not count.
pub fn has_line(fields: &[(String, String)], wanted: &str) -> bool {
    let (name, value) = wanted.split_once(": ").unwrap_or((wanted, ""));
    fields
        .iter()
        .any(|(n, v)| n.eq_ignore_ascii_case(name) && v == value)
}

fn config(recorder: &Recorder) -> String {
    let (default, other) = (recorder.addr("default"), recorder.addr("other"));
    let listener = |name: &str, keys: &str| {
        format!(
            "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\ncluster = \"default\"\n\
             timeouts = {{ header = \"5m\", request_body = \"5m\", idle = \"5m\" }}\n{keys}\n"
        )
    };
    let listeners = [
        listener("default", ""),
        listener("routes", ""),
        listener("trusted", "trusted_proxies = [\"127.0.0.0/8\"]"),
        listener("small", "limits = { body_bytes = \"1KiB\" }"),
    ];
    let rules = [("x-tenant", "gold"), ("x-forwarded-proto", "https"), ("host", "internal")].map(
        |(name, value)| {
            format!("[[route]]\nlisteners = [\"routes\"]\nheader = {{ {name} = \"{value}\" }}\ncluster = \"other\"\n")
        },
    );
    let cluster = |name: &str, addr: SocketAddr| {
        format!("[cluster.{name}]\nbackends = [\"{addr}\"]\nretry = {{ attempts = 1 }}\n")
    };
    format!(
        "workers = 1\n{}\
         [[route]]\nlisteners = [\"routes\"]\npath = \"/admin/*\"\n\
         respond = {{ status = 403, body = \"forbidden\" }}\n\
         [[route]]\nlisteners = [\"routes\"]\npath = \"/a/b\"\ncluster = \"other\"\n{}{}{}{ACCESS_LOG}",
        listeners.concat(),
        rules.concat(),
        cluster("default", default),
        cluster("other", other),
    )
}
