//! Carries out a scenario: rounds A B C A B C …, each proxy started afresh and alone, and what each
//! round showed.

use std::io;
use std::time::Duration;

use crate::backend::Backends;
use crate::figures::Figures;
use crate::idle;
use crate::launch::Cores;
use crate::load::{Edge, Load, Pace, Work};
use crate::measure::{self, Sample};
use crate::options::Options;
use crate::proxies::{Programs, Proxy};
use crate::reload;
use crate::scenarios::{Plan, Scenario};
use crate::subjects::Subject;

/// A subject and its rounds.
pub(crate) struct Series {
    pub label: String,
    pub proxy: Proxy,
    pub rounds: Vec<Figures>,
    pub failures: Vec<String>,
}

/// What all scenarios need.
pub(crate) struct Stage<'a> {
    pub options: &'a Options,
    pub cores: &'a Cores,
    pub programs: &'a Programs,
    pub backends: &'a Backends,
}

impl Stage<'_> {
    /// All rounds of a scenario. `rate` is that of an open loop.
    pub(crate) fn run(
        &self,
        scenario: &Scenario,
        subjects: &[Subject],
        rate: Option<f64>,
    ) -> Vec<Series> {
        let mut all: Vec<Series> = subjects
            .iter()
            .map(|subject| Series {
                label: subject.label.clone(),
                proxy: subject.proxy,
                rounds: Vec::new(),
                failures: Vec::new(),
            })
            .collect();
        for round in 1..=self.options.rounds() {
            print!("  round {round} of {}:", self.options.rounds());
            for (subject, series) in subjects.iter().zip(&mut all) {
                match self.round(scenario.plan, subject, rate, self.options.window()) {
                    Ok(figures) => {
                        print!("  {} {:.2}", subject.label, figures.cost);
                        series.rounds.push(figures);
                    }
                    Err(error) => {
                        print!("  {} failed", subject.label);
                        series.failures.push(format!("round {round}: {error}"));
                    }
                }
                let _ = io::Write::flush(&mut io::stdout());
            }
            println!(" {}", scenario.unit.text());
        }
        all
    }

    /// Why a subject cannot take part, if it cannot.
    pub(crate) fn obstacle(&self, subject: &Subject) -> Option<String> {
        self.programs.obstacle(subject.proxy, &subject.task)
    }

    /// One subject, started afresh, for one round.
    pub(crate) fn round(
        &self,
        plan: Plan,
        subject: &Subject,
        rate: Option<f64>,
        window: Duration,
    ) -> io::Result<Figures> {
        let running =
            self.programs
                .start(subject.proxy, &subject.task, self.cores, &subject.work)?;
        let process = running.child.id();
        if matches!(plan, Plan::Idle) {
            return idle::measure(running.address, process, &subject.work);
        }
        if let (Plan::Reload, Work::Http { requests, .. }) = (plan, &subject.work) {
            let file = self.programs.directory.join("lbproxy.toml");
            return reload::measure(running.address, process, &file, &requests[0], self.cores);
        }
        let (connections, in_flight) = match plan {
            Plan::Http {
                connections,
                in_flight,
                ..
            } => (connections, in_flight),
            Plan::PingPong { connections, .. } | Plan::Bulk { connections, .. } => {
                (connections, connections)
            }
            _ => (64, 64),
        };
        let load = Load {
            to: running.address,
            work: subject.work.clone(),
            connections,
            pace: rate.map_or(Pace::Closed { in_flight }, |per_second| Pace::Open {
                per_second,
            }),
            warm_up: self.options.warm_up(),
            window,
        };
        let (mut first, mut last) = (None, None);
        let outcome = load.run(self.backends, &mut |edge| {
            let sample = Sample::take(self.cores, process, std::process::id())?;
            match edge {
                Edge::Begin => first = Some(sample),
                Edge::End => last = Some(sample),
            }
            Ok(())
        })?;
        let (Some(first), Some(last)) = (first, last) else {
            return Err(io::Error::other("the window had no edges"));
        };
        let usage = first.until(&last);
        let gigabytes = outcome.bytes as f64 / 1e9;
        // µs for each request, or ms for each GB.
        let (amount, scale) = if matches!(plan, Plan::Bulk { .. }) {
            (gigabytes, 1e3)
        } else {
            (outcome.done as f64, 1e6)
        };
        if amount == 0.0 {
            return Err(io::Error::other("nothing came back"));
        }
        let p99 = outcome.latency.micros(0.99);
        let core_cost = usage.core.as_secs_f64() * scale / amount;
        Ok(Figures {
            cost: if rate.is_some() { p99 } else { core_cost },
            process_cost: usage.process.as_secs_f64() * scale / amount,
            rate: amount / outcome.window.as_secs_f64(),
            p50: outcome.latency.micros(0.5),
            p99,
            p999: outcome.latency.micros(0.999),
            proxy_busy: usage.proxy_busy,
            others_busy: usage.others_busy,
            stolen: usage.stolen,
            foreign: usage.foreign,
            resident: measure::resident(process)? / 1024.0,
            behind: outcome.behind,
        })
    }
}
