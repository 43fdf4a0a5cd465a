//! `[[listener]]`.

use std::net::IpAddr;

use ipnet::IpNet;
use toml::de::DeValue;

use super::answers::{errors, only_one, redirect, respond};
use super::{Reader, Slot, Table};
use crate::config::addresses;
use crate::config::diagnostics::findings::{Finding, quoted};
use crate::config::draft::ListenerPlaces;
use crate::config::grammar::name;
use crate::config::limits::TIMEOUT;
use crate::config::schema::ListenerConfig;
use crate::config::sections;
use crate::config::span::TextSpan;
use crate::model::address::{BindAddress, ListenAddress};
use crate::model::settings::{ListenerLimits, ListenerTimeouts, Protocol, TrustedProxies};

const PROTOCOLS: [(&str, Protocol); 2] = [("http", Protocol::Http), ("tcp", Protocol::Tcp)];
const KIB: u64 = 1 << 10;
pub(super) const BODY_BYTES: std::ops::RangeInclusive<u64> = 0..=1 << 50;

/// Addresses of one listener: each has the listener's routes.
const MAX_ADDRESSES: usize = 16;

/// A listener, once for each of its addresses.
pub(super) fn listener(
    r: &mut Reader<'_>,
    slot: Slot<'_>,
) -> Option<Vec<(ListenerConfig, ListenerPlaces)>> {
    let table = r.table(Some(slot), &sections::LISTENER)?;
    let expected = "such as \":8080\", \"127.0.0.1:8080\" or \"unix:/run/lb.sock\"";
    let address_slot = r.required(&table, "address", expected);
    let read = bound_to(r, address_slot, &format!("an address {expected}"));
    // Port 0 collides with nothing, so it can stand in for an address that could not be read.
    let free = || BindAddress::Tcp(ListenAddress::any(0));
    let address = read.first().map_or_else(free, |read| read.0.clone());
    let name_slot = table.get("name");
    let given_name = r.parsed(name_slot, "a name", name);
    let cluster = r.string(table.get("cluster"), "the name of a cluster");
    http_versions(r, table.get("http_versions"));
    let named = match name_slot {
        Some(_) => given_name.is_some(),
        None => !read.is_empty(),
    };
    only_one(r, &table);
    let redirect = redirect(r, table.get("redirect"));
    let respond = respond(r, table.get("respond"));
    let protocol = protocol(r, table.get("protocol")).unwrap_or_default();
    if protocol == Protocol::Tcp {
        look_at_tcp(r, &table);
    }
    let config = ListenerConfig {
        name: given_name.unwrap_or_else(|| address.to_string()),
        address,
        protocol,
        cluster: cluster.map(str::to_owned),
        answer: redirect.or(respond),
        errors: errors(r, table.get("errors")),
        trusted_proxies: trusted_proxies(r, table.get("trusted_proxies")),
        via: r.boolean(table.get("via")).unwrap_or_default(),
        expose_request_id: r
            .boolean(table.get("expose_request_id"))
            .unwrap_or_default(),
        timeouts: timeouts(r, table.get("timeouts")),
        limits: limits(r, table.get("limits")),
    };
    let place = |slot: Option<Slot<'_>>| slot.map_or(table.place.clone(), |slot| slot.place());
    let places = ListenerPlaces {
        header: table.place.clone(),
        name: place(name_slot.or(address_slot)),
        named,
        address: read
            .first()
            .map_or(place(address_slot), |read| read.1.clone()),
        sibling: false,
        cluster: table.get("cluster").map(|slot| slot.place()),
    };
    let siblings = read.into_iter().skip(1).map(|(address, place)| {
        let config = ListenerConfig {
            address,
            ..config.clone()
        };
        let places = ListenerPlaces {
            address: place,
            sibling: true,
            ..places.clone()
        };
        (config, places)
    });
    let siblings: Vec<_> = siblings.collect();
    Some(std::iter::once((config, places)).chain(siblings).collect())
}

