//! `lbproxy members [FILE]`: shows the peer set as a proxy sees it, from its admin address.
//!
//! The text comes from the network, so control and other invisible characters are escaped for the terminal, and texts
//! longer than a proxy would send are truncated. `--json` prints the response itself.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use clap::Args;
use hyper::StatusCode;
use tokio::time::{Instant, sleep};

use super::ask::{self, AdminTarget};
use super::place::Place;
use super::table::{self, columns};
use super::{Failure, exit_code};
use crate::admin::members::{MemberEntry, MembersPage, NO_GOSSIP, PATH, ServiceEntry};
use crate::model::units::show_duration;

#[cfg(test)]
mod tests;

/// Most characters of a cell: as many as the longest name has.
const MAX_CELL: usize = crate::gossip::record::MAX_NAME;

/// How long to wait for a member that is starting before its empty set is shown.
const STARTING: Duration = Duration::from_secs(5);
/// Interval of the requests in that time.
const AGAIN: Duration = Duration::from_millis(50);

const HEADS: [&str; 12] = [
    "MEMBER", "ROLE", "STATE", "EPOCH", "SINCE", "CLUSTER", "BACKEND", "WEIGHT", "ZONE", "SERVICE",
    "VERSION", "EXPIRES",
];
/// The last second of the year 9999.
const LAST_DATE: u64 = 253_402_300_799;

/// Arguments of `lbproxy members`.
#[derive(Debug, Args)]
pub struct MembersArguments {
    /// The file that the proxy runs with, like --config.
    #[arg(conflicts_with_all = ["admin", "config"])]
    file: Option<PathBuf>,
    /// Print the response as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Prints the peer set: a table, or with `--json` the response itself. The exit code is 3 if the proxy is in no peer
/// set.
pub fn run(arguments: MembersArguments) -> ExitCode {
    exit_code(show(arguments))
}

fn show(arguments: MembersArguments) -> Result<(), Failure> {
    let MembersArguments { file, json, place } = arguments;
    let target = file.map_or(place, Place::of_file).find()?;
    ask::print(&ask::runtime()?.block_on(answer(&target, json))?)
}

/// Requests the peer set and formats it. While it does not contain the proxy itself, whose member is starting, the
/// request is repeated.
async fn answer(target: &AdminTarget, json: bool) -> Result<Vec<u8>, Failure> {
    let until = Instant::now() + STARTING;
    loop {
        let answer = ask::get(target, PATH).await?;
        if is_in_no_set(&answer) {
            let why = anyhow!("{target}: the proxy has no [gossip], so it is in no peer set");
            return Err(Failure::NotThere(why));
        }
        let (text, starting) = printed(answer, json).with_context(|| target.to_string())?;
        if !starting || Instant::now() >= until {
            return Ok(text);
        }
        sleep(AGAIN).await;
    }
}

fn is_in_no_set((status, body): &(StatusCode, Vec<u8>)) -> bool {
    *status == StatusCode::NOT_FOUND && body == NO_GOSSIP.as_bytes()
}

/// Formats a response; returns the text, and whether the member is starting.
fn printed(
    (status, mut body): (StatusCode, Vec<u8>),
    json: bool,
) -> anyhow::Result<(Vec<u8>, bool)> {
    let members: Option<MembersPage<'_>> = match status {
        StatusCode::OK => serde_json::from_slice(&body).ok(),
        _ => None,
    };
    let members = members.with_context(|| {
        format!("status {status} without a list of members: not lbproxy, or a different version")
    })?;
    let starting = members.members.is_empty();
    if !json {
        return Ok((table(&members).into_bytes(), starting));
    }
    drop(members);
    body.push(b'\n');
    Ok((body, starting))
}

/// Formats a line on the set, and one line for each service or for each member that announces none.
fn table(set: &MembersPage<'_>) -> String {
    let mut rows = vec![HEADS.map(str::to_owned)];
    for member in &set.members {
        let services = member.records.iter();
        rows.extend(services.map(|record| row(member, Some(record))));
        if member.records.is_empty() {
            rows.push(row(member, None));
        }
    }
    summary(set) + &columns(&rows)
}

fn summary(set: &MembersPage<'_>) -> String {
    let seal = match set.key_ids.first() {
        Some(id) if set.sealed => format!("sealed by {}", plain(id)),
        _ => "NOT SEALED".to_owned(),
    };
    let part = match (set.conflict, set.joined) {
        (true, _) => "IN CONFLICT: another process uses this address",
        (false, true) => "joined",
        (false, false) if set.members.is_empty() => "starting",
        (false, false) => "not joined yet",
    };
    let stale = if set.stale {
        "; the last good set from disk is in use"
    } else {
        ""
    };
    let (label, address) = (plain(&set.label), set.address);
    format!("peer set {label} as {address} sees it: {seal}, {part}{stale}\n")
}

fn row(member: &MemberEntry<'_>, record: Option<&ServiceEntry<'_>>) -> [String; HEADS.len()] {
    let of = |cell: fn(&ServiceEntry<'_>) -> String| record.map_or_else(|| "-".to_owned(), cell);
    [
        member.address.to_string(),
        plain(&member.role),
        plain(&member.state),
        member.epoch.to_string(),
        // Truncated to seconds.
        show_duration(Duration::from_secs(member.changed_seconds_ago as u64)),
        of(|r| plain(&r.cluster)),
        of(|r| r.backend.to_string()),
        of(|r| r.weight.to_string()),
        of(|r| plain(&r.zone)),
        of(service),
        of(|r| r.version.to_string()),
        of(|r| r.expires.map_or_else(|| "-".to_owned(), date)),
    ]
}

/// The state of a service, and why it does not count if its token is revoked.
fn service(record: &ServiceEntry<'_>) -> String {
    match &record.revoked {
        Some(why) => format!("{} ({})", plain(&record.state), plain(why)),
        None => plain(&record.state),
    }
}

fn date(unix: u64) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(unix.min(LAST_DATE));
    humantime::format_rfc3339_seconds(time).to_string()
}

fn plain(text: &str) -> String {
    table::plain(text, MAX_CELL)
}
