//! `lbproxy status [CLUSTER] [--watch]`: listeners and backends of a running proxy as tables, or its answer as JSON.
//!
//! The answer is bounded in size and time (`ask`), and nothing of it reaches the terminal as it came.

use std::collections::HashMap;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow};
use clap::Args;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::ask::{self, AdminTarget};
use super::place::Place;
use super::table::{columns, plain};
use super::{Failure, exit_code};
use crate::model::units::{parse_duration, show_duration};

#[cfg(test)]
mod tests;

const PATH: &str = "/api/v1/status";
/// Longest name and longest reason in a table, characters.
const MAX_NAME: usize = 64;
const MAX_REASON: usize = 100;
/// Rows of a table; a cluster can be asked for alone.
const MAX_ROWS: usize = 10_000;
/// Of `--watch`: what is legal, from a tenth of a second to an hour.
const LEAST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(3600);

/// Arguments of `lbproxy status`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    /// Only the backends of this cluster.
    cluster: Option<String>,
    /// Ask again every INTERVAL (2s) until Ctrl-C, and show requests a second.
    #[arg(
        short,
        long,
        value_name = "INTERVAL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2s",
        value_parser = interval
    )]
    watch: Option<Duration>,
    /// The answer as JSON, one object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

fn interval(text: &str) -> Result<Duration, String> {
    let expected = "expected a duration from \"100ms\" to \"1h\"";
    let duration = parse_duration(text).map_err(|why| format!("{why}; {expected}"))?;
    (LEAST..=MOST)
        .contains(&duration)
        .then_some(duration)
        .ok_or_else(|| expected.to_owned())
}

/// Shows the state of a proxy; exit code 3 if it has no such cluster.
pub fn run(arguments: StatusArguments) -> ExitCode {
    exit_code(show(arguments))
}

fn show(arguments: StatusArguments) -> Result<(), Failure> {
    let StatusArguments {
        cluster,
        watch,
        json,
        place,
    } = arguments;
    let target = place.find()?;
    let runtime = ask::runtime()?;
    let mut view = View {
        cluster,
        json,
        rates: watch.map(|_| Rates::default()),
    };
    let first = view.look(runtime.block_on(ask::get(&target, PATH)), &target)?;
    let Some(interval) = watch else {
        return ask::print(first.as_bytes());
    };
    let mut screen = Screen::new(!json && io::stdout().is_terminal());
    if !screen.draw(&first)? {
        return Ok(());
    }
    loop {
        runtime.block_on(async { tokio::time::sleep(interval).await });
        let text = match view.look(runtime.block_on(ask::get(&target, PATH)), &target) {
            Ok(text) => text,
            // It may be on its way back.
            Err(error) if screen.whole => format!("error: {error:#}\n"),
            Err(error) => {
                eprintln!("error: {error:#}");
                continue;
            }
        };
        if !screen.draw(&text)? {
            return Ok(());
        }
    }
}

/// Where looks are drawn: over each other on a terminal, after each other elsewhere.
struct Screen {
    whole: bool,
    drawn: bool,
}

impl Screen {
    fn new(whole: bool) -> Self {
        Self {
            whole,
            drawn: false,
        }
    }

    /// Whether somebody still reads.
    fn draw(&mut self, text: &str) -> Result<bool, Failure> {
        let before = match (self.whole, self.drawn) {
            // Home, and away with what stood there; the first time the whole screen.
            (true, false) => "\x1b[2J\x1b[H",
            (true, true) => "\x1b[H",
            (false, _) => "",
        };
        let text = match self.whole {
            true => text.replace('\n', "\x1b[K\n") + "\x1b[J",
            false => text.to_owned(),
        };
        self.drawn = true;
        let mut out = io::stdout().lock();
        let written = out
            .write_all(format!("{before}{text}").as_bytes())
            .and_then(|()| out.flush());
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            written => Ok(written
                .map(|()| true)
                .context("cannot write to standard output")?),
        }
    }
}

