//! `[cluster.NAME]` and its backends.

use std::collections::HashMap;

use toml::Spanned;
use toml::de::{DeString, DeValue};

use super::check::check;
use super::gossip::discover;
use super::{CheckedTable, NamedValue, Reader, Setting, for_requests, http_version};
use crate::config::diagnostics::findings::{Finding, quoted};
use crate::config::draft::ClusterSpans;
use crate::config::schema::{BackendConfig, ClusterConfig};
use crate::config::sections::cluster::{BACKEND, CLUSTER, HASH_KEY, NAME_RESOLUTION};
use crate::config::sections::words::{self, NameAddresses, RetryCause};
use crate::config::span::TextSpan;
use crate::config::{addresses, grammar};
use crate::model::address::BackendAddress;
use crate::model::settings::{
    ClusterSettings, ClusterTimeouts, HashKey, OnUp, Policy, Resolve, Retry,
};

/// A cluster, whatever is wrong with it: its name is known, so nothing that uses it is reported as wrong too.
pub(super) fn cluster(
    r: &mut Reader<'_>,
    name: &Spanned<DeString<'_>>,
    value: &Spanned<DeValue<'_>>,
) -> (ClusterConfig, ClusterSpans) {
    let before = r.findings.errors();
    if let Err(label) = grammar::name(name.get_ref()) {
        let message = format!("{} is not a name for a cluster", quoted(name.get_ref()));
        r.error(name.span(), message, label);
    }
    let value = NamedValue::of_entry(name.get_ref(), "", value);
    let table = r.table_of(value, &CLUSTER);
    let table = table.unwrap_or_else(|| CheckedTable::empty(&CLUSTER, value.span()));
    http_version::require_1_1(r, table.value("http_version"));
    let config = ClusterConfig {
        name: name.get_ref().to_string(),
        backends: backends(r, table.get("backends")),
        discover: discover(r, table.get("discover")),
        settings: settings(r, &table),
    };
    warn_of_unused_hash(r, &table, config.settings.policy);
    warn_of_no_backup(r, table.value("on_up"), &config);
    warn_of_port(r, table.value("check"), &config);
    let spans = ClusterSpans {
        name: name.span(),
        backends: table.value("backends").map(|backends| backends.span()),
        discover: table.value("discover").map(|discover| discover.span()),
        for_requests: keys_for_requests(&table, &config.settings),
        whole: r.findings.errors() == before,
    };
    (config, spans)
}

pub(super) fn settings(r: &mut Reader<'_>, table: &CheckedTable<'_>) -> ClusterSettings {
    let timeouts_table = r.table_or_empty(table.get("timeouts"));
    let limits = r.table_or_empty(table.get("limits"));
    ClusterSettings {
        policy: r.word(table.get("policy")),
        hash_key: hash_key(r, table.value("hash_key")).unwrap_or_default(),
        hash_seed: r.number(table.get("hash_seed")),
        resolve: resolve(r, table.value("resolve")),
        check: check(r, table.get("check")),
        timeouts: timeouts(r, &timeouts_table),
        retry: retry(r, table.get("retry")),
        idle_connections: r.number(limits.get("idle_connections")),
        panic_threshold: panic_threshold(r, table.value("panic_threshold")),
        on_down: r.word(table.get("on_down")),
        on_up: r.word(table.get("on_up")),
    }
}

/// Warns of a check's port where a backend is a Unix socket, which has none.
fn warn_of_port(r: &mut Reader<'_>, check: Option<NamedValue<'_>>, config: &ClusterConfig) {
    let is_unix = |backend: &BackendConfig| matches!(backend.address, BackendAddress::Unix(_));
    if !config.backends.iter().any(is_unix) {
        return;
    }
    if let Some(DeValue::Table(entries)) = check.map(|check| check.get())
        && let Some(port) = entries.get("port")
    {
        r.warn_of_no_effect("port", &port.span(), "backends at Unix sockets");
    }
}

/// The keys of a cluster that have no effect where bytes are forwarded and not requests.
fn keys_for_requests(
    table: &CheckedTable<'_>,
    settings: &ClusterSettings,
) -> Vec<(String, TextSpan)> {
    let Some(entries) = table.entries else {
        return Vec::new();
    };
    let declared = for_requests::entries(&CLUSTER, entries).into_iter();
    let mut found: Vec<_> = declared
        .map(|(key, value)| (key.get_ref().to_string(), value.span()))
        .collect();
    found.extend(retries_for_requests(table));
    let by_request = settings.hash_key != HashKey::ClientIp;
    let hash_key = table.value("hash_key").filter(|_| by_request);
    found.extend(hash_key.map(|value| ("hash_key".to_owned(), value.span())));
    found
}

/// The entries of `retry.on` that only happen to requests.
fn retries_for_requests(table: &CheckedTable<'_>) -> Vec<(String, TextSpan)> {
    let retry = table.value("retry").map(|retry| retry.get());
    let on = match retry {
        Some(DeValue::Table(retry)) => retry.get("on").map(|on| on.get_ref()),
        _ => None,
    };
    let Some(DeValue::Array(entries)) = on else {
        return Vec::new();
    };
    let causes = entries.iter().filter_map(|entry| {
        let word = entry.get_ref().as_str()?;
        let cause: RetryCause = words::value(word)?;
        cause
            .is_for_requests()
            .then(|| (format!("on = \"{word}\""), entry.span()))
    });
    causes.collect()
}

/// A share, or `false` for never.
fn panic_threshold(r: &mut Reader<'_>, value: Option<NamedValue<'_>>) -> Option<f64> {
    let default = Some(0.0);
    let Some(value) = value else { return default };
    match value.get() {
        DeValue::Boolean(false) => None,
        DeValue::Boolean(true) => {
            let label = format!("expected {}", value.shape);
            r.error(value.span(), format!("{value} is true"), label);
            None
        }
        _ => r.ratio(value).or(default),
    }
}

