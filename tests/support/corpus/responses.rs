//! Runs the response cases: a client of the built program, a backend that does what the case says, and the verdict.
//!
//! Behind every case another client asks for `/next-N` and must get the answer that was made for it, whatever the
//! first backend connection was left with.

use std::net::SocketAddr;

use super::super::message::head_length;
use super::super::process::{ACCESS_LOG, Proxy};
use super::super::wait::pause;
use super::answers::{self, Answer};
use super::bytes::show;
use super::data::{ResponseCase, Then};
use super::delivery::Delivery;
use super::hostile::{Hostile, Script};
use super::ledger::{Entry, Ledger};
use super::requests::has_line;
use super::spread;
use super::wire::{Look, Patience, Wire};

/// The proxy and what stands around it.
struct Runner {
    proxy: Proxy,
    addr: SocketAddr,
    backend: Hostile,
    ledger: Ledger,
    patience: Patience,
    asked: u64,
}

/// What one delivery has shown.
struct Sight {
    client: Wire,
    next: Option<Wire>,
    faults: Vec<String>,
}

/// Runs all cases in so many lanes, each with its own proxy; a text for each that fails.
pub fn run(cases: &[ResponseCase], lanes: usize) -> Vec<String> {
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
    fn start() -> Self {
        let backend = Hostile::start();
        let proxy = Proxy::start(&config(backend.addr()));
        Self {
            addr: proxy.addr("default"),
            ledger: Ledger::open(&proxy),
            patience: Patience::default(),
            asked: 0,
            backend,
            proxy,
        }
    }

    /// Runs one case in its three deliveries, up to the first that fails.
    fn run(&mut self, case: &ResponseCase) -> Option<String> {
        for delivery in Delivery::all(&case.place.name) {
            let mut sight = Sight {
                client: Wire::connect(self.addr),
                next: None,
                faults: Vec::new(),
            };
            if let Err(fault) = self.play(case, delivery, &mut sight) {
                sight.faults.push(fault);
            }
            if !sight.faults.is_empty() {
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
        case: &ResponseCase,
        delivery: Delivery,
        sight: &mut Sight,
    ) -> Result<(), String> {
        let pieces = delivery.pieces(case.backend.len());
        self.backend.load(Script::of(case, pieces));
        sight.client.send(&case.request);
        let to_head = case.request.starts_with(b"HEAD ");
        let mut rest = case.rest.clone();
        self.until(
            &mut sight.client,
            delivery,
            "the answer",
            |client, backend| {
                if head_length(&client.seen).is_some() {
                    client.send(&std::mem::take(&mut rest));
                }
                if has_seen(client, to_head, case) {
                    backend.is_seen();
                }
                let answered = client.end.is_some() || has_answer(client, to_head, case);
                answered && (backend.has_said_all() || backend.scripted.is_none())
            },
        )?;
        if case.status == 101 {
            sight.client.finish();
            self.until(
                &mut sight.client,
                delivery,
                "the end of the tunnel",
                |c, _| c.end.is_some(),
            )?;
        }
        self.backend.send_later();
        self.ask_next(delivery, sight)?;
        sight.check(case, to_head);
        let reused = self.backend.next == self.backend.scripted;
        if case.reused.is_some_and(|wanted| wanted != reused) {
            sight
                .faults
                .push(format!("the connection was used again: {reused}"));
        }
        // An early answer is counted once the rest of its request can come no more.
        sight.client.finish();
        sight.client.pump();
        if sight.faults.is_empty() {
            self.ledger
                .enter(&self.proxy, &entry_of(case), &mut self.patience)?;
        }
        Ok(())
    }

    /// Another client asks for something else and must get just that.
    fn ask_next(&mut self, delivery: Delivery, sight: &mut Sight) -> Result<(), String> {
        self.asked += 1;
        let target = format!("/next-{}", self.asked);
        let mut next = Wire::connect(self.addr);
        next.send(format!("GET {target} HTTP/1.1\r\nHost: next\r\n\r\n").as_bytes());
        let answered = self.until(&mut next, delivery, "the next answer", |client, _| {
            client.end.is_some() || whole(client, false) >= 1
        });
        sight.client.pump();
        let wanted = format!("answer to {target}");
        let read = answers::read(&next.seen, next.end, false);
        let is_right = matches!(&read, Ok((answers, _)) if answers.len() == 1
            && answers[0].whole && answers[0].status == 200
            && answers[0].body == wanted.as_bytes());
        if !is_right {
            let got = show(&next.seen);
            sight
                .faults
                .push(format!("the next client got\n        {got}"));
        }
        sight.next = Some(next);
        answered
    }

    fn until(
        &mut self,
        client: &mut Wire,
        delivery: Delivery,
        what: &str,
        mut done: impl FnMut(&mut Wire, &mut Hostile) -> bool,
    ) -> Result<(), String> {
        let backend = &mut self.backend;
        self.patience.until(what, || {
            let moved = backend.pump() | client.pump();
            if delivery != Delivery::Whole && moved {
                // Lets each piece be read by itself.
                pause(std::time::Duration::from_micros(10));
            }
            Look::of(done(client, backend), moved)
        })
    }
}

/// Whether the client has seen as much of the backend's response as the case lets it see.
fn has_seen(client: &Wire, to_head: bool, case: &ResponseCase) -> bool {
    if case.status == 502 {
        return case.interim.is_empty() || head_length(&client.seen).is_some();
    }
    let body = case.body.as_ref().map_or(0, Vec::len);
    let read = answers::read(&client.seen, client.end, to_head);
    read.is_ok_and(|(answers, _)| {
        let answer = answers.first();
        answer.is_some_and(|answer| answer.whole >= case.whole && answer.body.len() >= body)
    })
}

/// Whether the client has got its answer, as far as one can tell without the end of the connection.
fn has_answer(client: &Wire, to_head: bool, case: &ResponseCase) -> bool {
    let Ok((answers, _)) = answers::read(&client.seen, client.end, to_head) else {
        return true;
    };
    let body = case.body.as_ref().map_or(0, Vec::len);
    match answers.first() {
        Some(switch) if switch.status == 101 => switch.body.len() >= body,
        Some(answer) => answer.whole,
        None => false,
    }
}

fn whole(client: &Wire, to_head: bool) -> usize {
    let read = answers::read(&client.seen, client.end, to_head);
    read.map_or(usize::MAX, |(answers, _)| {
        answers.iter().filter(|answer| answer.whole).count()
    })
}

/// What the metrics and the access log must gain by one delivery: the exchange of the case, then the next one.
fn entry_of(case: &ResponseCase) -> Entry<'_> {
    Entry {
        exchanges: vec![(case.status, case.reason.as_deref()), (200, None)],
        listener: "default",
        error: case.error.as_deref().map(|error| ("default", error)),
    }
}

impl Sight {
    fn fault(&mut self, text: impl Into<String>) {
        self.faults.push(text.into());
    }

    /// What the first client got.
    fn check(&mut self, case: &ResponseCase, to_head: bool) {
        let read = answers::read(&self.client.seen, self.client.end, to_head);
        let (answers, length) = match read {
            Ok(read) => read,
            Err(wrong) => return self.fault(format!("the client got no answer: {wrong}")),
        };
        // Behind a body that is cut there may be framing without its end.
        let is_cut = answers.last().is_some_and(|answer| !answer.whole);
        if length < self.client.seen.len() && !is_cut {
            let rest = show(&self.client.seen[length..]);
            self.fault(format!("something behind the answer: {rest}"));
        }
        match &answers[..] {
            [answer] => self.check_answer(case, answer),
            _ => self.fault(format!("{} answers", answers.len())),
        }
        let streams = std::iter::once(&self.client).chain(&self.next);
        let got = |never: &&Vec<u8>| {
            let mut streams = streams.clone();
            streams.any(|wire| memchr::memmem::find(&wire.seen, never).is_some())
        };
        let leaks: Vec<String> = case.never.iter().filter(got).map(|n| show(n)).collect();
        for leak in leaks {
            self.fault(format!("the client got {leak}"));
        }
    }

    fn check_answer(&mut self, case: &ResponseCase, answer: &Answer) {
        if (answer.status, &answer.interim) != (case.status, &case.interim) {
            self.fault(format!(
                "status {} after {:?} instead of {} after {:?}",
                answer.status, answer.interim, case.status, case.interim
            ));
        }
        if answer.whole != case.whole {
            self.fault(format!("the body is whole: {}", answer.whole));
        }
        if case.body.as_ref().is_some_and(|body| *body != answer.body) {
            self.fault(format!("the body is {}", show(&answer.body)));
        }
        let trailers = answer.trailers.to_string();
        if !trailers.lines().eq(&case.trailers) {
            self.fault(format!("the trailers are {trailers:?}"));
        }
        for wanted in &case.has {
            if !has_line(&answer.fields.0, wanted) {
                self.fault(format!("there is no {wanted:?}"));
            }
        }
        for name in case.lacks.iter().filter(|name| answer.fields.has(name)) {
            self.fault(format!("there is a field {name}"));
        }
    }

    fn report(&self, case: &ResponseCase, delivery: Delivery) -> String {
        let mut report = format!(
            "{} ({})\n  delivered {delivery}\n",
            case.place, case.place.source
        );
        for fault in &self.faults {
            report += &format!("  - {fault}\n");
        }
        let ending = match case.then {
            Then::Keep => "",
            Then::Close => ", then closed",
            Then::Reset => ", then reset",
        };
        report += &format!("  the client sent:\n        {}\n", show(&case.request));
        report += &format!(
            "  the backend sent{ending}:\n        {}\n",
            show(&case.backend)
        );
        let end = self.client.end;
        report += &format!(
            "  the client got ({end:?}):\n        {}\n",
            show(&self.client.seen)
        );
        report
    }
}

fn config(backend: SocketAddr) -> String {
    format!(
        "workers = 1\n[[listener]]\nname = \"default\"\naddress = \"127.0.0.1:0\"\ncluster = \"default\"\n\
         [cluster.default]\nbackends = [\"{backend}\"]\nretry = {{ attempts = 1 }}\n{ACCESS_LOG}"
    )
}
