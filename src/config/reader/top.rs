//! The top level, `[admin]` and `[log]`.

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Reader, Slot, Table, cluster, gossip, listener, route};
use crate::config::addresses;
use crate::config::diagnostics::Severity;
use crate::config::diagnostics::findings::{Finding, quoted};
use crate::config::draft::{Complete, Draft};
use crate::config::limits::{FROM_ZERO, LEVELS, MAX_PATTERNS};
use crate::config::schema::{AccessLog, Config, LogConfig, LogFormat};
use crate::config::sections;
use crate::config::span::TextSpan;
use crate::model::address::BindAddress;

const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

/// Reads a whole file.
pub(in crate::config) fn file(r: &mut Reader<'_>, root: &Spanned<DeTable<'_>>) -> Draft {
    let top = r.known(root.get_ref(), 0..0, &sections::TOP);
    let (listeners, listeners_whole) = sections(r, top.get("listener"), listener::listener);
    let (routes, routes_whole) = sections(r, top.get("route"), route::route);
    let (clusters, clusters_whole) = clusters(r, top.get("cluster"));
    if listeners.is_empty() && listeners_whole && r.whole {
        let label = "expected at least one [[listener]] with an `address`";
        r.error(0..0, "the file has no listener", label);
    }
    let (listeners, listener_places) = listeners.into_iter().flatten().unzip();
    let (routes, route_places) = routes.into_iter().unzip();
    let (clusters, cluster_places) = clusters.into_iter().unzip();
    defaults(r, top.get("defaults"));
    include(r, top.get("include"));
    let (admin, admin_place) = admin(r, top.get("admin")).unzip();
    let (gossip, gossip_places) = gossip::gossip(r, top.get("gossip"));
    let config = Config {
        workers: r
            .integer(top.get("workers"), 1..=1024)
            .map(|workers| workers as usize),
        drain_timeout: r
            .duration(top.get("drain_timeout"), FROM_ZERO)
            .unwrap_or(Duration::from_secs(30)),
        shutdown_delay: r
            .duration(top.get("shutdown_delay"), FROM_ZERO)
            .unwrap_or(Duration::ZERO),
        watch: r.boolean(top.get("watch")).unwrap_or(true),
        state_dir: r.directory(top.get("state_dir")),
        admin,
        log: log(r, top.get("log")),
        gossip,
        listeners,
        routes,
        clusters,
    };
    Draft {
        config,
        admin: admin_place,
        gossip: gossip_places,
        listeners: listener_places,
        routes: route_places,
        clusters: cluster_places,
        complete: Complete {
            listeners: listeners_whole,
            routes: routes_whole,
            clusters: clusters_whole,
        },
    }
}

/// `include`, whose files have been read: a pattern, or an array of them.
fn include(r: &mut Reader<'_>, slot: Option<Slot<'_>>) {
    let Some(slot) = slot else { return };
    let DeValue::Array(entries) = slot.value.get_ref() else {
        let expected = "a pattern such as \"sites/*.toml\", or an array of them";
        r.string(Some(slot), expected);
        return;
    };
    if entries.len() > MAX_PATTERNS {
        let message = format!("{slot} has {} entries", entries.len());
        r.error(
            slot.place(),
            message,
            format!("expected at most {MAX_PATTERNS}"),
        );
    }
    let expected = "an array of patterns, such as [\"sites/*.toml\"]";
    r.list(Some(slot), expected, |r, entry| {
        r.string(Some(entry), "a pattern such as \"sites/*.toml\"")
    });
}

/// `[defaults]`. What it says was given to each table that it is for, and is read there; here what nobody takes is read
/// too. Of warnings those that hold where it is taken are enough.
fn defaults(r: &mut Reader<'_>, slot: Option<Slot<'_>>) {
    let Some(table) = r.table(slot, &sections::DEFAULTS) else {
        return;
    };
    if let Some(slot) = table.get("listener") {
        alone(r, slot, |r, entries| {
            for key in sections::NOT_INHERITED {
                if let Some((key, _)) = entries.remove_entry(*key) {
                    let message = format!("`{}` in [defaults.listener]", key.get_ref());
                    r.error(key.span(), message, "expected in each [[listener]] alone");
                }
            }
            let address = Spanned::new(slot.place(), "address".into());
            let any = Spanned::new(slot.place(), DeValue::String(":0".into()));
            entries.insert(address, any);
            let value = Spanned::new(slot.place(), DeValue::Table(entries.clone()));
            listener::listener(
                r,
                Slot {
                    value: &value,
                    ..slot
                },
            );
        });
    }
    if let Some(slot) = table.get("cluster") {
        alone(r, slot, |r, entries| {
            let name = Spanned::new(slot.place(), "defaults".into());
            let value = Spanned::new(slot.place(), DeValue::Table(entries.clone()));
            cluster::cluster(r, &name, &value);
        });
    }
}

/// Keeps the errors of what `read` finds, and nothing else of it.
fn alone<'a>(
    r: &mut Reader<'_>,
    slot: Slot<'a>,
    read: impl FnOnce(&mut Reader<'_>, &mut DeTable<'a>),
) {
    let DeValue::Table(entries) = slot.value.get_ref() else {
        return r.wrong_type(&slot, "a table");
    };
    let quiet = r.findings.quiet();
    let before = std::mem::replace(&mut r.findings, quiet);
    let secrets = r.secrets.len();
    read(r, &mut entries.clone());
    r.secrets.truncate(secrets);
    let found = std::mem::replace(&mut r.findings, before);
    for finding in found.into_kept() {
        if finding.severity == Severity::Error {
            r.findings.add(finding);
        }
    }
}

