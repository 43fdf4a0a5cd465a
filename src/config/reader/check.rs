//! A cluster's `check`.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::patterns;
use super::{Reader, Slot, Table};
use crate::config::diagnostics::findings::Finding;
use crate::config::keys;
use crate::model::settings::{Check, CheckKind};
use crate::model::units::show_duration;

/// Of `interval` and `timeout`: a faster check is an attack, a slower one tells nothing.
pub(in crate::config) const PERIOD: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(86_400);
const INTERVAL: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(1);
/// Consecutive results that change a backend's state: by default for up and for down, and the legal range.
const RISE: u32 = 2;
const FALL: u32 = 3;
const RESULTS: RangeInclusive<u64> = 1..=100;

/// What is left out has its default, whether the table has one entry or all.
pub(super) fn check(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Option<Check> {
    let slot = slot?;
    let table = r.table(Some(slot), &keys::CHECK)?;
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

fn kind(r: &mut Reader<'_>, table: &Table<'_>) -> Option<CheckKind> {
    let (http, tcp) = (table.get("http"), table.get("tcp"));
    let (status, host) = (table.get("status"), table.get("host"));
    match (http, tcp) {
        (None, None) => {
            if r.whole {
                let label = "expected `http = \"/healthz\"` or `tcp = true` in it";
                r.error(
                    table.place.clone(),
                    "`check` does not say what it asks",
                    label,
                );
            }
        }
        (Some(_), Some(tcp)) => {
            r.error(
                tcp.place(),
                "`check` has `http` and `tcp`",
                "expected only one of them",
            );
        }
        (None, Some(_)) => {
            for slot in [status, host].into_iter().flatten() {
                let message = format!("{slot} in a tcp check");
                r.error(slot.place(), message, "expected only beside `http`");
            }
        }
        (Some(_), None) => {}
    }
    if let Some(slot) = tcp
        && r.boolean(tcp) == Some(false)
    {
        let label = "expected true; without a check, leave the whole `check` out";
        r.error(slot.place(), "`tcp` is false", label);
    }
    let status = r.filled_list(status, "an array such as [\"2xx\", 404]", statuses);
    let host = r.parsed(
        host,
        "a host such as \"web.internal\"",
        patterns::check_host,
    );
    if http.is_none() && tcp.is_some() {
        return Some(CheckKind::Tcp);
    }
    Some(CheckKind::Http {
        path: r.parsed(http, "a path such as \"/healthz\"", patterns::target)?,
        host,
        status: status.unwrap_or_else(|| vec![(200, 299)]),
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
        patterns::statuses,
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
