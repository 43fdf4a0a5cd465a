//! The file of an agent: all keys at its top. Its rules are those of the flags ([`crate::config::member_rules`]).

use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::warn_of_slowness;
use super::gossip::{NOWHERE, key_files, peer, plaintext, report};
use super::{Reader, Slot, Table};
use crate::config::diagnostics::findings::Finding;
use crate::config::limits::{FROM_ZERO, LEVELS, PERIOD};
use crate::config::member_rules::{name, reachable_address, word};
use crate::config::schema::{AgentConfig, LocalCheck};
use crate::config::secrets::SecretKind;
use crate::config::sections;
use crate::gossip::record::MAX_WEIGHT;

/// Reads a whole file.
pub(in crate::config) fn agent(r: &mut Reader<'_>, root: &Spanned<DeTable<'_>>) -> AgentConfig {
    let table = r.known(root.get_ref(), 0..0, &sections::AGENT);
    let cluster = r.required(&table, "cluster", "the name that proxies discover");
    let cluster = r.parsed(cluster, "a name, in quotes", name);
    let expected = "an address such as \"10.0.0.7:8080\"";
    let backend = r.required(&table, "backend", expected);
    let backend = r.parsed(backend, expected, reachable_address);
    let peer = peer(r, &table);
    // What stands in for a wrong value breaks no rule, so that none is told twice.
    let default = AgentConfig::new(
        cluster.unwrap_or_else(|| "-".to_owned()),
        backend.unwrap_or(NOWHERE),
        peer.address.unwrap_or(NOWHERE),
    );
    let config = AgentConfig {
        weight: r
            .integer(table.get("weight"), 0..=u64::from(MAX_WEIGHT))
            .map_or(default.weight, |weight| weight as u16),
        zone: r
            .parsed(table.get("zone"), "a zone, in quotes", word)
            .unwrap_or_default(),
        name: r.parsed(table.get("name"), "a name, in quotes", name),
        build: r
            .parsed(table.get("build"), "a version, in quotes", word)
            .unwrap_or_default(),
        check: check(r, &table),
        advertise: peer.advertise,
        seeds: peer.seeds,
        label: peer.label,
        key_files: key_file(r, table.get("key_file")),
        token_file: r.secret(table.get("token_file"), SecretKind::Token),
        insecure_plaintext: plaintext(r, &table, "key_file"),
        drain_timeout: r
            .duration(table.get("drain_timeout"), FROM_ZERO)
            .unwrap_or(default.drain_timeout),
        drain_delay: r
            .duration(table.get("drain_delay"), FROM_ZERO)
            .unwrap_or(default.drain_delay),
        once: r.boolean(table.get("once")).unwrap_or_default(),
        level: r.word(table.get("level"), &LEVELS).unwrap_or_default(),
        ..default
    };
    report(r, &table, config.problems());
    config
}

/// One file, or an array of them.
fn key_file(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Vec<PathBuf> {
    let Some(slot) = slot else { return Vec::new() };
    let mut files = match slot.value.get_ref() {
        DeValue::Array(_) => key_files(r, Some(slot)),
        _ => r.secret(Some(slot), SecretKind::Key).into_iter().collect(),
    };
    if files.is_empty() {
        // A wrong one, which was told, is not one that is left out.
        files.push(PathBuf::new());
    }
    files
}

fn check(r: &mut Reader<'_>, table: &Table<'_>) -> Option<LocalCheck> {
    let [interval, timeout] = ["interval", "timeout"].map(|key| table.get(key));
    let given = [interval, timeout].map(|slot| r.duration(slot, PERIOD));
    let Some(slot) = table.get("check") else {
        for slot in [interval, timeout].into_iter().flatten() {
            r.findings.add(
                Finding::warning(slot.place(), format!("{slot} without `check`"))
                    .label("the service is not checked")
                    .help(
                        "write check = \"http://127.0.0.1:8080/healthz\", or leave it out"
                            .to_owned(),
                    ),
            );
        }
        return None;
    };
    let expected = "a URL such as \"http://127.0.0.1:8080/healthz\"";
    let mut local: LocalCheck = r.parsed(Some(slot), expected, str::parse)?;
    let [interval, timeout] = given;
    local.check.interval = interval.unwrap_or(local.check.interval);
    local.check.timeout = timeout.unwrap_or(local.check.timeout);
    warn_of_slowness(r, table, &local.check);
    Some(local)
}
