//! `[cluster.NAME]` and its backends.

use std::collections::HashMap;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::check::check;
use super::gossip::discover;
use super::listener::http_version;
use super::{Reader, Slot, Table, Value};
use crate::config::addresses;
use crate::config::diagnostics::findings::{Finding, quoted};
use crate::config::draft::ClusterPlaces;
use crate::config::grammar;
use crate::config::limits::TIMEOUT;
use crate::config::schema::{BackendConfig, ClusterConfig, Origin};
use crate::config::sections;
use crate::config::span::TextSpan;
use crate::model::address::BackendAddress;
use crate::model::settings::{
    ClusterSettings, ClusterTimeouts, HashKey, OnDown, OnUp, Policy, Resolve, Retry,
};

/// A cluster and its places.
pub(super) type Read = (ClusterConfig, ClusterPlaces);

const POLICIES: [(&str, Policy); 6] = [
    ("round_robin", Policy::RoundRobin),
    ("weighted", Policy::RoundRobin),
    ("least_connections", Policy::LeastConnections),
    ("consistent_hash", Policy::ConsistentHash),
    ("random", Policy::Random),
    ("power_of_two", Policy::PowerOfTwo),
];

const ON_DOWN: [(&str, OnDown); 3] = [
    ("keep", OnDown::Keep),
    ("close", OnDown::Close),
    ("drain", OnDown::Drain),
];

const ON_UP: [(&str, OnUp); 3] = [
    ("keep", OnUp::Keep),
    ("close_backups", OnUp::CloseBackups),
    ("stay", OnUp::Stay),
];

/// By default, and at the most.
const IDLE_CONNECTIONS: (usize, u64) = (256, 100_000);
/// Seeds are what a TOML integer holds, without its negative half.
const MAX_SEED: u64 = i64::MAX as u64;
/// Names are looked up ten times a second at the most.
const LEAST_RESOLVE: Duration = Duration::from_millis(100);

pub(super) fn cluster(r: &mut Reader<'_>, name: &Spanned<DeString<'_>>, value: &Value<'_>) -> Read {
    let before = r.findings.errors();
    if let Err(label) = grammar::name(name.get_ref()) {
        let message = format!("{} is not a name for a cluster", quoted(name.get_ref()));
        r.error(name.span(), message, label);
    }
    let slot = Slot {
        name: name.get_ref(),
        entry: false,
        value,
    };
    // Its name is known even if it is no table, so that those who use it are not told that it is missing.
    let empty = DeTable::new();
    let table = r.table(Some(slot), &sections::CLUSTER).unwrap_or(Table {
        entries: &empty,
        place: slot.place(),
        section: &sections::CLUSTER,
    });
    let policy = match table.get("policy") {
        None => Some(Policy::default()),
        slot => r.word(slot, &POLICIES),
    };
    if let Some(policy) = policy {
        warn_of_unused_hash(r, &table, policy);
    }
    http_version(r, table.get("http_version"));
    let config = ClusterConfig {
        name: name.get_ref().to_string(),
        backends: backends(r, table.get("backends")),
        discover: discover(r, table.get("discover")),
        settings: ClusterSettings {
            policy: policy.unwrap_or_default(),
            hash_key: hash_key(r, table.get("hash_key")).unwrap_or_default(),
            hash_seed: r
                .integer(table.get("hash_seed"), 0..=MAX_SEED)
                .unwrap_or_default(),
            resolve: resolve(r, table.get("resolve")),
            check: check(r, table.get("check")),
            timeouts: timeouts(r, table.get("timeouts")),
            retry: retry(r, table.get("retry")),
            idle_connections: idle_connections(r, table.get("limits")),
            panic_threshold: panic_threshold(r, table.get("panic_threshold")),
            on_down: word(r, table.get("on_down"), &ON_DOWN),
            on_up: word(r, table.get("on_up"), &ON_UP),
        },
    };
    warn_of_no_backup(r, table.get("on_up"), &config);
    warn_of_port(r, table.get("check"), &config);
    let places = ClusterPlaces {
        name: name.span(),
        backends: table.get("backends").map(|slot| slot.place()),
        discover: table.get("discover").map(|slot| slot.place()),
        http_only: http_only(&table, &config),
        whole: r.findings.errors() == before,
    };
    (config, places)
}

/// A Unix socket has no port that a check could take another of.
fn warn_of_port(r: &mut Reader<'_>, check: Option<Slot<'_>>, config: &ClusterConfig) {
    let is_unix = |backend: &BackendConfig| matches!(backend.address, BackendAddress::Unix(_));
    if !config.backends.iter().any(is_unix) {
        return;
    }
    if let Some(DeValue::Table(entries)) = check.map(|slot| slot.value.get_ref())
        && let Some(port) = entries.get("port")
    {
        r.warn_of_no_effect("port", &port.span(), "backends at Unix sockets");
    }
}

