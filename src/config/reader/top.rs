//! The top level of the file, `[admin]`, `[log]` and `[defaults]`.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{CheckedTable, NamedValue, Reader, Setting, cluster, gossip, listener, route};
use crate::config::addresses;
use crate::config::diagnostics::Severity;
use crate::config::diagnostics::findings::{Finding, quoted};
use crate::config::draft::{ClusterSpans, Complete, Draft};
use crate::config::schema::{AccessLog, ClusterConfig, Config, LogConfig};
use crate::config::sections::top::{ACCESS, TOP};
use crate::config::sections::{Inheritance, Section};
use crate::config::span::TextSpan;
use crate::model::address::BindAddress;

/// Reads a whole file.
pub(in crate::config) fn file(r: &mut Reader<'_>, root: &Spanned<DeTable<'_>>) -> Draft {
    let top = r.checked(root.get_ref(), 0..0, &TOP);
    let (listeners, listeners_whole) = tables(r, top.get("listener"), listener::listener);
    let (routes, routes_whole) = tables(r, top.get("route"), route::route);
    let (clusters, clusters_whole) = clusters(r, top.get("cluster"));
    if listeners.is_empty() && listeners_whole && r.whole {
        let label = "expected at least one [[listener]] with an `address`";
        r.error(0..0, "the file has no listener", label);
    }
    let (listeners, listener_spans) = listeners.into_iter().flatten().unzip();
    let (routes, route_spans) = routes.into_iter().unzip();
    let (clusters, cluster_spans) = clusters.into_iter().unzip();
    defaults(r, top.get("defaults"));
    // The files have been read; what is wrong with the patterns is reported here.
    r.one_or_more(top.get("include"), |r, pattern| r.string(Some(pattern)));
    let (admin, admin_span) = admin(r, top.get("admin")).unzip();
    let (gossip, gossip_spans) = gossip::gossip(r, top.get("gossip"));
    let config = Config {
        workers: r.optional_number(top.get("workers")),
        drain_timeout: r.duration(top.get("drain_timeout")),
        shutdown_delay: r.duration(top.get("shutdown_delay")),
        watch: r.boolean(top.get("watch")),
        state_dir: r.directory(top.value("state_dir")),
        admin,
        log: log(r, top.get("log")),
        gossip,
        listeners,
        routes,
        clusters,
    };
    Draft {
        config,
        admin: admin_span,
        gossip: gossip_spans,
        listeners: listener_spans,
        routes: route_spans,
        clusters: cluster_spans,
        complete: Complete {
            listeners: listeners_whole,
            routes: routes_whole,
            clusters: clusters_whole,
        },
    }
}

/// `[defaults]`. Its keys were copied to each table that takes them and are read there. Here they are read for errors
/// in keys that no table takes; warnings matter only where a key is taken.
fn defaults(r: &mut Reader<'_>, setting: Setting<'_>) {
    let table = r.table_or_empty(setting);
    let [listener, cluster] = ["listener", "cluster"].map(|name| table.get(name));
    if let (Some(value), Some(section)) = (listener.value, listener.section()) {
        only_errors(r, value, |r, entries| {
            refuse_own_keys(r, section, entries);
            let address = Spanned::new(value.span(), "address".into());
            let any = Spanned::new(value.span(), DeValue::String(":0".into()));
            entries.insert(address, any);
            let table = Spanned::new(value.span(), DeValue::Table(entries.clone()));
            let value = NamedValue {
                value: &table,
                ..value
            };
            listener::listener(r, value);
        });
    }
    if let Some(value) = cluster.value {
        only_errors(r, value, |r, entries| {
            let name = Spanned::new(value.span(), "defaults".into());
            let value = Spanned::new(value.span(), DeValue::Table(entries.clone()));
            cluster::cluster(r, &name, &value);
        });
    }
}

/// Reports the keys of a default that each table must have itself, and removes them.
fn refuse_own_keys(r: &mut Reader<'_>, section: &Section, entries: &mut DeTable<'_>) {
    let own = section.keys.iter();
    for key in own.filter(|key| key.inheritance == Inheritance::Never) {
        if let Some((key, _)) = entries.remove_entry(key.name) {
            let message = format!("`{}` in [defaults.listener]", key.get_ref());
            let label = format!("expected only in a {}", section.name);
            r.error(key.span(), message, label);
        }
    }
}

/// Keeps the errors of what `read` finds in a table, and nothing else.
fn only_errors<'a>(
    r: &mut Reader<'_>,
    value: NamedValue<'a>,
    read: impl FnOnce(&mut Reader<'_>, &mut DeTable<'a>),
) {
    let DeValue::Table(entries) = value.get() else {
        return r.wrong_type(&value, "a table");
    };
    let quiet = r.findings.quiet();
    let earlier = std::mem::replace(&mut r.findings, quiet);
    let secrets = r.secrets.len();
    read(r, &mut entries.clone());
    r.secrets.truncate(secrets);
    let found = std::mem::replace(&mut r.findings, earlier);
    for finding in found.into_kept() {
        if finding.severity == Severity::Error {
            r.findings.add(finding);
        }
    }
}

