//! `[gossip]`, a cluster's `discover`, and what a proxy and an agent both say of their place in the peer set.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use toml::de::DeValue;

use super::listener::networks;
use super::{Reader, Slot, Table};
use crate::config::diagnostics::findings::{Finding, quoted};
use crate::config::draft::GossipPlaces;
use crate::config::limits::MAX_KEYS;
use crate::config::member_rules::{self, Keys, Problem};
use crate::config::schema::GossipConfig;
use crate::config::secrets::SecretKind;
use crate::config::sections;
use crate::config::span::TextSpan;
use crate::model::address::BackendAddress;

/// Each announcement is held against all of them.
const MAX_CIDRS: usize = 64;
/// Likewise.
const MAX_REVOKED: usize = 1_000;
/// Stands in for an address that could not be read: one that no rule objects to.
pub(super) const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// What every member says of itself.
pub(super) struct Peer {
    /// If it could be read.
    pub address: Option<SocketAddr>,
    pub advertise: SocketAddr,
    pub seeds: Vec<BackendAddress>,
    pub label: String,
}

/// The configuration if it could be read, and its places if it is there at all.
pub(super) fn gossip(
    r: &mut Reader<'_>,
    slot: Option<Slot<'_>>,
) -> (Option<GossipConfig>, Option<GossipPlaces>) {
    let before = r.findings.errors();
    let Some(slot) = slot else {
        return (None, None);
    };
    let mut places = GossipPlaces {
        header: slot.place(),
        address: None,
        allow_cidrs: None,
        whole: false,
    };
    let Some(table) = r.table(Some(slot), &sections::GOSSIP) else {
        return (None, Some(places));
    };
    let peer = peer(r, &table);
    let cidrs = table.get("allow_cidrs");
    let keys = ring(r, &table);
    let token_keys = one_or_more(r, table.get("token_key"), SecretKind::Operator);
    let config = GossipConfig {
        key_files: match keys {
            "key_files" => key_files(r, table.get(keys)),
            _ => one_or_more(r, table.get(keys), SecretKind::Key),
        },
        token_keys,
        revoked: revoked(r, table.get("revoked")),
        allow_cidrs: networks(
            r,
            cidrs,
            "so whoever may announce may have requests sent anywhere",
        ),
        insecure_plaintext: plaintext(r, &table, keys),
        members_file: r.path(table.get("members_file")),
        address: peer.address.unwrap_or(NOWHERE),
        advertise: peer.advertise,
        seeds: peer.seeds,
        label: peer.label,
    };
    at_most(r, cidrs, MAX_CIDRS);
    let keys = Keys {
        name: keys,
        given: table.get(keys).is_some(),
        insecure_plaintext: config.insecure_plaintext,
    };
    report(
        r,
        &table,
        member_rules::of_member(config.address, config.advertise, &keys),
    );
    let address = peer.address.and(table.get("address"));
    places.address = address.map(|slot| slot.place());
    places.allow_cidrs = cidrs.map(|slot| slot.place());
    places.whole = r.findings.errors() == before;
    (Some(config), Some(places))
}