fn warn_of_no_backup(r: &mut Reader<'_>, on_up: Option<NamedValue<'_>>, config: &ClusterConfig) {
    let Some(value) = on_up else { return };
    if config.settings.on_up == OnUp::Keep || config.backends.iter().any(|backend| backend.backup) {
        return;
    }
    r.warning(
        value.span(),
        format!("{value} without a backup"),
        "expected a backend with `backup = true`",
    );
}

/// `"10s"` or `{ every = "10s", addresses = "one" }`.
fn resolve(r: &mut Reader<'_>, value: Option<NamedValue<'_>>) -> Resolve {
    let is_table = |value: &NamedValue<'_>| matches!(value.get(), DeValue::Table(_));
    let table = value.filter(is_table);
    let table = table.and_then(|value| r.table_of(value, &NAME_RESOLUTION));
    let table = table.unwrap_or_else(|| CheckedTable::empty(&NAME_RESOLUTION, 0..0));
    // A single value is that of `every`.
    let mut every = table.get("every");
    every.value = every.value.or(value.filter(|value| !is_table(value)));
    Resolve {
        every: r.duration(every),
        one: r.word::<NameAddresses>(table.get("addresses")) == NameAddresses::One,
    }
}

fn warn_of_unused_hash(r: &mut Reader<'_>, table: &CheckedTable<'_>, policy: Policy) {
    let is_wrong = table.value("policy").is_some_and(|written| {
        let word = written.get().as_str();
        word.and_then(words::value::<Policy>).is_none()
    });
    if policy == Policy::ConsistentHash || is_wrong {
        return;
    }
    let keys = ["hash_key", "hash_seed"].into_iter();
    for value in keys.filter_map(|key| table.value(key)) {
        if r.marks.inherited.contains(&value.span().start) {
            continue;
        }
        r.findings.add(
            Finding::warning(value.span(), format!("{value} without consistent_hash"))
                .label(format!(
                    "the policy is {}, which does not use it",
                    policy.as_str()
                ))
                .help("write policy = \"consistent_hash\", or leave it out".to_owned()),
        );
    }
}

fn hash_key(r: &mut Reader<'_>, value: Option<NamedValue<'_>>) -> Option<HashKey> {
    let value = value?;
    match value.get() {
        DeValue::Table(_) => {}
        DeValue::String(_) => return r.word_value(value),
        _ => {
            r.wrong_type(&value, value.shape);
            return None;
        }
    }
    let table = r.table_of(value, &HASH_KEY)?;
    let header = r.parsed(table.value("header"), grammar::field_name);
    let cookie = r.parsed(table.value("cookie"), grammar::token);
    let query = r.parsed(table.value("query"), |text| match text {
        "" => Err("expected the name of a parameter".to_owned()),
        _ => Ok(text),
    });
    let count = table.entries.map_or(0, |entries| entries.len());
    if count != 1 {
        let message = format!("{value} has {count} entries");
        r.error(
            value.span(),
            message,
            "expected exactly one of `header`, `cookie` or `query`",
        );
    }
    header
        .map(HashKey::Header)
        .or(cookie.map(|name| HashKey::Cookie(name.to_owned())))
        .or(query.map(|name| HashKey::Query(name.to_owned())))
}

fn backends(r: &mut Reader<'_>, setting: Setting<'_>) -> Vec<BackendConfig> {
    let mut known: HashMap<BackendAddress, TextSpan> = HashMap::new();
    let backends = r.list(setting, |r, value| {
        let (backend, span) = backend(r, value)?;
        if let Some(first) = known.get(&backend.address) {
            r.findings.add(
                Finding::error(
                    span,
                    format!("backend \"{}\" is given twice", backend.address),
                )
                .label("expected each backend once in a cluster; a larger share is a `weight`")
                .related(first, "the first is"),
            );
            return None;
        }
        known.insert(backend.address.clone(), span);
        Some(backend)
    });
    backends.unwrap_or_default()
}

/// `"10.0.0.1:80"` or `{ address = "10.0.0.1:80", weight = 3 }`.
fn backend(r: &mut Reader<'_>, value: NamedValue<'_>) -> Option<(BackendConfig, TextSpan)> {
    let (table, address) = match value.get() {
        DeValue::Table(_) => {
            let table = r.table_of(value, &BACKEND)?;
            let address = r.required(&table, "address");
            (table, address)
        }
        _ => (CheckedTable::empty(&BACKEND, value.span()), Some(value)),
    };
    let weight = r.number(table.get("weight"));
    let backup = r.boolean(table.get("backup"));
    let backend = BackendConfig {
        address: r.parsed(address, addresses::backend)?,
        weight,
        backup,
    };
    Some((backend, address?.span()))
}

pub(super) fn timeouts(r: &mut Reader<'_>, table: &CheckedTable<'_>) -> ClusterTimeouts {
    ClusterTimeouts {
        connect: r.duration(table.get("connect")),
        response: r.duration(table.get("response")),
        body: r.duration(table.get("body")),
        idle: r.duration(table.get("idle")),
    }
}

fn retry(r: &mut Reader<'_>, setting: Setting<'_>) -> Retry {
    let table = r.table_or_empty(setting);
    let on = r.words(table.get("on"));
    Retry {
        attempts: r.number(table.get("attempts")),
        on_connect: on.contains(&RetryCause::Connect),
        on_reset: on.contains(&RetryCause::Reset),
        on_timeout: on.contains(&RetryCause::Timeout),
    }
}