/// Each table of `[[name]]`, and whether all of them were read without an error.
fn tables<'a, T>(
    r: &mut Reader<'_>,
    setting: Setting<'a>,
    mut read: impl FnMut(&mut Reader<'_>, NamedValue<'a>) -> Option<T>,
) -> (Vec<T>, bool) {
    let before = r.findings.errors();
    let name = setting.key.name;
    let mut all = Vec::new();
    match setting.value.map(|value| (value, value.get())) {
        None => {}
        Some((value, DeValue::Array(entries))) => {
            let entries = entries.iter().map(|entry| NamedValue {
                is_entry: true,
                value: entry,
                ..value
            });
            all.extend(entries.filter_map(|entry| read(r, entry)));
        }
        Some((value, DeValue::Table(_))) => r.findings.add(
            Finding::error(value.span(), format!("`{name}` is a single table"))
                .label(format!(
                    "expected [[{name}]], with two brackets on each side"
                ))
                .help(format!("write [[{name}]]; there may be several")),
        ),
        Some((value, _)) => {
            r.not_an_array(&value, &format!("tables, each under its own [[{name}]]"))
        }
    }
    (all, r.findings.errors() == before)
}

/// Each `[cluster.NAME]` in the order of the file, and whether all of them were read without an error.
fn clusters(
    r: &mut Reader<'_>,
    setting: Setting<'_>,
) -> (Vec<(ClusterConfig, ClusterSpans)>, bool) {
    let before = r.findings.errors();
    let mut clusters = Vec::new();
    match setting.value.map(|value| (value, value.get())) {
        None => {}
        Some((_, DeValue::Table(entries))) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by_key(|(name, _)| name.span().start);
            let entries = entries.into_iter();
            clusters.extend(entries.map(|(name, value)| cluster::cluster(r, name, value)));
        }
        Some((value, other)) => r.findings.add(
            Finding::error(
                value.span(),
                format!("`cluster` is {}", super::type_name(other)),
            )
            .label("expected tables, each under its own [cluster.NAME]")
            .help("write [cluster.NAME], with one bracket on each side".to_owned()),
        ),
    }
    (clusters, r.findings.errors() == before)
}

fn admin(r: &mut Reader<'_>, setting: Setting<'_>) -> Option<(BindAddress, TextSpan)> {
    let table = r.table(setting)?;
    let address = r.required(&table, "address")?;
    let parsed = r.parsed(Some(address), addresses::admin)?;
    Some((parsed, address.span()))
}

fn log(r: &mut Reader<'_>, setting: Setting<'_>) -> LogConfig {
    let table = r.table_or_empty(setting);
    let access = table.value("access");
    let is_table = |value: &NamedValue<'_>| matches!(value.get(), DeValue::Table(_));
    let long = access.filter(is_table);
    let long = long.and_then(|value| r.table_of(value, &ACCESS));
    let access = match &long {
        Some(long) => destination(r, long),
        None => access_word(r, access),
    };
    let long = long.unwrap_or_else(|| CheckedTable::empty(&ACCESS, 0..0));
    LogConfig {
        level: r.word(table.get("level")),
        format: r.word(table.get("format")),
        access: access.unwrap_or_default(),
        access_query: r.boolean(long.get("query")),
    }
}

/// `to` or `file` of the long form of `access`.
fn destination(r: &mut Reader<'_>, table: &CheckedTable<'_>) -> Option<AccessLog> {
    match (table.value("to"), table.value("file")) {
        (Some(_), Some(file)) => {
            let label = "expected one of them: they say where the lines go";
            r.error(file.span(), "`file` beside `to`", label);
            None
        }
        (None, Some(file)) => r.path(Some(file)).map(AccessLog::File),
        (to, None) => {
            if to.is_none() && r.whole {
                let label = "expected `to = \"stdout\"` or `file = \"access.log\"` in it";
                r.error(
                    table.span.clone(),
                    "`access` has neither `to` nor `file`",
                    label,
                );
            }
            access_word(r, to)
        }
    }
}

/// `"off"` or `"stdout"`, by itself or as `to`.
fn access_word(r: &mut Reader<'_>, value: Option<NamedValue<'_>>) -> Option<AccessLog> {
    let text = r.string(value)?;
    let value = value?;
    match text {
        "off" => Some(AccessLog::Off),
        "stdout" => Some(AccessLog::Stdout),
        _ => {
            let near = r.suggester.nearest(text, ["off", "stdout"]);
            let help = match near {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "a file is written { file = \"…\" }".to_owned(),
            };
            let message = format!("{value} is {}", quoted(text));
            r.findings.add(
                Finding::error(value.span(), message)
                    .label(format!("expected {}", value.shape))
                    .help(help),
            );
            None
        }
    }
}