/// `{ gossip = "web" }`.
pub(super) fn discover(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Option<String> {
    let table = r.table(slot, &sections::DISCOVER)?;
    let expected = "the cluster that agents announce";
    let name = r.required(&table, "gossip", expected);
    r.parsed(name, expected, member_rules::name)
}

pub(super) fn peer(r: &mut Reader<'_>, table: &Table<'_>) -> Peer {
    let expected = "an address such as \"10.0.0.5:7946\"";
    let address = r.required(table, "address", expected);
    let address = r.parsed(address, expected, member_rules::member_address);
    let advertise = match table.get("advertise") {
        None => address,
        slot => r.parsed(slot, expected, member_rules::reachable_address),
    };
    let advertise = advertise.unwrap_or(NOWHERE);
    let expected = "an array of addresses, such as [\"10.0.0.6:7946\", \"seeds.internal:7946\"]";
    let mut known = HashMap::new();
    let seeds = r.list(table.get("seeds"), expected, |r, slot| {
        let expected = "an address such as \"10.0.0.6:7946\" or \"seeds.internal:7946\"";
        let seed = r.parsed(Some(slot), expected, member_rules::seed)?;
        let what = format!("seed \"{seed}\"");
        // All members may have the same list: the member leaves itself out.
        once(r, &mut known, seed, slot, &what)
    });
    Peer {
        address,
        advertise,
        seeds: seeds.unwrap_or_default(),
        label: r
            .parsed(
                table.get("label"),
                "a label, in quotes",
                member_rules::label,
            )
            .unwrap_or_default(),
    }
}

/// `insecure_plaintext`; `keys` is what seals otherwise.
pub(super) fn plaintext(r: &mut Reader<'_>, table: &Table<'_>, keys: &'static str) -> bool {
    let slot = table.get("insecure_plaintext");
    let insecure = r.boolean(slot).unwrap_or_default();
    if let (true, Some(slot), Some(_)) = (insecure, slot, table.get(keys)) {
        r.findings.add(
            Finding::warning(slot.place(), format!("{slot} beside `{keys}`"))
                .label("packets without a seal are accepted too")
                .help("leave it out as soon as every member has the key".to_owned()),
        );
    }
    insecure
}

/// Each at its key, or at the whole table where the key is left out.
pub(super) fn report(r: &mut Reader<'_>, table: &Table<'_>, problems: Vec<Problem>) {
    for problem in problems {
        let slot = table.get(problem.key);
        let place = slot.map_or(table.place.clone(), |slot| slot.place());
        r.findings.add(
            Finding::error(place, problem.message)
                .label(problem.expected)
                .help(problem.help),
        );
    }
}

/// The name under which the ring is given: `key_file`, or `key_files` as in the first version. Both are an error.
fn ring(r: &mut Reader<'_>, table: &Table<'_>) -> &'static str {
    let (one, many) = (table.get("key_file"), table.get("key_files"));
    if let (Some(one), Some(many)) = (one, many) {
        r.findings.add(
            Finding::error(many.place(), format!("{many} beside `key_file`"))
                .label("expected one of both")
                .related(&one.place(), "the other is here")
                .help("put all files into `key_file`, the one that seals first".to_owned()),
        );
    }
    if one.is_none() && many.is_some() {
        "key_files"
    } else {
        "key_file"
    }
}

/// A value, or a list: whichever is there.
fn one_or_more(r: &mut Reader<'_>, slot: Option<Slot<'_>>, kind: SecretKind) -> Vec<PathBuf> {
    match slot.map(|slot| slot.value.get_ref()) {
        Some(DeValue::Array(_)) => files(r, slot, kind),
        _ => r.secret(slot, kind).into_iter().collect(),
    }
}

/// Ids of tokens, or what they begin with.
fn revoked(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Vec<String> {
    let mut known = HashMap::new();
    let expected = "an array of ids of tokens, such as [\"4d578e3854036caf\"]";
    let ids = r.list(slot, expected, |r, slot| {
        let expected = "the id of a token, or 4 of its hexadecimal digits at the least";
        let id = r.parsed(Some(slot), expected, member_rules::token_id)?;
        let what = format!("id \"{id}\"");
        once(r, &mut known, id, slot, &what)
    });
    at_most(r, slot, MAX_REVOKED);
    ids.unwrap_or_default()
}

/// At most [`MAX_KEYS`], whatever the file says.
pub(super) fn key_files(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Vec<PathBuf> {
    files(r, slot, SecretKind::Key)
}

fn files(r: &mut Reader<'_>, slot: Option<Slot<'_>>, kind: SecretKind) -> Vec<PathBuf> {
    let (example, what) = match kind {
        SecretKind::Operator => ("operator.pub", "operator file"),
        SecretKind::Key | SecretKind::Token => ("gossip.key", "key file"),
    };
    let mut known = HashMap::new();
    // An empty array is refused: it is rather a ring that lost its last key than the wish for plaintext.
    let files = r.filled_list(
        slot,
        &format!("an array of files, such as [\"{example}\"]"),
        |r, slot| {
            let file = r.secret(Some(slot), kind)?;
            let shown = quoted(&file.display().to_string());
            once(r, &mut known, file, slot, &format!("{what} {shown}"))
        },
    );
    at_most(r, slot, MAX_KEYS);
    let mut files = files.unwrap_or_default();
    files.truncate(MAX_KEYS);
    files
}

/// The value, if it was not in the list before.
fn once<T: Clone + Eq + Hash>(
    r: &mut Reader<'_>,
    known: &mut HashMap<T, TextSpan>,
    value: T,
    slot: Slot<'_>,
    what: &str,
) -> Option<T> {
    if let Some(first) = known.get(&value) {
        r.findings.add(
            Finding::error(slot.place(), format!("{what} is given twice"))
                .label("expected each once")
                .related(first, "the first is"),
        );
        return None;
    }
    known.insert(value.clone(), slot.place());
    Some(value)
}

fn at_most(r: &mut Reader<'_>, slot: Option<Slot<'_>>, most: usize) {
    let Some(slot) = slot else { return };
    if let DeValue::Array(entries) = slot.value.get_ref()
        && entries.len() > most
    {
        let message = format!("{slot} has {} entries", entries.len());
        r.error(slot.place(), message, format!("expected at most {most}"));
    }
}