/// What is shown of the answers.
struct View {
    cluster: Option<String>,
    json: bool,
    /// Of the last look, with `--watch`.
    rates: Option<Rates>,
}

impl View {
    fn look(
        &mut self,
        answer: anyhow::Result<(StatusCode, Vec<u8>)>,
        target: &AdminTarget,
    ) -> Result<String, Failure> {
        let (code, body) = answer?;
        let strange = || {
            anyhow!(
                "{target}: status {code} and no status of a proxy: not lbproxy, or another version of it"
            )
        };
        let body = std::str::from_utf8(&body).map_err(|_| strange())?;
        let read: Result<ParsedStatus, _> = serde_json::from_str(body);
        let status = match (code, read) {
            (StatusCode::OK, Ok(status)) => status,
            _ => return Err(strange().into()),
        };
        if let Some(name) = &self.cluster
            && !status.clusters.iter().any(|cluster| cluster.name == *name)
        {
            return Err(Failure::NotThere(no_cluster(&status, name)));
        }
        match (self.json, &self.cluster) {
            (true, None) => Ok(format!("{}\n", body.trim_end())),
            (true, Some(name)) => Ok(one_cluster(body, name).ok_or_else(strange)?),
            (false, _) => {
                let rates = self.rates.as_mut().map(|rates| rates.step(&status));
                Ok(tables(&status, self.cluster.as_deref(), rates.as_ref()))
            }
        }
    }
}

fn no_cluster(status: &ParsedStatus, name: &str) -> anyhow::Error {
    let known: Vec<String> = status
        .clusters
        .iter()
        .take(20)
        .map(|cluster| plain(&cluster.name, MAX_NAME))
        .collect();
    let known = match known.len() {
        0 => "it has none".to_owned(),
        _ => format!("it has {}", known.join(", ")),
    };
    anyhow!(
        "the proxy has no cluster \"{}\"; {known}",
        plain(name, MAX_NAME)
    )
}

/// The object of one cluster, as it stands in the answer.
fn one_cluster(body: &str, name: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(borrow)]
        clusters: Vec<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct NamedCluster {
        name: String,
    }
    let raw: Raw<'_> = serde_json::from_str(body).ok()?;
    let found = raw.clusters.into_iter().find(|cluster| {
        serde_json::from_str::<NamedCluster>(cluster.get()).is_ok_and(|named| named.name == name)
    })?;
    Some(format!("{}\n", found.get()))
}

/// What is read of the response; the names are those of [`crate::admin::status`].
#[derive(Debug, Deserialize)]
struct ParsedStatus {
    version: String,
    pid: u32,
    started: String,
    uptime_seconds: u64,
    generation: u64,
    readiness: String,
    listeners: Vec<ParsedListener>,
    clusters: Vec<ParsedCluster>,
    departing: ParsedDeparting,
}

#[derive(Debug, Deserialize)]
struct ParsedListener {
    name: String,
    bound: Vec<String>,
    protocol: String,
    connections_active: u64,
    connections_total: u64,
    requests_total: u64,
}

#[derive(Debug, Deserialize)]
struct ParsedCluster {
    name: String,
    panic: bool,
    #[serde(default)]
    standby: bool,
    backends: Vec<ParsedBackend>,
}

