//! A cluster's `check`.

use toml::de::DeValue;

use super::{CheckedTable, NamedValue, Reader, Setting};
use crate::config::diagnostics::findings::Finding;
use crate::config::grammar;
use crate::config::sections::cluster::{CHECK_DETAILS, CHECK_KINDS};
use crate::model::settings::{Check, CheckKind};
use crate::model::units::show_duration;

/// The statuses that an http check takes, as inclusive ranges.
type Statuses = Vec<(u16, u16)>;

pub(super) fn check(r: &mut Reader<'_>, setting: Setting<'_>) -> Option<Check> {
    let table = r.table(setting)?;
    let kind = kind(r, &table);
    let check = Check {
        interval: r.duration(table.get("interval")),
        timeout: r.duration(table.get("timeout")),
        rise: r.number(table.get("rise")),
        fall: r.number(table.get("fall")),
        port: r.optional_number(table.get("port")),
        kind: kind?,
    };
    warn_of_slowness(r, &table, &check);
    Some(check)
}

fn kind(r: &mut Reader<'_>, table: &CheckedTable<'_>) -> Option<CheckKind> {
    let asked = only_kind(r, table);
    if let Some(kind) = asked.filter(|kind| *kind != "http") {
        refuse_details(r, table, kind);
    }
    for key in ["tcp", "redis"] {
        if let Some(value) = table.value(key)
            && r.boolean_value(Some(value)) == Some(false)
        {
            let label = "expected true; without a check, leave the whole `check` out";
            r.error(value.span(), format!("`{key}` is false"), label);
        }
    }
    let status = statuses(r, table.get("status"));
    let host = r.parsed(table.value("host"), grammar::check_host);
    let path = r.parsed(table.value("http"), grammar::target);
    let send = r.string(table.value("send")).map(str::to_owned);
    let expect = r.parsed(table.value("expect"), grammar::expected_text);
    let [postgres, mysql] =
        ["postgres", "mysql"].map(|key| r.parsed(table.value(key), grammar::user_name));
    match asked? {
        "http" => Some(CheckKind::Http {
            path: path?,
            host,
            status,
            expect,
        }),
        "tcp" => Some(CheckKind::Tcp),
        "postgres" => Some(CheckKind::Postgres { user: postgres? }),
        "mysql" => Some(CheckKind::Mysql { user: mysql? }),
        "redis" => Some(CheckKind::Redis),
        _ => {
            if let (Some(send), None) = (table.value("send"), table.value("expect")) {
                let label = "expected `expect` beside it, with a text of the answer";
                r.error(send.span(), "`send` without `expect`", label);
            }
            Some(CheckKind::Exchange {
                send: send.unwrap_or_default(),
                expect: expect?,
            })
        }
    }
}

/// The one key that says what is asked. `send` and `expect` are one way of asking, and `expect` beside `http` belongs
/// to the body.
fn only_kind(r: &mut Reader<'_>, table: &CheckedTable<'_>) -> Option<&'static str> {
    let has = |key| table.value(key).is_some();
    let is_one = |key: &&str| match *key {
        "expect" => !has("http") && !has("send"),
        _ => true,
    };
    let mut given: Vec<(&'static str, NamedValue<'_>)> = CHECK_KINDS
        .into_iter()
        .filter(is_one)
        .filter_map(|key| Some((key, table.value(key)?)))
        .collect();
    // Of two the exchange is reported, since the other keys name a protocol.
    given.sort_by_key(|(key, _)| matches!(*key, "send" | "expect"));
    match given[..] {
        [(kind, _)] => Some(kind),
        [] => {
            if r.whole {
                let label = "expected `http = \"/healthz\"` or `tcp = true` in it, or one of `expect`, `postgres`, \
                             `mysql` and `redis`";
                r.error(
                    table.span.clone(),
                    "`check` does not say what it asks",
                    label,
                );
            }
            None
        }
        [(first, _), (second, ref value), ..] => {
            let message = format!("`check` has `{first}` and `{second}`");
            r.error(value.span(), message, "expected only one of them");
            None
        }
    }
}

/// Reports the keys that only an http check has a use for, in one of another kind.
fn refuse_details(r: &mut Reader<'_>, table: &CheckedTable<'_>, kind: &str) {
    let kind = match kind {
        "send" | "expect" => "tcp",
        kind => kind,
    };
    for value in CHECK_DETAILS.into_iter().filter_map(|key| table.value(key)) {
        let message = format!("{value} in a {kind} check");
        r.error(value.span(), message, "expected only beside `http`");
    }
}

fn statuses(r: &mut Reader<'_>, setting: Setting<'_>) -> Statuses {
    let read = r.filled_list(setting, |r, value| {
        if let DeValue::Integer(_) = value.get() {
            let code = r.integer_in(Some(value), &(200..=599));
            return code.map(|code| (code as u16, code as u16));
        }
        r.parsed(Some(value), grammar::statuses)
    });
    read.unwrap_or_else(|| vec![(200, 299)])
}

pub(super) fn warn_of_slowness(r: &mut Reader<'_>, table: &CheckedTable<'_>, check: &Check) {
    if check.timeout <= check.interval {
        return;
    }
    let Some(value) = table.value("timeout").or(table.value("interval")) else {
        return;
    };
    let (timeout, interval) = (show_duration(check.timeout), show_duration(check.interval));
    r.findings.add(
        Finding::warning(
            value.span(),
            format!("a check slower than its interval: it may take {timeout}, and is due every {interval}"),
        )
        .label("expected `timeout` at most as long as `interval`")
        .help(format!("write timeout = \"{interval}\", or a longer interval")),
    );
}
