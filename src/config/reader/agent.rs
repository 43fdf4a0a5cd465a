//! The file of an agent, with all keys at its top. It obeys the rules of the flags ([`crate::config::member_rules`]).

use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeTable;

use super::check::warn_of_slowness;
use super::gossip::{NOWHERE, peer_set, report};
use super::{CheckedTable, Reader};
use crate::config::diagnostics::findings::Finding;
use crate::config::member_rules::{name, reachable_address, word};
use crate::config::schema::{AgentConfig, LocalCheck};
use crate::config::secrets::SecretKind;
use crate::config::sections::agent::AGENT;

/// Reads a whole file.
pub(in crate::config) fn agent(r: &mut Reader<'_>, root: &Spanned<DeTable<'_>>) -> AgentConfig {
    let table = r.checked(root.get_ref(), 0..0, &AGENT);
    let config = settings(r, &table);
    report(r, &table, config.problems());
    config
}

/// Reads all keys. What stands for a wrong value breaks no rule, so that the error is reported once.
pub(super) fn settings(r: &mut Reader<'_>, table: &CheckedTable<'_>) -> AgentConfig {
    let cluster = r.required(table, "cluster");
    let cluster = r.parsed(cluster, name);
    let backend = r.required(table, "backend");
    let backend = r.parsed(backend, reachable_address);
    let (mut peer_set, _) = peer_set(r, table, "key_file");
    if peer_set.key_files.is_empty() && table.value("key_file").is_some() {
        // A wrong key, which has been reported, is not a missing one.
        peer_set.key_files.push(PathBuf::new());
    }
    AgentConfig {
        cluster: cluster.unwrap_or_else(|| "-".to_owned()),
        backend: backend.unwrap_or(NOWHERE),
        weight: r.number(table.get("weight")),
        zone: r.parsed(table.value("zone"), word).unwrap_or_default(),
        name: r.parsed(table.value("name"), name),
        build: r.parsed(table.value("build"), word).unwrap_or_default(),
        check: check(r, table),
        peer_set,
        token_file: r.secret(table.value("token_file"), SecretKind::Token),
        drain_timeout: r.duration(table.get("drain_timeout")),
        drain_delay: r.duration(table.get("drain_delay")),
        once: r.boolean(table.get("once")),
        level: r.word(table.get("level")),
    }
}

fn check(r: &mut Reader<'_>, table: &CheckedTable<'_>) -> Option<LocalCheck> {
    let [interval, timeout] = ["interval", "timeout"].map(|key| table.get(key));
    let [every, limit] = [interval, timeout].map(|setting| r.duration(setting));
    let Some(url) = table.value("check") else {
        for value in [interval, timeout]
            .iter()
            .filter_map(|setting| setting.value)
        {
            r.findings.add(
                Finding::warning(value.span(), format!("{value} without `check`"))
                    .label("the service is not checked")
                    .help(
                        "write check = \"http://127.0.0.1:8080/healthz\", or leave it out"
                            .to_owned(),
                    ),
            );
        }
        return None;
    };
    let mut local: LocalCheck = r.parsed(Some(url), str::parse)?;
    (local.check.interval, local.check.timeout) = (every, limit);
    warn_of_slowness(r, table, &local.check);
    Some(local)
}