/// One address or an array of them, each with its place.
fn bound_to(
    r: &mut Reader<'_>,
    slot: Option<Slot<'_>>,
    expected: &str,
) -> Vec<(BindAddress, TextSpan)> {
    let one = |r: &mut Reader<'_>, slot: Slot<'_>| {
        let address = r.parsed(Some(slot), expected, |text| addresses::listen(text, 8080))?;
        Some((address, slot.place()))
    };
    let Some(slot) = slot else { return Vec::new() };
    let DeValue::Array(entries) = slot.value.get_ref() else {
        return one(r, slot).into_iter().collect();
    };
    let read = r.filled_list(Some(slot), &format!("{expected}, or an array of them"), one);
    let mut known: Vec<(BindAddress, TextSpan)> = Vec::new();
    for (address, place) in read.unwrap_or_default() {
        match known.iter().find(|known| known.0 == address) {
            Some((_, first)) => r.findings.add(
                Finding::error(place, format!("address \"{address}\" is given twice"))
                    .label("expected each address once")
                    .related(first, "the first is"),
            ),
            None if known.len() < MAX_ADDRESSES => known.push((address, place)),
            None => {}
        }
    }
    if entries.len() > MAX_ADDRESSES {
        let message = format!("{slot} has {} entries", entries.len());
        let label = format!("expected at most {MAX_ADDRESSES}");
        r.error(slot.place(), message, label);
    }
    known
}

/// What has no effect on a tcp listener, and what it cannot do.
fn look_at_tcp(r: &mut Reader<'_>, table: &Table<'_>) {
    for key in sections::HTTP_LISTENER {
        let Some((key, value)) = table.entries.get_key_value(*key) else {
            continue;
        };
        let name = key.get_ref();
        if matches!(name.as_ref(), "redirect" | "respond") {
            let message = format!("`{name}` on a tcp listener");
            let label = "expected a `cluster`; only requests can be answered";
            r.error(value.span(), message, label);
        } else {
            r.warn_of_no_effect(name, &value.span(), "a tcp listener");
        }
    }
    for (name, keys) in [
        ("timeouts", sections::HTTP_LISTENER_TIMEOUTS),
        ("limits", sections::HTTP_LISTENER_LIMITS),
    ] {
        let inner = table.entries.get(name).map(|value| value.get_ref());
        let Some(DeValue::Table(inner)) = inner else {
            continue;
        };
        for key in keys.iter().filter_map(|key| inner.get_key_value(*key)) {
            r.warn_of_no_effect(key.0.get_ref(), &key.1.span(), "a tcp listener");
        }
    }
    look_at_tcp_trust(r, table);
}

/// Without requests trusted proxies are only those that `connections_per_client` leaves out.
fn look_at_tcp_trust(r: &mut Reader<'_>, table: &Table<'_>) {
    let limits = table.entries.get("limits").map(|value| value.get_ref());
    let limited = matches!(limits, Some(DeValue::Table(limits)) if limits.contains_key("connections_per_client"));
    if let Some(value) = table.entries.get("trusted_proxies").filter(|_| !limited) {
        let on = "a tcp listener without `connections_per_client`";
        r.warn_of_no_effect("trusted_proxies", &value.span(), on);
    }
}

