//! A cluster's `check`.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::{Reader, Slot, Table};
use crate::config::diagnostics::findings::Finding;
use crate::config::grammar;
use crate::config::limits::PERIOD;
use crate::config::sections;
use crate::model::settings::{Check, CheckKind};
use crate::model::units::show_duration;

const INTERVAL: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(1);
/// Consecutive results that change a backend's state: by default for up and for down, and the legal range.
const RISE: u32 = 2;
const FALL: u32 = 3;
const RESULTS: RangeInclusive<u64> = 1..=100;
/// Of a name of a user.
const MAX_USER: usize = 128;

/// What is left out has its default, whether the table has one entry or all.
pub(super) fn check(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Option<Check> {
    let slot = slot?;
    let table = r.table(Some(slot), &sections::CHECK)?;
    let kind = kind(r, &table);
    let interval = r.duration(table.get("interval"), PERIOD);
    let timeout = r.duration(table.get("timeout"), PERIOD);
    let results = |slot: Option<u64>, default| slot.map_or(default, |number| number as u32);
    let check = Check {
        interval: interval.unwrap_or(INTERVAL),
        timeout: timeout.unwrap_or(TIMEOUT),
        rise: results(r.integer(table.get("rise"), RESULTS), RISE),
        fall: results(r.integer(table.get("fall"), RESULTS), FALL),
        port: r
            .integer(table.get("port"), 1..=65_535)
            .map(|port| port as u16),
        kind: kind?,
    };
    warn_of_slowness(r, &table, &check);
    Some(check)
}

/// The keys that say what is asked; of `send` and `expect` see [`kind`].
const KINDS: [&str; 5] = ["http", "tcp", "postgres", "mysql", "redis"];

fn kind(r: &mut Reader<'_>, table: &Table<'_>) -> Option<CheckKind> {
    let (http, send, expect) = (table.get("http"), table.get("send"), table.get("expect"));
    let named = KINDS
        .iter()
        .filter_map(|kind| Some((*kind, table.get(kind)?)));
    // Beside `http`, `expect` is of its body.
    let exchange = send.map(|slot| ("send", slot)).or(expect
        .filter(|_| http.is_none())
        .map(|slot| ("expect", slot)));
    let kinds: Vec<(&str, Slot<'_>)> = named.chain(exchange).collect();
    let kind = match kinds[..] {
        [(kind, _)] => Some(kind),
        [] => {
            if r.whole {
                let label = "expected `http = \"/healthz\"` or `tcp = true` in it, or one of `expect`, `postgres`, \
                             `mysql` and `redis`";
                r.error(
                    table.place.clone(),
                    "`check` does not say what it asks",
                    label,
                );
            }
            None
        }
        [(first, _), (second, ref slot), ..] => {
            let message = format!("`check` has `{first}` and `{second}`");
            r.error(slot.place(), message, "expected only one of them");
            None
        }
    };
    only_for_http(r, table, kind);
    for key in ["tcp", "redis"] {
        if let Some(slot) = table.get(key)
            && r.boolean(Some(slot)) == Some(false)
        {
            let label = "expected true; without a check, leave the whole `check` out";
            r.error(slot.place(), format!("`{key}` is false"), label);
        }
    }
    let status = r.filled_list(
        table.get("status"),
        "an array such as [\"2xx\", 404]",
        statuses,
    );
    let host = r.parsed(
        table.get("host"),
        "a host such as \"web.internal\"",
        grammar::check_host,
    );
    let path = r.parsed(http, "a path such as \"/healthz\"", grammar::target);
    let sent = r.string(send, "the text to send").map(str::to_owned);
    let text = r.parsed(expect, "a text of the answer", expected_text);
    let [postgres, mysql] =
        ["postgres", "mysql"].map(|key| r.parsed(table.get(key), "the name of a user", user_name));
    match kind? {
        "http" => Some(CheckKind::Http {
            path: path?,
            host,
            status: status.unwrap_or_else(|| vec![(200, 299)]),
            expect: text,
        }),
        "tcp" => Some(CheckKind::Tcp),
        "postgres" => Some(CheckKind::Postgres { user: postgres? }),
        "mysql" => Some(CheckKind::Mysql { user: mysql? }),
        "redis" => Some(CheckKind::Redis),
        _ => {
            if let (Some(slot), None) = (send, expect) {
                let label = "expected `expect` beside it, with a text of the answer";
                r.error(slot.place(), "`send` without `expect`", label);
            }
            Some(CheckKind::Exchange {
                send: sent.unwrap_or_default(),
                expect: text?,
            })
        }
    }
}

/// `status` and `host` say nothing of another check than one of `kind` http.
fn only_for_http(r: &mut Reader<'_>, table: &Table<'_>, kind: Option<&str>) {
    let kind = match kind {
        None | Some("http") => return,
        Some("send" | "expect") => "tcp",
        Some(kind) => kind,
    };
    for slot in [table.get("status"), table.get("host")]
        .into_iter()
        .flatten()
    {
        let message = format!("{slot} in a {kind} check");
        r.error(slot.place(), message, "expected only beside `http`");
    }
}

fn expected_text(text: &str) -> Result<String, String> {
    match text {
        "" => Err("expected at least one character".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// Of a database.
fn user_name(text: &str) -> Result<String, String> {
    let legal = (1..=MAX_USER).contains(&text.len()) && !text.contains(char::is_control);
    legal.then(|| text.to_owned()).ok_or_else(|| {
        format!("expected the name of a user, at most {MAX_USER} bytes without control characters")
    })
}

fn statuses(r: &mut Reader<'_>, slot: Slot<'_>) -> Option<(u16, u16)> {
    if let DeValue::Integer(_) = slot.value.get_ref() {
        return r
            .integer(Some(slot), 200..=599)
            .map(|code| (code as u16, code as u16));
    }
    r.parsed(
        Some(slot),
        "\"2xx\", \"200\", \"200-299\" or 200",
        grammar::statuses,
    )
}

pub(super) fn warn_of_slowness(r: &mut Reader<'_>, table: &Table<'_>, check: &Check) {
    if check.timeout <= check.interval {
        return;
    }
    let Some(slot) = table.get("timeout").or(table.get("interval")) else {
        return;
    };
    let (timeout, interval) = (show_duration(check.timeout), show_duration(check.interval));
    r.findings.add(
        Finding::warning(
            slot.place(),
            format!("a check slower than its interval: it may take {timeout}, and comes every {interval}"),
        )
        .label("expected `timeout` at most as long as `interval`")
        .help(format!("write timeout = \"{interval}\", or a longer interval")),
    );
}