/// The keys that nothing looks at where bytes are forwarded and not requests.
fn http_only(table: &Table<'_>, config: &ClusterConfig) -> Vec<(String, TextSpan)> {
    let mut found = Vec::new();
    for (name, inner) in sections::HTTP_CLUSTER {
        match table.entries.get(*name).map(|v| (v.span(), v.get_ref())) {
            Some((place, _)) if inner.is_empty() => found.push(((*name).to_owned(), place)),
            Some((_, DeValue::Table(entries))) => {
                let entries = inner.iter().filter_map(|key| entries.get_key_value(*key));
                found.extend(entries.map(|(key, value)| (key.get_ref().to_string(), value.span())));
            }
            _ => {}
        }
    }
    found.extend(http_retries(table));
    let by_request = config.settings.hash_key != HashKey::ClientIp;
    let hash_key = table.get("hash_key").filter(|_| by_request);
    found.extend(hash_key.map(|slot| ("hash_key".to_owned(), slot.place())));
    found
}

/// The entries of `retry.on` that are for requests.
fn http_retries(table: &Table<'_>) -> Vec<(String, TextSpan)> {
    let retry = table.entries.get("retry").map(|retry| retry.get_ref());
    let on = match retry {
        Some(DeValue::Table(retry)) => retry.get("on").map(|on| on.get_ref()),
        _ => None,
    };
    let Some(DeValue::Array(entries)) = on else {
        return Vec::new();
    };
    let reasons = entries.iter().filter_map(|entry| {
        let reason = entry.get_ref().as_str()?;
        let of_http = sections::HTTP_RETRY_ON.contains(&reason);
        of_http.then(|| (format!("on = \"{reason}\""), entry.span()))
    });
    reasons.collect()
}

/// A word of a closed set, or the default.
fn word<T: Copy + Default>(r: &mut Reader<'_>, slot: Option<Slot<'_>>, words: &[(&str, T)]) -> T {
    match slot {
        None => T::default(),
        slot => r.word(slot, words).unwrap_or_default(),
    }
}