/// Each table of `[[name]]`, and whether all of them were read without an error.
fn sections<'a, T>(
    r: &mut Reader<'_>,
    slot: Option<Slot<'a>>,
    mut read: impl FnMut(&mut Reader<'_>, Slot<'a>) -> Option<T>,
) -> (Vec<T>, bool) {
    let before = r.findings.errors();
    let read = match slot {
        Some(slot) if matches!(slot.value.get_ref(), DeValue::Table(_)) => {
            let header = format!("[[{}]]", slot.name);
            r.findings.add(
                Finding::error(slot.place(), format!("`{}` is a single table", slot.name))
                    .label(format!("expected {header}, with two brackets on each side"))
                    .help(format!("write {header}; there may be several")),
            );
            Vec::new()
        }
        slot => {
            let name = slot.map_or("", |slot| slot.name);
            let expected = format!("tables, each under its own [[{name}]]");
            r.list(slot, &expected, |r, slot| read(r, slot))
                .unwrap_or_default()
        }
    };
    (read, r.findings.errors() == before)
}

/// Each `[cluster.NAME]` in the order of the file.
fn clusters(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> (Vec<cluster::Read>, bool) {
    let before = r.findings.errors();
    let mut clusters = Vec::new();
    match slot.map(|slot| (slot, slot.value.get_ref())) {
        None => {}
        Some((_, DeValue::Table(entries))) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by_key(|(name, _)| name.span().start);
            clusters.extend(
                entries
                    .into_iter()
                    .map(|(name, value)| cluster::cluster(r, name, value)),
            );
        }
        Some((slot, value)) => r.findings.add(
            Finding::error(slot.place(), format!("`cluster` is {}", super::kind(value)))
                .label("expected tables, each under its own [cluster.NAME]")
                .help("write [cluster.NAME], with one bracket on each side".to_owned()),
        ),
    }
    (clusters, r.findings.errors() == before)
}

fn admin(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Option<(BindAddress, TextSpan)> {
    let table: Table<'_> = r.table(slot, &sections::ADMIN)?;
    let expected = "an address such as \"127.0.0.1:9900\" or \"unix:/run/lbproxy.sock\"";
    let slot = r.required(&table, "address", expected)?;
    let address = r.parsed(Some(slot), expected, addresses::admin)?;
    Some((address, slot.place()))
}

fn log(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> LogConfig {
    let table = r.table(slot, &sections::LOG);
    let slot = |key| table.as_ref().and_then(|table| table.get(key));
    let (level, format, access) = (slot("level"), slot("format"), slot("access"));
    let is_table = |slot: &Slot<'_>| matches!(slot.value.get_ref(), DeValue::Table(_));
    let (access, query) = match access.filter(is_table) {
        Some(table) => access_table(r, table),
        None => (access_word(r, access), None),
    };
    LogConfig {
        level: r.word(level, &LEVELS).unwrap_or_default(),
        format: r.word(format, &FORMATS).unwrap_or_default(),
        access: access.unwrap_or_default(),
        access_query: query.unwrap_or(true),
    }
}

/// `{ to = "stdout" }` or `{ file = "access.log" }`, each with `query`: where the access log goes, and whether it shows
/// queries.
fn access_table(r: &mut Reader<'_>, slot: Slot<'_>) -> (Option<AccessLog>, Option<bool>) {
    let Some(table) = r.table(Some(slot), &sections::ACCESS) else {
        return (None, None);
    };
    let query = r.boolean(table.get("query"));
    let access = match (table.get("to"), table.get("file")) {
        (Some(_), Some(file)) => {
            let label = "expected one of them: they say where the lines go";
            r.error(file.place(), "`file` beside `to`", label);
            None
        }
        (None, Some(file)) => r.path(Some(file)).map(AccessLog::File),
        (to, None) => {
            if to.is_none() && r.whole {
                let label = "expected `to = \"stdout\"` or `file = \"access.log\"` in it";
                r.error(slot.place(), "`access` has neither `to` nor `file`", label);
            }
            access_word(r, to)
        }
    };
    (access, query)
}

/// `"off"` or `"stdout"`, by itself or as `to`.
fn access_word(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Option<AccessLog> {
    let slot = slot?;
    let expected = match slot.name {
        "to" => "\"off\" or \"stdout\"",
        _ => "\"off\", \"stdout\" or { file = \"access.log\" }",
    };
    match slot.value.get_ref() {
        DeValue::String(text) if text != "off" && text != "stdout" => {
            let near = r.suggester.nearest(text, ["off", "stdout"]);
            let help = match near {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "a file is written { file = \"…\" }".to_owned(),
            };
            let message = format!("{slot} is {}", quoted(text));
            r.findings.add(
                Finding::error(slot.place(), message)
                    .label(format!("expected {expected}"))
                    .help(help),
            );
            None
        }
        _ => r.string(Some(slot), expected).map(|text| match text {
            "stdout" => AccessLog::Stdout,
            _ => AccessLog::Off,
        }),
    }
}