#[derive(Debug, Deserialize)]
struct ParsedBackend {
    address: String,
    weight: u32,
    backup: bool,
    state: String,
    reason: String,
    since: String,
    in_flight: u32,
    requests_total: u64,
    connections_total: u64,
    errors_total: u64,
    #[serde(default)]
    response_p50_seconds: Option<f64>,
    #[serde(default)]
    response_p99_seconds: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct ParsedDeparting {
    listeners: Vec<ParsedDepartingListener>,
    backends: Vec<ParsedDepartingBackend>,
}

#[derive(Debug, Deserialize)]
struct ParsedDepartingListener {
    name: String,
    connections_active: u64,
}

#[derive(Debug, Deserialize)]
struct ParsedDepartingBackend {
    cluster: String,
    #[serde(flatten)]
    backend: ParsedBackend,
}

/// Requests and sessions of each backend at the last look.
#[derive(Default)]
struct Rates {
    before: HashMap<(String, String), u64>,
    at: Option<Instant>,
}

impl Rates {
    /// Requests (of tcp: connections) a second of each backend since the last look.
    fn step(&mut self, status: &ParsedStatus) -> HashMap<(String, String), f64> {
        let now = Instant::now();
        let span = self.at.map(|at| (now - at).as_secs_f64());
        let mut rates = HashMap::new();
        let mut counts = HashMap::new();
        for (cluster, backend) in backends(status) {
            let key = (cluster.to_owned(), backend.address.clone());
            let count = backend.requests_total.max(backend.connections_total);
            if let (Some(before), Some(span)) = (self.before.get(&key), span) {
                let more = count.saturating_sub(*before);
                rates.insert(key.clone(), more as f64 / span.max(0.001));
            }
            counts.insert(key, count);
        }
        (self.before, self.at) = (counts, Some(now));
        rates
    }
}

/// What is to be said of a cluster as a whole.
fn marks(cluster: &ParsedCluster) -> impl Iterator<Item = &'static str> {
    let marks = [
        (
            cluster.panic,
            "too few backends are healthy, so all are used",
        ),
        (
            cluster.standby,
            "the backups stand in and keep all (on_up = \"stay\")",
        ),
    ];
    marks
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, mark)| mark)
}

/// All backends with their clusters, those that drain at the end of each.
fn backends(status: &ParsedStatus) -> impl Iterator<Item = (&str, &ParsedBackend)> {
    let departing = &status.departing.backends;
    let mut left: Vec<&ParsedDepartingBackend> = departing.iter().collect();
    left.sort_by(|a, b| a.cluster.cmp(&b.cluster));
    let present = status.clusters.iter().flat_map(|cluster| {
        let name = cluster.name.as_str();
        cluster.backends.iter().map(move |backend| (name, backend))
    });
    present.chain(left.into_iter().map(|d| (d.cluster.as_str(), &d.backend)))
}

fn tables(
    status: &ParsedStatus,
    cluster: Option<&str>,
    rates: Option<&HashMap<(String, String), f64>>,
) -> String {
    let mut text = format!(
        "lbproxy {}, process {}, {} for {}, generation {} of the file\n",
        plain(&status.version, MAX_NAME),
        status.pid,
        plain(&status.readiness, MAX_NAME),
        show_duration(Duration::from_secs(status.uptime_seconds)),
        status.generation,
    );
    if cluster.is_none() {
        text.push('\n');
        text.push_str(&listeners(status));
    }
    let shown = |name: &str| cluster.is_none_or(|wanted| wanted == name);
    for cluster in status.clusters.iter().filter(|c| shown(&c.name)) {
        for mark in marks(cluster) {
            let name = plain(&cluster.name, MAX_NAME);
            text.push_str(&format!("\ncluster {name}: {mark}\n"));
        }
    }
    text.push('\n');
    text.push_str(&backend_table(status, cluster, rates));
    text
}

fn listeners(status: &ParsedStatus) -> String {
    let heads = [
        "LISTENER",
        "ADDRESS",
        "PROTOCOL",
        "ACTIVE",
        "CONNECTIONS",
        "REQUESTS",
    ];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(status.listeners.iter().take(MAX_ROWS).map(|l| {
        let bound = l.bound.iter().map(|address| plain(address, MAX_NAME));
        [
            plain(&l.name, MAX_NAME),
            bound.collect::<Vec<_>>().join(", "),
            plain(&l.protocol, MAX_NAME),
            l.connections_active.to_string(),
            l.connections_total.to_string(),
            l.requests_total.to_string(),
        ]
    }));
    rows.extend(status.departing.listeners.iter().take(MAX_ROWS).map(|l| {
        let cells = [
            &plain(&l.name, MAX_NAME),
            "removed",
            "-",
            &l.connections_active.to_string(),
            "-",
            "-",
        ];
        cells.map(str::to_owned)
    }));
    columns(&rows)
}