/// A share, or false.
fn panic_threshold(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Option<f64> {
    let default = Some(0.0);
    let Some(slot) = slot else { return default };
    if !matches!(slot.value.get_ref(), DeValue::Boolean(_)) {
        return r.ratio(Some(slot)).or(default);
    }
    if r.boolean(Some(slot)) == Some(true) {
        let label = "expected false, or a ratio from 0.0 to 1.0, or a share such as \"50%\"";
        r.error(slot.place(), format!("{slot} is true"), label);
    }
    None
}

fn warn_of_no_backup(r: &mut Reader<'_>, slot: Option<Slot<'_>>, config: &ClusterConfig) {
    let Some(slot) = slot else { return };
    if config.settings.on_up == OnUp::Keep || config.backends.iter().any(|backend| backend.backup) {
        return;
    }
    r.warning(
        slot.place(),
        format!("{slot} without a backup"),
        "expected a backend with `backup = true`",
    );
}

/// `"10s"` or `{ every = "10s", addresses = "one" }`.
fn resolve(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Resolve {
    let default = Resolve::default();
    let range = LEAST_RESOLVE..=*TIMEOUT.end();
    let is_table = |slot: &Slot<'_>| matches!(slot.value.get_ref(), DeValue::Table(_));
    if !slot.as_ref().is_some_and(is_table) {
        let every = r.duration(slot, range).unwrap_or(default.every);
        return Resolve { every, ..default };
    }
    let Some(table) = r.table(slot, &sections::RESOLVE) else {
        return default;
    };
    let addresses = [("all", false), ("one", true)];
    let one = match table.get("addresses") {
        None => None,
        slot => r.word(slot, &addresses),
    };
    Resolve {
        every: r
            .duration(table.get("every"), range)
            .unwrap_or(default.every),
        one: one.unwrap_or(default.one),
    }
}

fn warn_of_unused_hash(r: &mut Reader<'_>, table: &Table<'_>, policy: Policy) {
    if policy == Policy::ConsistentHash {
        return;
    }
    for slot in [table.get("hash_key"), table.get("hash_seed")]
        .into_iter()
        .flatten()
    {
        if r.marks.inherited.contains(&slot.place().start) {
            continue;
        }
        r.findings.add(
            Finding::warning(slot.place(), format!("{slot} without consistent_hash"))
                .label(format!(
                    "the policy is {}, which does not look at it",
                    policy.as_str()
                ))
                .help("write policy = \"consistent_hash\", or leave it out".to_owned()),
        );
    }
}

fn hash_key(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Option<HashKey> {
    let words = [
        ("client_ip", HashKey::ClientIp),
        ("path", HashKey::Path),
        ("uri", HashKey::Uri),
    ];
    let slot = slot?;
    match slot.value.get_ref() {
        DeValue::Table(_) => {}
        DeValue::String(_) => return r.word(Some(slot), &words),
        _ => {
            r.wrong_type(
                &slot,
                "\"client_ip\", \"path\", \"uri\" or a table such as { header = \"x-user\" }",
            );
            return None;
        }
    }
    let table = r.table(Some(slot), &sections::HASH_KEY)?;
    let header = r.parsed(
        table.get("header"),
        "the name of a field",
        grammar::field_name,
    );
    let cookie = r.parsed(table.get("cookie"), "the name of a cookie", grammar::token);
    let query = r.parsed(
        table.get("query"),
        "the name of a parameter",
        |text| match text {
            "" => Err("expected the name of a parameter".to_owned()),
            _ => Ok(text),
        },
    );
    if table.entries.len() != 1 {
        let message = format!("{slot} has {} entries", table.entries.len());
        r.error(
            slot.place(),
            message,
            "expected exactly one of `header`, `cookie` or `query`",
        );
    }
    header
        .map(HashKey::Header)
        .or(cookie.map(|name| HashKey::Cookie(name.to_owned())))
        .or(query.map(|name| HashKey::Query(name.to_owned())))
}

fn backends(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Vec<BackendConfig> {
    let expected = "an array of backends, such as [\"10.0.0.1:80\", { address = \"10.0.0.2:80\", weight = 3 }]";
    let mut known: HashMap<BackendAddress, TextSpan> = HashMap::new();
    let backends = r.list(slot, expected, |r, slot| {
        let (backend, place) = backend(r, slot)?;
        if let Some(first) = known.get(&backend.address) {
            r.findings.add(
                Finding::error(
                    place,
                    format!("backend \"{}\" is given twice", backend.address),
                )
                .label("expected each backend once in a cluster; a larger share is a `weight`")
                .related(first, "the first is"),
            );
            return None;
        }
        known.insert(backend.address.clone(), place);
        Some(backend)
    });
    backends.unwrap_or_default()
}

/// `"10.0.0.1:80"` or `{ address = "10.0.0.1:80", weight = 3 }`.
fn backend(r: &mut Reader<'_>, slot: Slot<'_>) -> Option<(BackendConfig, TextSpan)> {
    let expected = "an address such as \"10.0.0.1:80\" or \"web.internal:80\"";
    if !matches!(slot.value.get_ref(), DeValue::Table(_)) {
        let address = address(
            r,
            slot,
            &format!("{expected}, or {{ address = …, weight = … }}"),
        )?;
        let backend = BackendConfig {
            address,
            weight: 1,
            backup: false,
            origin: Origin::File,
        };
        return Some((backend, slot.place()));
    }
    let table = r.table(Some(slot), &sections::BACKEND)?;
    let weight = r.integer(table.get("weight"), 0..=1000);
    let backup = r.boolean(table.get("backup"));
    let slot = r.required(&table, "address", expected)?;
    let backend = BackendConfig {
        address: address(r, slot, expected)?,
        weight: weight.map_or(1, |weight| weight as u32),
        backup: backup.unwrap_or(false),
        origin: Origin::File,
    };
    Some((backend, slot.place()))
}

fn address(r: &mut Reader<'_>, slot: Slot<'_>, expected: &str) -> Option<BackendAddress> {
    r.parsed(Some(slot), expected, addresses::backend)
}

fn timeouts(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> ClusterTimeouts {
    let default = ClusterTimeouts::default();
    let Some(table) = r.table(slot, &sections::CLUSTER_TIMEOUTS) else {
        return default;
    };
    let mut read = |key, default| r.duration(table.get(key), TIMEOUT).unwrap_or(default);
    ClusterTimeouts {
        connect: read("connect", default.connect),
        response: read("response", default.response),
        body: read("body", default.body),
        idle: read("idle", default.idle),
    }
}

fn retry(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Retry {
    let default = Retry::default();
    let Some(table) = r.table(slot, &sections::RETRY) else {
        return default;
    };
    let reasons = [("connect", 0), ("reset", 1), ("timeout", 2)];
    let expected = "an array of \"connect\", \"reset\" and \"timeout\"";
    let on = r.list(table.get("on"), expected, |r, slot| {
        r.word(Some(slot), &reasons)
    });
    let has = |reason, default| on.as_ref().map_or(default, |on| on.contains(&reason));
    Retry {
        attempts: r
            .integer(table.get("attempts"), 1..=10)
            .map_or(default.attempts, |attempts| attempts as u32),
        on_connect: has(0, default.on_connect),
        on_reset: has(1, default.on_reset),
        on_timeout: has(2, default.on_timeout),
    }
}

fn idle_connections(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> usize {
    let (default, most) = IDLE_CONNECTIONS;
    let table = r.table(slot, &sections::CLUSTER_LIMITS);
    let slot = table.and_then(|table| table.get("idle_connections"));
    r.integer(slot, 0..=most)
        .map_or(default, |connections| connections as usize)
}
