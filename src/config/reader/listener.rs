//! `[[listener]]`.

use std::net::IpAddr;

use ipnet::IpNet;
use toml::de::DeValue;

use super::answers::{at_most_one_action, errors, redirect, respond};
use super::{CheckedTable, NamedValue, Reader, Setting, for_requests, http_version};
use crate::config::diagnostics::findings::{Finding, quoted};
use crate::config::draft::ListenerSpans;
use crate::config::limits::MAX_ADDRESSES;
use crate::config::schema::ListenerConfig;
use crate::config::sections::listener::LISTENER;
use crate::config::span::TextSpan;
use crate::config::{addresses, grammar};
use crate::model::address::{BindAddress, ListenAddress};
use crate::model::settings::{ListenerLimits, ListenerTimeouts, Protocol, TrustedProxies};

/// A listener, once for each of its addresses.
pub(super) fn listener(
    r: &mut Reader<'_>,
    value: NamedValue<'_>,
) -> Option<Vec<(ListenerConfig, ListenerSpans)>> {
    let table = r.table_of(value, &LISTENER)?;
    r.required(&table, "address");
    let bound = addresses_of(r, table.get("address"));
    // Port 0 is never in use, so it can stand for an address that could not be read.
    let free = || BindAddress::Tcp(ListenAddress::any(0));
    let address = bound.first().map_or_else(free, |bound| bound.0.clone());
    let name = r.parsed(table.value("name"), grammar::name);
    let named = match table.value("name") {
        Some(_) => name.is_some(),
        None => !bound.is_empty(),
    };
    at_most_one_action(r, &table);
    let cluster = r.string(table.value("cluster"));
    let redirect = redirect(r, table.value("redirect"));
    let respond = respond(r, table.get("respond"));
    let protocol = protocol(r, table.get("protocol"));
    if protocol == Protocol::Tcp {
        check_tcp_keys(r, &table);
    }
    http_version::require_only_1_1(r, table.get("http_versions"));
    let config = ListenerConfig {
        name: name.unwrap_or_else(|| address.to_string()),
        address,
        protocol,
        cluster: cluster.map(str::to_owned),
        answer: redirect.or(respond),
        errors: errors(r, table.value("errors")),
        trusted_proxies: trusted_proxies(r, table.get("trusted_proxies")),
        via: r.boolean(table.get("via")),
        expose_request_id: r.boolean(table.get("expose_request_id")),
        timeouts: of_table(r, table.get("timeouts"), timeouts),
        limits: of_table(r, table.get("limits"), limits),
    };
    let name_key = match table.value("name") {
        Some(_) => "name",
        None => "address",
    };
    let spans = ListenerSpans {
        header: table.span.clone(),
        name: table.span_of(name_key),
        named,
        address: bound
            .first()
            .map_or_else(|| table.span_of("address"), |bound| bound.1.clone()),
        sibling: false,
        cluster: table.value("cluster").map(|cluster| cluster.span()),
    };
    let siblings = bound.into_iter().skip(1).map(|(address, span)| {
        let config = ListenerConfig {
            address,
            ..config.clone()
        };
        let spans = ListenerSpans {
            address: span,
            sibling: true,
            ..spans.clone()
        };
        (config, spans)
    });
    let siblings: Vec<_> = siblings.collect();
    Some(std::iter::once((config, spans)).chain(siblings).collect())
}

/// What `read` makes of a table, which may be absent.
pub(super) fn of_table<T>(
    r: &mut Reader<'_>,
    setting: Setting<'_>,
    read: impl FnOnce(&mut Reader<'_>, &CheckedTable<'_>) -> T,
) -> T {
    let table = r.table_or_empty(setting);
    read(r, &table)
}

/// One address or an array of them, each with its place.
fn addresses_of(r: &mut Reader<'_>, setting: Setting<'_>) -> Vec<(BindAddress, TextSpan)> {
    let read = r.one_or_more(setting, |r, value| {
        let address = r.parsed(Some(value), |text| addresses::listen(text, 8080))?;
        Some((address, value.span()))
    });
    let mut known: Vec<(BindAddress, TextSpan)> = Vec::new();
    for (address, span) in read.unwrap_or_default() {
        match known.iter().find(|known| known.0 == address) {
            Some((_, first)) => r.findings.add(
                Finding::error(span, format!("address \"{address}\" is given twice"))
                    .label("expected each address once")
                    .related(first, "the first is"),
            ),
            None if known.len() < MAX_ADDRESSES => known.push((address, span)),
            None => {}
        }
    }
    known
}

