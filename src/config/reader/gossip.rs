//! `[gossip]`, a cluster's `discover`, and the place in the peer set that a proxy and an agent both describe.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::listener::networks;
use super::{CheckedTable, NamedValue, Reader, Setting};
use crate::config::diagnostics::findings::{Finding, quoted};
use crate::config::draft::GossipSpans;
use crate::config::limits::MAX_KEYS;
use crate::config::member_rules::{self, Problem};
use crate::config::schema::GossipConfig;
use crate::config::secrets::SecretKind;
use crate::config::span::TextSpan;
use crate::model::peer_set::PeerSetSettings;

/// Stands for an address that could not be read. It breaks no rule, so that the error is reported once.
pub(super) const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// The configuration if it could be read, and its places if the section exists.
pub(super) fn gossip(
    r: &mut Reader<'_>,
    setting: Setting<'_>,
) -> (Option<GossipConfig>, Option<GossipSpans>) {
    let before = r.findings.errors();
    let Some(value) = setting.value else {
        return (None, None);
    };
    let mut spans = GossipSpans {
        header: value.span(),
        address: None,
        allow_cidrs: None,
        whole: false,
    };
    let Some(table) = r.table(setting) else {
        return (None, Some(spans));
    };
    let keys = key_of_keys(r, &table);
    let (peer_set, address) = peer_set(r, &table, keys);
    let config = GossipConfig {
        token_keys: secret_files(r, table.get("token_key"), SecretKind::Operator),
        revoked: revoked(r, table.get("revoked")),
        allow_cidrs: networks(
            r,
            table.get("allow_cidrs"),
            "so a member that may announce can have requests sent to any address",
        ),
        members_file: r.path(table.value("members_file")),
        peer_set,
    };
    let given = table.value(keys).is_some();
    let problems = member_rules::of_peer_set(&config.peer_set, keys, given);
    report(r, &table, problems);
    spans.address = address;
    spans.allow_cidrs = table.value("allow_cidrs").map(|value| value.span());
    spans.whole = r.findings.errors() == before;
    (Some(config), Some(spans))
}

/// `{ gossip = "web" }`.
pub(super) fn discover(r: &mut Reader<'_>, setting: Setting<'_>) -> Option<String> {
    let table = r.table(setting)?;
    let name = r.required(&table, "gossip");
    r.parsed(name, member_rules::name)
}

/// What every member says of itself, and where its address is if it could be read. `keys` is the key of the table that
/// names the files with keys.
pub(super) fn peer_set(
    r: &mut Reader<'_>,
    table: &CheckedTable<'_>,
    keys: &'static str,
) -> (PeerSetSettings, Option<TextSpan>) {
    let written = r.required(table, "address");
    let address = r.parsed(written, member_rules::member_address);
    let advertise = match table.value("advertise") {
        None => address,
        value => r.parsed(value, member_rules::reachable_address),
    };
    let mut known = HashMap::new();
    let seeds = r.list(table.get("seeds"), |r, value| {
        let seed = r.parsed(Some(value), member_rules::seed)?;
        let what = format!("seed \"{seed}\"");
        once(r, &mut known, seed, value, &what)
    });
    let config = PeerSetSettings {
        address: address.unwrap_or(NOWHERE),
        advertise: advertise.unwrap_or(NOWHERE),
        seeds: seeds.unwrap_or_default(),
        label: r
            .parsed(table.value("label"), member_rules::label)
            .unwrap_or_default(),
        key_files: secret_files(r, table.get(keys), SecretKind::Key),
        insecure_plaintext: plaintext(r, table, keys),
    };
    let span = written.map(|value| value.span());
    (config, span.filter(|_| address.is_some()))
}

/// `insecure_plaintext`, with a warning if there is a key.
fn plaintext(r: &mut Reader<'_>, table: &CheckedTable<'_>, keys: &'static str) -> bool {
    let setting = table.get("insecure_plaintext");
    let insecure = r.boolean(setting);
    if let (true, Some(value), Some(_)) = (insecure, setting.value, table.value(keys)) {
        r.findings.add(
            Finding::warning(value.span(), format!("{value} beside `{keys}`"))
                .label("packets that are not sealed are accepted too")
                .help("leave it out as soon as every member has the key".to_owned()),
        );
    }
    insecure
}

/// Reports each problem at its key, or at the whole table where the key is absent.
pub(super) fn report(r: &mut Reader<'_>, table: &CheckedTable<'_>, problems: Vec<Problem>) {
    for problem in problems {
        r.findings.add(
            Finding::error(table.span_of(problem.key), problem.message)
                .label(problem.expected)
                .help(problem.help),
        );
    }
}

/// The key that names the files with keys: `key_file`, or `key_files` as in the first version. Both are an error.
fn key_of_keys(r: &mut Reader<'_>, table: &CheckedTable<'_>) -> &'static str {
    let (one, many) = (table.value("key_file"), table.value("key_files"));
    if let (Some(one), Some(many)) = (one, many) {
        r.findings.add(
            Finding::error(many.span(), format!("{many} beside `key_file`"))
                .label("expected one of the two")
                .related(&one.span(), "the other is")
                .help("put all files into `key_file`, the one that seals first".to_owned()),
        );
    }
    match (one, many) {
        (None, Some(_)) => "key_files",
        _ => "key_file",
    }
}

/// Ids of tokens, or their beginnings.
fn revoked(r: &mut Reader<'_>, setting: Setting<'_>) -> Vec<String> {
    let mut known = HashMap::new();
    let ids = r.list(setting, |r, value| {
        let id = r.parsed(Some(value), member_rules::token_id)?;
        let what = format!("id \"{id}\"");
        once(r, &mut known, id, value, &what)
    });
    ids.unwrap_or_default()
}

/// One file or an array of them, at most [`MAX_KEYS`]. An empty array is refused: more likely a ring has lost its last
/// key than plaintext is wanted.
fn secret_files(r: &mut Reader<'_>, setting: Setting<'_>, kind: SecretKind) -> Vec<PathBuf> {
    let what = match kind {
        SecretKind::Operator => "operator file",
        SecretKind::Key | SecretKind::Token => "key file",
    };
    let mut known = HashMap::new();
    let mut read = |r: &mut Reader<'_>, value: NamedValue<'_>| {
        let file = r.secret(Some(value), kind)?;
        let shown = quoted(&file.display().to_string());
        once(r, &mut known, file, value, &format!("{what} {shown}"))
    };
    let files = match setting.key.name {
        "key_files" => r.filled_list(setting, &mut read),
        _ => r.one_or_more(setting, &mut read),
    };
    let mut files = files.unwrap_or_default();
    files.truncate(MAX_KEYS);
    files
}

/// The value, if the list does not have it yet.
fn once<T: Clone + Eq + Hash>(
    r: &mut Reader<'_>,
    known: &mut HashMap<T, TextSpan>,
    value: T,
    written: NamedValue<'_>,
    what: &str,
) -> Option<T> {
    if let Some(first) = known.get(&value) {
        r.findings.add(
            Finding::error(written.span(), format!("{what} is given twice"))
                .label("expected each once")
                .related(first, "the first is"),
        );
        return None;
    }
    known.insert(value.clone(), written.span());
    Some(value)
}
