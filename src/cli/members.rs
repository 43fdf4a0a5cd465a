//! `lbproxy members FILE`: the peer set as the proxy that runs on this file sees it, asked for at its admin address.
//!
//! What is shown came from the network, so that texts go to the terminal without control and other invisible
//! characters, and cut where no proxy's would be; `--json` is the answer itself.

use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};
use hyper::StatusCode;
use tokio::time::{Instant, sleep};

use crate::admin::members::{Member, Members, NO_GOSSIP, PATH, Record};
use crate::config::load::is_agent;
use crate::config::watch::read_now;
use crate::control::read_alone;
use crate::model::settings::AdminAddress;
use crate::model::units::show_duration;

mod ask;
#[cfg(test)]
mod tests;

/// Longest text in a cell, characters: as long as the longest name.
const MAX_CELL: usize = crate::gossip::record::MAX_NAME;

/// How long a member may take to start before its empty set is shown, and between two looks.
const STARTING: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(50);

const HEADS: [&str; 12] = [
    "MEMBER", "ROLE", "STATE", "EPOCH", "SINCE", "CLUSTER", "BACKEND", "WEIGHT", "ZONE", "SERVICE",
    "VERSION", "EXPIRES",
];
/// The last second of the year 9999.
const LAST_DATE: u64 = 253_402_300_799;

/// Prints the peer set: a table, or with `json` the answer as it came.
pub fn run(file: &Path, json: bool) -> ExitCode {
    match read_alone(file) {
        Ok(config) => super::ended(show(file, config.admin.as_ref(), json)),
        Err(_) if read_now(file).is_ok_and(|text| is_agent(&text)) => super::ended(Err(anyhow!(
            "{} is the file of an agent; give that of a proxy, which can be asked",
            file.display()
        ))),
        // Its words are diagnostics already.
        Err(error) => {
            eprint!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn show(file: &Path, admin: Option<&AdminAddress>, json: bool) -> anyhow::Result<()> {
    let admin = admin.with_context(|| {
        format!(
            "{} has no [admin]: the proxy has no address where it could be asked",
            file.display()
        )
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let text = runtime.block_on(answer(admin, json))?;
    match io::stdout().write_all(&text) {
        // Who reads the first lines only has what was asked for.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// What is to be printed. A set in which the proxy itself is not yet is asked for again: its member is starting.
async fn answer(admin: &AdminAddress, json: bool) -> anyhow::Result<Vec<u8>> {
    let until = Instant::now() + STARTING;
    loop {
        let answer = ask::get(admin, PATH).await?;
        let (text, starting) = printed(answer, json).with_context(|| ask::shown(admin))?;
        if !starting || Instant::now() >= until {
            return Ok(text);
        }
        sleep(AGAIN).await;
    }
}

/// What an answer is to be printed as, and whether the member is starting.
fn printed(
    (status, mut body): (StatusCode, Vec<u8>),
    json: bool,
) -> anyhow::Result<(Vec<u8>, bool)> {
    if status == StatusCode::NOT_FOUND && body == NO_GOSSIP.as_bytes() {
        bail!("the proxy has no [gossip], so it is in no peer set");
    }
    let members: Option<Members<'_>> = match status {
        StatusCode::OK => serde_json::from_slice(&body).ok(),
        _ => None,
    };
    let members = members.with_context(|| {
        format!("status {status} and no list of members: no lbproxy, or one of another version")
    })?;
    let starting = members.members.is_empty();
    if !json {
        return Ok((table(&members).into_bytes(), starting));
    }
    drop(members);
    body.push(b'\n');
    Ok((body, starting))
}

/// A line on the set and one for each service, or for each member that announces none.
fn table(set: &Members<'_>) -> String {
    let mut rows = vec![HEADS.map(str::to_owned)];
    for member in &set.members {
        let services = member.records.iter();
        rows.extend(services.map(|record| row(member, Some(record))));
        if member.records.is_empty() {
            rows.push(row(member, None));
        }
    }
    let mut widths = [0; HEADS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = summary(set);
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn summary(set: &Members<'_>) -> String {
    let seal = match set.key_ids.first() {
        Some(id) if set.sealed => format!("sealed by {}", plain(id)),
        _ => "NOT SEALED".to_owned(),
    };
    let part = match (set.conflict, set.joined) {
        (true, _) => "IN CONFLICT: somebody else uses this address",
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

fn row(member: &Member<'_>, record: Option<&Record<'_>>) -> [String; HEADS.len()] {
    let of = |cell: fn(&Record<'_>) -> String| record.map_or_else(|| "-".to_owned(), cell);
    [
        member.address.to_string(),
        plain(&member.role),
        plain(&member.state),
        member.epoch.to_string(),
        // Whole seconds, of which any number is one.
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

/// How a service is, and whether that counts.
fn service(record: &Record<'_>) -> String {
    match &record.revoked {
        Some(why) => format!("{} ({})", plain(&record.state), plain(why)),
        None => plain(&record.state),
    }
}

fn date(unix: u64) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(unix.min(LAST_DATE));
    humantime::format_rfc3339_seconds(time).to_string()
}

/// A text as a terminal may have it.
fn plain(text: &str) -> String {
    let mut cell = String::new();
    for c in text.chars().take(MAX_CELL) {
        match c {
            '"' | '\'' | '\\' => cell.push(c),
            c => cell.extend(c.escape_debug()),
        }
    }
    if cell.is_empty() {
        cell.push('-');
    }
    cell
}
