//! `lbproxy status [CLUSTER] [--watch]`: shows listeners and backends of a running proxy as tables, or its response as
//! JSON. The response is limited in size and time (`ask`), and all text from it is escaped for the terminal.

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
/// Most characters of a name in a table.
const MAX_NAME: usize = 64;
/// Most characters of a reason in a table.
const MAX_REASON: usize = 100;
/// Most rows of a table; a single cluster can be selected.
const MAX_ROWS: usize = 10_000;
/// Shortest interval of `--watch`.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Longest interval of `--watch`.
const MAX_INTERVAL: Duration = Duration::from_secs(3600);

/// Arguments of `lbproxy status`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    /// Show only the backends of this cluster.
    cluster: Option<String>,
    /// Refresh every INTERVAL (2s) until Ctrl-C, and show requests per second.
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
    /// Print the response as JSON, one object per line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

fn interval(text: &str) -> Result<Duration, String> {
    let expected = "expected a duration from \"100ms\" to \"1h\"";
    let duration = parse_duration(text).map_err(|why| format!("{why}; {expected}"))?;
    (MIN_INTERVAL..=MAX_INTERVAL)
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
    let first = view.show(runtime.block_on(ask::get(&target, PATH)), &target)?;
    let Some(interval) = watch else {
        return ask::print(first.as_bytes());
    };
    let mut screen = Screen::new(!json && io::stdout().is_terminal());
    if !screen.draw(&first)? {
        return Ok(());
    }
    loop {
        runtime.block_on(async { tokio::time::sleep(interval).await });
        let text = match view.show(runtime.block_on(ask::get(&target, PATH)), &target) {
            Ok(text) => text,
            // The proxy may be restarting.
            Err(error) if screen.is_terminal => format!("error: {error:#}\n"),
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

/// Draws successive texts: in place on a terminal, one after another elsewhere.
struct Screen {
    is_terminal: bool,
    drawn: bool,
}

impl Screen {
    fn new(is_terminal: bool) -> Self {
        Self {
            is_terminal,
            drawn: false,
        }
    }

    /// Draws a text. Returns false if nobody reads the output any more.
    fn draw(&mut self, text: &str) -> Result<bool, Failure> {
        let prefix = match (self.is_terminal, self.drawn) {
            // Moves the cursor home; the first time, clears the screen too.
            (true, false) => "\x1b[2J\x1b[H",
            (true, true) => "\x1b[H",
            (false, _) => "",
        };
        let text = match self.is_terminal {
            true => text.replace('\n', "\x1b[K\n") + "\x1b[J",
            false => text.to_owned(),
        };
        self.drawn = true;
        let mut out = io::stdout().lock();
        let written = out
            .write_all(format!("{prefix}{text}").as_bytes())
            .and_then(|()| out.flush());
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            written => Ok(written
                .map(|()| true)
                .context("cannot write to standard output")?),
        }
    }
}

/// What to show of the responses.
struct View {
    cluster: Option<String>,
    json: bool,
    /// Request rates, with `--watch`.
    rates: Option<Rates>,
}

impl View {
    fn show(
        &mut self,
        answer: anyhow::Result<(StatusCode, Vec<u8>)>,
        target: &AdminTarget,
    ) -> Result<String, Failure> {
        let (code, body) = answer?;
        let strange = || {
            anyhow!(
                "{target}: status {code} without the status of a proxy: not lbproxy, or a different version"
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

/// Extracts the object of one cluster from a response, unchanged.
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

/// Request counts of each backend in the previous response.
#[derive(Default)]
struct Rates {
    previous: HashMap<(String, String), u64>,
    at: Option<Instant>,
}

impl Rates {
    /// Requests per second (for tcp, connections) of each backend since the previous response.
    fn step(&mut self, status: &ParsedStatus) -> HashMap<(String, String), f64> {
        let now = Instant::now();
        let span = self.at.map(|at| (now - at).as_secs_f64());
        let mut rates = HashMap::new();
        let mut counts = HashMap::new();
        for (cluster, backend) in backends(status) {
            let key = (cluster.to_owned(), backend.address.clone());
            let count = backend.requests_total.max(backend.connections_total);
            if let (Some(previous), Some(span)) = (self.previous.get(&key), span) {
                let more = count.saturating_sub(*previous);
                rates.insert(key.clone(), more as f64 / span.max(0.001));
            }
            counts.insert(key, count);
        }
        (self.previous, self.at) = (counts, Some(now));
        rates
    }
}

/// Notes about a cluster.
fn notes(cluster: &ParsedCluster) -> impl Iterator<Item = &'static str> {
    let notes = [
        (
            cluster.panic,
            "too few backends are healthy, so all are used",
        ),
        (
            cluster.standby,
            "backups have taken over and retain all traffic (on_up = \"stay\")",
        ),
    ];
    notes
        .into_iter()
        .filter(|(applies, _)| *applies)
        .map(|(_, note)| note)
}

/// All backends with the names of their clusters; those that are draining come last.
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
        for note in notes(cluster) {
            let name = plain(&cluster.name, MAX_NAME);
            text.push_str(&format!("\ncluster {name}: {note}\n"));
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
            "{more} more are not shown; select a cluster, or use --json\n"
        ));
    }
    text
}

/// Index of the column RATE.
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
        // A tcp cluster has connections instead of requests.
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

/// The time of the proxy's clock, which may differ from that of this machine.
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

/// Formats a latency with about three digits: `0.31ms`, `4.2ms`, `120ms`, `1.5s`.
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