fn backend_table(
    status: &ParsedStatus,
    cluster: Option<&str>,
    rates: Option<&HashMap<(String, String), f64>>,
) -> String {
    let heads = [
        "CLUSTER", "BACKEND", "STATE", "SINCE", "WEIGHT", "ACTIVE", "REQUESTS", "RATE", "ERRORS",
        "P50", "P99", "WHY",
    ];
    let mut rows = vec![heads.map(str::to_owned)];
    let now = now(status);
    let mut more = 0;
    for (name, backend) in backends(status) {
        if cluster.is_some_and(|wanted| wanted != name) {
            continue;
        }
        if rows.len() > MAX_ROWS {
            more += 1;
            continue;
        }
        let rate = rates.map(|rates| rates.get(&(name.to_owned(), backend.address.clone())));
        rows.push(row(name, backend, now, rate.flatten().copied()));
    }
    let rate = rates.is_some();
    let mut text = match rate {
        true => columns(&rows),
        false => columns(&rows.into_iter().map(without_rate).collect::<Vec<_>>()),
    };
    if more > 0 {
        text.push_str(&format!(
            "{more} more are not shown; name a cluster, or use --json\n"
        ));
    }
    text
}

const RATE: usize = 7;

fn without_rate(row: [String; 12]) -> [String; 11] {
    let mut cells = row.into_iter().enumerate().filter(|(at, _)| *at != RATE);
    std::array::from_fn(|_| cells.next().map_or_else(String::new, |(_, cell)| cell))
}

fn row(
    cluster: &str,
    backend: &ParsedBackend,
    now: Option<SystemTime>,
    rate: Option<f64>,
) -> [String; 12] {
    let weight = match backend.backup {
        true => format!("{} (backup)", backend.weight),
        false => backend.weight.to_string(),
    };
    [
        plain(cluster, MAX_NAME),
        plain(&backend.address, MAX_NAME),
        plain(&backend.state, MAX_NAME),
        since(&backend.since, now),
        weight,
        backend.in_flight.to_string(),
        // A tcp cluster has sessions.
        backend
            .requests_total
            .max(backend.connections_total)
            .to_string(),
        rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}/s")),
        backend.errors_total.to_string(),
        latency(backend.response_p50_seconds),
        latency(backend.response_p99_seconds),
        plain(&backend.reason, MAX_REASON),
    ]
}

/// The proxy's own clock, which need not be ours.
fn now(status: &ParsedStatus) -> Option<SystemTime> {
    let started = humantime::parse_rfc3339(&status.started).ok()?;
    started.checked_add(Duration::from_secs(status.uptime_seconds))
}

fn since(text: &str, now: Option<SystemTime>) -> String {
    let since = humantime::parse_rfc3339(text).ok();
    let passed = now
        .zip(since)
        .map(|(now, since)| now.duration_since(since).unwrap_or_default());
    passed.map_or_else(
        || plain(text, MAX_NAME),
        |passed| show_duration(Duration::from_secs(passed.as_secs())),
    )
}

/// Three digits or so: `0.31ms`, `4.2ms`, `120ms`, `1.5s`.
fn latency(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds.filter(|s| s.is_finite() && *s >= 0.0) else {
        return "-".to_owned();
    };
    match seconds * 1000.0 {
        ms if ms < 1.0 => format!("{ms:.2}ms"),
        ms if ms < 10.0 => format!("{ms:.1}ms"),
        ms if ms < 1000.0 => format!("{ms:.0}ms"),
        ms => format!("{:.1}s", (ms / 1000.0).min(9999.0)),
    }
}