/// `"http"` or `"tcp"`; of the words that other programs have for more, what they would be here.
fn protocol(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Option<Protocol> {
    let slot = slot?;
    let DeValue::String(text) = slot.value.get_ref() else {
        return r.word(Some(slot), &PROTOCOLS);
    };
    let help = match text.to_ascii_lowercase().as_str() {
        "https" | "wss" | "tls" | "ssl" => {
            "TLS is not supported yet; \"tcp\" passes it through to backends that speak it"
        }
        "h2" | "h2c" | "http2" | "http/2" | "grpc" => {
            "HTTP/2 is not supported yet; \"tcp\" passes it through to backends that speak it"
        }
        "ws" | "websocket" | "http1" | "http/1.1" | "http/1.0" => {
            "\"http\" is HTTP/1.1 with upgrades such as WebSocket"
        }
        "udp" => "UDP is not supported yet",
        _ => return r.word(Some(slot), &PROTOCOLS),
    };
    r.findings.add(
        Finding::error(slot.place(), format!("{slot} is \"{text}\""))
            .label("expected \"http\" or \"tcp\"")
            .help(help.to_owned()),
    );
    None
}

/// Networks that something is left to; `all` is what it means to leave it to every address.
pub(super) fn networks(r: &mut Reader<'_>, slot: Option<Slot<'_>>, all: &str) -> Vec<IpNet> {
    let expected = "an array of networks, such as [\"10.0.0.0/8\"]";
    let networks = r.list(slot, expected, |r, slot| narrow(r, slot, all));
    networks.unwrap_or_default()
}

/// A network, with a warning of one that is everybody.
fn narrow(r: &mut Reader<'_>, slot: Slot<'_>, all: &str) -> Option<IpNet> {
    let network = network(r, slot)?;
    if network.prefix_len() == 0 {
        let message = format!("{slot} is every address there is");
        r.warning(slot.place(), message, all);
    }
    Some(network)
}

fn trusted_proxies(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> TrustedProxies {
    let expected =
        "an array of networks, such as [\"10.0.0.0/8\"], and \"unix:\" for peers over Unix sockets";
    let mut trusted = TrustedProxies::default();
    let networks = r.list(slot, expected, |r, slot| {
        if matches!(slot.value.get_ref(), DeValue::String(text) if text == "unix:") {
            trusted.unix = true;
            return None;
        }
        narrow(r, slot, "so anyone may say for whom a request is made")
    });
    trusted.networks = networks.unwrap_or_default();
    trusted
}

/// A network, `"10.0.0.0/8"`, or a single address.
pub(super) fn network(r: &mut Reader<'_>, slot: Slot<'_>) -> Option<IpNet> {
    let expected = "a network such as \"10.0.0.0/8\" or \"fd00::/8\", or an address";
    let network = r.parsed(Some(slot), expected, |text| {
        let single = text.parse::<IpAddr>().map(IpNet::from);
        single
            .or_else(|_| text.parse::<IpNet>())
            .map_err(|_| format!("expected {expected}"))
    })?;
    let whole = network.trunc();
    if whole.addr() != network.addr() {
        let message = format!(
            "{slot} is {}, with bits behind the prefix",
            quoted(&network.to_string())
        );
        r.findings.add(
            Finding::warning(slot.place(), message)
                .label(format!("it means \"{whole}\""))
                .help(format!(
                    "write \"{whole}\", or \"{}\" for the one address",
                    network.addr()
                )),
        );
    }
    Some(whole)
}

fn timeouts(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> ListenerTimeouts {
    let default = ListenerTimeouts::default();
    let Some(table) = r.table(slot, &sections::LISTENER_TIMEOUTS) else {
        return default;
    };
    let mut read = |key, default| r.duration(table.get(key), TIMEOUT).unwrap_or(default);
    ListenerTimeouts {
        header: read("header", default.header),
        idle: read("idle", default.idle),
        request_body: read("request_body", default.request_body),
        write: read("write", default.write),
        tunnel: read("tunnel", default.tunnel),
    }
}

fn limits(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> ListenerLimits {
    let default = ListenerLimits::default();
    let Some(table) = r.table(slot, &sections::LISTENER_LIMITS) else {
        return default;
    };
    let header_bytes = r
        .size(table.get("header_bytes"), KIB..=KIB * KIB)
        .map_or(default.header_bytes, |bytes| bytes as usize);
    ListenerLimits {
        connections: r
            .integer(table.get("connections"), 1..=100_000_000)
            .map(|connections| connections as u32),
        connections_per_client: r
            .count_or_share(table.get("connections_per_client"), 1..=100_000_000),
        header_bytes,
        headers: r
            .integer(table.get("headers"), 1..=1000)
            .map_or(default.headers, |headers| headers as usize),
        // A target is part of its head, so a smaller head has a smaller default.
        uri_bytes: r
            .size(table.get("uri_bytes"), 16..=header_bytes as u64)
            .map_or(default.uri_bytes.min(header_bytes), |bytes| bytes as usize),
        body_bytes: r
            .size(table.get("body_bytes"), BODY_BYTES)
            .unwrap_or(default.body_bytes),
        trailer_bytes: r
            .size(table.get("trailer_bytes"), 0..=KIB * KIB)
            .map_or(default.trailer_bytes, |bytes| bytes as usize),
    }
}

fn http_versions(r: &mut Reader<'_>, slot: Option<Slot<'_>>) {
    r.filled_list(
        slot,
        "an array of versions, such as [\"1.1\"]",
        |r, slot| http_version(r, Some(slot)),
    );
}

/// Only `"1.1"` works so far, so there is nothing to keep.
pub(super) fn http_version(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Option<()> {
    r.parsed(slot, "\"1.1\", in quotes", |text| match text {
        "1.1" => Ok(()),
        "2" => Err("HTTP/2 is not supported yet; expected \"1.1\"".to_owned()),
        _ => Err("expected \"1.1\"".to_owned()),
    })
}
