//! Measures lbproxy beside HAProxy, nginx, Pingora and a bare byte relay.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml` (`-- --help` for more). The proxy that is measured runs alone on one core; backends and
//! load generator share the others. Peers that are not on the machine are left out, with a word. Everything listens on
//! loopback, has an end in time, and is ended by its id; the report is on the terminal and in `target/peers/`.
//!
//! This file owns the order of a run. `--role` is how it starts itself again as the floor, or to pin another
//! program.

mod backend;
mod build;
mod figures;
mod floor;
mod idle;
mod launch;
mod load;
mod measure;
mod options;
mod poll;
mod proxies;
mod reload;
mod report;
mod rounds;
mod scenarios;
mod subjects;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::backend::Backends;
use crate::launch::Cores;
use crate::options::Options;
use crate::proxies::Proxy;
use crate::report::{Report, Result as Measured};
use crate::rounds::Stage;
use crate::scenarios::{Plan, SCENARIOS, Scenario};
use crate::subjects::subjects;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--role", "launch", ..] => launch::become_program(&words[2..]),
        ["--role", "floor", pool, ..] => floor(pool == "pool", &words[3..]),
        _ => bench(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn floor(pool: bool, backends: &[String]) -> io::Result<()> {
    let backends: Result<Vec<_>, _> = backends.iter().map(|word| word.parse()).collect();
    floor::run(pool, backends.map_err(io::Error::other)?)
}

fn bench() -> io::Result<()> {
    let options = Options::parse();
    if options.list {
        SCENARIOS
            .iter()
            .for_each(|scenario| println!("{:<12}{}", scenario.name, scenario.title));
        return Ok(());
    }
    if let Some(unknown) = options
        .only
        .iter()
        .find(|name| SCENARIOS.iter().all(|scenario| scenario.name != **name))
    {
        return Err(io::Error::other(format!(
            "no scenario {unknown}; `--list` names them"
        )));
    }
    let Some(cores) = Cores::find()? else {
        println!(
            "peers: one core only; a proxy and its load cannot be told apart on it, so nothing is measured"
        );
        return Ok(());
    };
    let descriptors = launch::raise_descriptors()?;
    let directory = tempfile::tempdir()?;
    let programs = build::programs(&options, directory.path().to_owned(), descriptors);
    // After the builds, which may use every core.
    launch::pin(&cores.others)?;
    let backends = Backends::start()?;
    let stage = Stage {
        options: &options,
        cores: &cores,
        programs: &programs,
        backends: &backends,
    };
    let mut report = Report {
        seconds: options.window().as_secs_f64(),
        rounds: options.rounds(),
        proxy_core: cores.proxy,
        other_cores: cores.others.clone(),
        versions: Vec::new(),
        results: Vec::new(),
        not_measured: vec!["HTTP/2 and TLS: lbproxy has neither yet".to_owned()],
    };
    for proxy in Proxy::ALL {
        let version = build::version(&programs, proxy).unwrap_or_else(|error| error.to_string());
        report.versions.push((proxy.name(), version));
    }
    for scenario in SCENARIOS
        .iter()
        .filter(|scenario| options.wants(scenario.name))
    {
        println!("\n{}: {}", scenario.name, scenario.title);
        measure(&stage, scenario, &mut report);
    }
    report.print();
    let target = build::target_directory();
    report.write(&target)?;
    println!(
        "\nwritten: {0}/report.json, {0}/report.svg",
        target.display()
    );
    Ok(())
}

/// One scenario, and what could not be measured of it.
fn measure(stage: &Stage<'_>, scenario: &Scenario, report: &mut Report) {
    let mut left_out = |who: &str, why: &str| {
        println!("  {who}: {why}");
        report
            .not_measured
            .push(format!("{}, {who}: {why}", scenario.name));
    };
    let mut subjects = match subjects(&stage.backends.addresses, scenario.plan) {
        Ok(subjects) => subjects,
        Err(reason) => return left_out("all", &reason),
    };
    subjects.retain(|subject| {
        let obstacle = stage.obstacle(subject);
        if let Some(reason) = &obstacle {
            left_out(&subject.label, reason);
        }
        obstacle.is_none()
    });
    let offered = matches!(scenario.plan, Plan::HalfLoad).then(|| {
        let mut slowest = f64::INFINITY;
        // A short closed loop tells each one's peak.
        for subject in subjects
            .iter()
            .filter(|subject| subject.proxy != Proxy::Floor)
        {
            let peak = stage.round(
                Plan::HalfLoad,
                subject,
                None,
                stage.options.window().min(Duration::from_secs(3)),
            );
            if let Ok(figures) = peak {
                println!(
                    "  peak of {}: {:.0} requests a second",
                    subject.label, figures.rate
                );
                slowest = slowest.min(figures.rate);
            }
        }
        slowest / 2.0
    });
    if offered.is_some_and(f64::is_infinite) {
        return left_out("all", "no peak could be measured");
    }
    let series = stage.run(scenario, &subjects, offered);
    for series in series.iter().filter(|series| series.rounds.is_empty()) {
        left_out(
            &series.label,
            series.failures.first().map_or("no round", String::as_str),
        );
    }
    report
        .results
        .push(Measured::new(scenario, series, offered));
}