/// Reports what has no effect on a tcp listener, and what a tcp listener cannot do.
fn check_tcp_keys(r: &mut Reader<'_>, table: &CheckedTable<'_>) {
    let Some(entries) = table.entries else { return };
    for (key, value) in for_requests::entries(&LISTENER, entries) {
        let name = key.get_ref();
        if matches!(name.as_ref(), "redirect" | "respond") {
            let message = format!("`{name}` on a tcp listener");
            let label = "expected a `cluster`; only requests can be answered";
            r.error(value.span(), message, label);
        } else {
            r.warn_of_no_effect(name, &value.span(), "a tcp listener");
        }
    }
    // Without requests, trusted proxies are only what `connections_per_client` does not count.
    let limits = entries.get("limits").map(|value| value.get_ref());
    let limited = matches!(limits, Some(DeValue::Table(limits)) if limits.contains_key("connections_per_client"));
    if let Some(value) = table.value("trusted_proxies").filter(|_| !limited) {
        let on = "a tcp listener without `connections_per_client`";
        r.warn_of_no_effect("trusted_proxies", &value.span(), on);
    }
}

/// `"http"` or `"tcp"`. The words that other programs have for more get their own help.
fn protocol(r: &mut Reader<'_>, setting: Setting<'_>) -> Protocol {
    let text = setting.value.and_then(|value| value.get().as_str());
    let help = match text.unwrap_or_default().to_ascii_lowercase().as_str() {
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
        _ => return r.word(setting),
    };
    if let (Some(value), Some(text)) = (setting.value, text) {
        r.findings.add(
            Finding::error(value.span(), format!("{value} is \"{text}\""))
                .label("expected \"http\" or \"tcp\"")
                .help(help.to_owned()),
        );
    }
    Protocol::default()
}

/// Reads a list of networks. `all` is what the warning says of a network that contains every address.
pub(super) fn networks(r: &mut Reader<'_>, setting: Setting<'_>, all: &str) -> Vec<IpNet> {
    let networks = r.list(setting, |r, value| narrow(r, value, all));
    networks.unwrap_or_default()
}

/// A network, with a warning if it contains every address.
fn narrow(r: &mut Reader<'_>, value: NamedValue<'_>, all: &str) -> Option<IpNet> {
    let network = network(r, value)?;
    if network.prefix_len() == 0 {
        let message = format!("{value} contains every address");
        r.warning(value.span(), message, all);
    }
    Some(network)
}

fn trusted_proxies(r: &mut Reader<'_>, setting: Setting<'_>) -> TrustedProxies {
    let mut trusted = TrustedProxies::default();
    let networks = r.list(setting, |r, value| {
        if value.get().as_str() == Some("unix:") {
            trusted.unix = true;
            return None;
        }
        narrow(r, value, "so any client may say who it is")
    });
    trusted.networks = networks.unwrap_or_default();
    trusted
}

/// A network such as `"10.0.0.0/8"`, or a single address.
pub(super) fn network(r: &mut Reader<'_>, value: NamedValue<'_>) -> Option<IpNet> {
    let network = r.parsed(Some(value), |text| {
        let single = text.parse::<IpAddr>().map(IpNet::from);
        single.or_else(|_| text.parse::<IpNet>()).map_err(|_| {
            "expected a network such as \"10.0.0.0/8\" or \"fd00::/8\", or an address".to_owned()
        })
    })?;
    let whole = network.trunc();
    if whole.addr() != network.addr() {
        let message = format!(
            "{value} is {}, with bits after the prefix",
            quoted(&network.to_string())
        );
        r.findings.add(
            Finding::warning(value.span(), message)
                .label(format!("it means \"{whole}\""))
                .help(format!(
                    "write \"{whole}\", or \"{}\" for the one address",
                    network.addr()
                )),
        );
    }
    Some(whole)
}

pub(super) fn timeouts(r: &mut Reader<'_>, table: &CheckedTable<'_>) -> ListenerTimeouts {
    ListenerTimeouts {
        header: r.duration(table.get("header")),
        idle: r.duration(table.get("idle")),
        request_body: r.duration(table.get("request_body")),
        write: r.duration(table.get("write")),
        tunnel: r.duration(table.get("tunnel")),
    }
}

pub(super) fn limits(r: &mut Reader<'_>, table: &CheckedTable<'_>) -> ListenerLimits {
    let header_bytes: usize = r.number(table.get("header_bytes"));
    ListenerLimits {
        connections: r.optional_number(table.get("connections")),
        connections_per_client: r.count_or_share(table.get("connections_per_client")),
        header_bytes,
        headers: r.number(table.get("headers")),
        // A target is part of its head, so a smaller head has a smaller limit and a smaller default.
        uri_bytes: r.size_up_to(table.get("uri_bytes"), header_bytes as u64),
        body_bytes: r.number(table.get("body_bytes")),
        trailer_bytes: r.number(table.get("trailer_bytes")),
    }
}
