//! `[[route]]`: what it matches and what it does.

use std::collections::HashSet;

use ipnet::IpNet;
use toml::de::DeValue;

use super::answers::{errors, only_one, redirect, respond};
use super::listener::{BODY_BYTES, network};
use super::{Reader, Slot, Table};
use crate::config::diagnostics::findings::{Finding, quoted};
use crate::config::draft::RoutePlaces;
use crate::config::grammar::{self, RegexProblem};
use crate::config::limits::TIMEOUT;
use crate::config::schema::RouteConfig;
use crate::config::sections;
use crate::config::span::TextSpan;
use crate::model::route_action::RouteAction;
use crate::route::rule::{HostPattern, PathPattern, Rule, ValuePattern};

/// Pairs of a host and a path that one route may have.
const MAX_PAIRS: usize = 10_000;
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];

pub(super) fn route(r: &mut Reader<'_>, slot: Slot<'_>) -> Option<(RouteConfig, RoutePlaces)> {
    let before = r.findings.errors();
    let table = r.table(Some(slot), &sections::ROUTE)?;
    let listeners = listeners(r, table.get("listeners"));
    let (names, listener_places) = listeners.map(|l| l.into_iter().unzip()).unzip();
    let (host_texts, hosts): (Vec<_>, Vec<_>) = hosts(r, &table).into_iter().unzip();
    let (path_texts, paths): (Vec<_>, Vec<_>) = paths(r, &table).into_iter().unzip();
    bound_pairs(r, &table, hosts.len(), paths.len());
    let name = r.parsed(table.get("name"), "a name such as \"api\"", grammar::name);
    let config = RouteConfig {
        named: name.is_some(),
        name: name.unwrap_or_else(|| host_texts.join(",") + &path_texts.join(",")),
        listeners: names,
        rule: Rule {
            hosts,
            paths,
            methods: methods(r, table.get("method")),
            headers: value_patterns(r, table.get("header"), grammar::field_name),
            query: value_patterns(r, table.get("query"), parameter_name),
            clients: clients(r, table.get("client")),
            target: action(r, &table),
        },
        timeout: r.duration(table.get("timeout"), TIMEOUT),
        body_bytes: body_bytes(r, table.get("limits")),
        errors: errors(r, table.get("errors")),
        log: r.boolean(table.get("log")).unwrap_or(true),
    };
    let places = RoutePlaces {
        header: table.place.clone(),
        listeners: listener_places.unwrap_or_default(),
        cluster: table.get("cluster").map(|slot| slot.place()),
        whole: r.findings.errors() == before,
    };
    Some((config, places))
}

fn listeners(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Option<Vec<(String, TextSpan)>> {
    r.one_or_more(slot, |r, slot| {
        let name = r.string(Some(slot), "the name of a listener, or an array of them")?;
        Some((name.to_owned(), slot.place()))
    })
}

/// Each host, and its text.
fn hosts<'a>(r: &mut Reader<'_>, table: &Table<'a>) -> Vec<(&'a str, HostPattern)> {
    let expected = "a host such as \"api.example.com\", or an array of them";
    let hosts = r.one_or_more(table.get("host"), |r, slot| {
        r.parsed(Some(slot), expected, |text| {
            grammar::host(text).map(|pattern| (text, pattern))
        })
    });
    hosts.unwrap_or_default()
}

/// Each `path`, or the `path_regex`, and its text.
fn paths<'a>(r: &mut Reader<'_>, table: &Table<'a>) -> Vec<(&'a str, PathPattern)> {
    let (plain, regex) = (table.get("path"), table.get("path_regex"));
    if let (Some(plain), Some(regex)) = (&plain, &regex) {
        r.findings.add(
            Finding::error(regex.place(), "`path_regex` beside `path`")
                .label("expected one of the two")
                .related(&plain.place(), "`path` is"),
        );
    }
    let expected = "a path such as \"/v1/*\", or an array of them";
    let plain = r.one_or_more(plain, |r, slot| {
        let (text, pattern) = r.parsed(Some(slot), expected, |text| {
            grammar::path(text).map(|pattern| (text, pattern))
        })?;
        warn_of_star(r, &slot, text);
        warn_of_odd_form(r, &slot, text, &pattern);
        Some((text, pattern))
    });
    plain.unwrap_or_else(|| path_regex(r, regex).into_iter().collect())
}

/// Each host is indexed with each path.
fn bound_pairs(r: &mut Reader<'_>, table: &Table<'_>, hosts: usize, paths: usize) {
    if hosts.saturating_mul(paths) > MAX_PAIRS {
        r.error(
            table.place.clone(),
            format!("[[route]] has {hosts} hosts and {paths} paths"),
            format!("expected at most {MAX_PAIRS} pairs of a host and a path"),
        );
    }
}

/// A `*` that is not at the end is legal in a path, but nobody means it.
fn warn_of_star(r: &mut Reader<'_>, slot: &Slot<'_>, text: &str) {
    let body = text.strip_suffix('*').unwrap_or(text);
    if body.contains('*') {
        let message = format!("{slot} is {}", quoted(text));
        let finding = Finding::warning(slot.place(), message)
            .label("a `*` before the end stands for itself")
            .help("a pattern is written with `path_regex`".to_owned());
        r.findings.add(finding);
    }
}

/// A path that has other readings is refused by the data plane unless all of them take the same route.
fn warn_of_odd_form(r: &mut Reader<'_>, slot: &Slot<'_>, text: &str, pattern: &PathPattern) {
    if !pattern.is_normal() {
        let message = format!("{slot} is {}, which is not in normal form", quoted(text));
        let finding = Finding::warning(slot.place(), message)
            .label("a path of which a reading takes another route is refused with 400")
            .help(
                "write it without `%2F`, `%5C`, `\\`, `;`, `//`, dot segments, encoded letters and escapes in small letters"
                    .to_owned(),
            );
        r.findings.add(finding);
    }
}

fn path_regex<'a>(r: &mut Reader<'_>, slot: Option<Slot<'a>>) -> Option<(&'a str, PathPattern)> {
    let text = r.string(slot, "an expression such as \"^/v[0-9]+/\"")?;
    let slot = slot?;
    match grammar::path_regex(text) {
        Ok(regex) => Some((text, PathPattern::Regex(regex))),
        Err(RegexProblem { message, place }) => {
            let literal = r.text.get(slot.place()).unwrap_or_default();
            let as_written = !r.marks.expanded.contains(&slot.place().start);
            let within = place
                .filter(|_| as_written)
                .and_then(|place| within_literal(literal, &place));
            let place = within.map_or(slot.place(), |place| {
                let start = slot.place().start;
                start + place.start..start + place.end
            });
            r.error(place, format!("{slot} is not an expression"), message);
            None
        }
    }
}

/// Where a byte range of a string's value stands in its literal, if the literal has one line and no escapes but
/// those of two characters.
fn within_literal(literal: &str, range: &TextSpan) -> Option<TextSpan> {
    let quote = literal.chars().next()?;
    if !matches!(quote, '"' | '\'') || literal[1..].starts_with([quote, '\n']) {
        return None;
    }
    let (mut start, mut value_at) = (None, 0);
    let mut chars = literal.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if value_at == range.start {
            start = Some(at);
        }
        if value_at >= range.end {
            return Some(start?..at);
        }
        if quote == '"' && c == '\\' {
            let (_, escaped) = chars.next()?;
            if !matches!(escaped, '\\' | '"' | 'n' | 't' | 'r' | 'b' | 'f' | 'e') {
                return None;
            }
            value_at += 1;
        } else {
            value_at += c.len_utf8();
        }
    }
    None
}

fn methods(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Vec<String> {
    let methods = r.one_or_more(slot, |r, slot| {
        let expected = "a method such as \"GET\", or an array of them";
        let method = r.parsed(Some(slot), expected, grammar::token)?;
        let upper = method.to_ascii_uppercase();
        if upper != method && METHODS.contains(&upper.as_str()) {
            r.findings.add(
                Finding::warning(slot.place(), format!("{slot} is \"{method}\""))
                    .label("methods are case-sensitive, so this matches hardly anything")
                    .help(format!("did you mean \"{upper}\"?")),
            );
        }
        Some(method.to_owned())
    });
    methods.unwrap_or_default()
}

fn clients(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Vec<IpNet> {
    r.one_or_more(slot, network).unwrap_or_default()
}

fn parameter_name(text: &str) -> Result<String, String> {
    let legal = !text.is_empty() && !text.chars().any(char::is_control);
    legal
        .then(|| text.to_owned())
        .ok_or_else(|| "expected the name of a parameter".to_owned())
}

/// `{ "x-canary" = "1" }` or `{ "x-canary" = { present = true } }`.
fn value_patterns(
    r: &mut Reader<'_>,
    slot: Option<Slot<'_>>,
    name_of: impl Fn(&str) -> Result<String, String>,
) -> Vec<(String, ValuePattern)> {
    let Some(slot) = slot else { return Vec::new() };
    let DeValue::Table(entries) = slot.value.get_ref() else {
        r.wrong_type(&slot, "a table such as { \"x-canary\" = \"1\" }");
        return Vec::new();
    };
    let mut patterns = Vec::new();
    let mut names = HashSet::new();
    for (key, value) in entries {
        let written = key.get_ref().as_ref();
        match name_of(written) {
            Err(label) => {
                let message = format!("{} is not a name for {slot}", quoted(written));
                r.error(key.span(), message, label);
            }
            Ok(name) if !names.insert(name.clone()) => {
                let message = format!("{slot} names {} twice", quoted(&name));
                r.error(key.span(), message, "capitals do not count here");
            }
            Ok(name) => {
                let entry = Slot {
                    name: written,
                    entry: false,
                    value,
                };
                patterns.extend(value_pattern(r, entry).map(|pattern| (name, pattern)));
            }
        }
    }
    patterns
}

fn value_pattern(r: &mut Reader<'_>, slot: Slot<'_>) -> Option<ValuePattern> {
    if let DeValue::Table(_) = slot.value.get_ref() {
        let table = r.table(Some(slot), &sections::VALUE)?;
        let present = r.required(&table, "present", "true or false")?;
        return r.boolean(Some(present)).map(ValuePattern::Present);
    }
    let expected = "a value such as \"1\", or { present = true }";
    r.parsed(Some(slot), expected, grammar::field_value)
        .map(ValuePattern::Exact)
}

/// Exactly one of `cluster`, `redirect` and `respond`.
fn action(r: &mut Reader<'_>, table: &Table<'_>) -> RouteAction<String> {
    if !only_one(r, table) && r.whole {
        r.error(
            table.place.clone(),
            "[[route]] does nothing",
            "expected one of `cluster`, `redirect` or `respond` in it",
        );
    }
    let to_cluster = r.string(table.get("cluster"), "the name of a cluster");
    let redirect = redirect(r, table.get("redirect"));
    let respond = respond(r, table.get("respond"));
    let to_cluster = to_cluster.map(|name| RouteAction::Cluster(name.to_owned()));
    // Stands in where an error was reported; it names no cluster.
    let none = RouteAction::Respond {
        status: 200,
        fields: "".into(),
        page: None,
    };
    to_cluster.or(redirect).or(respond).unwrap_or(none)
}

/// `limits = { body_bytes = "1GiB" }`.
fn body_bytes(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Option<u64> {
    let table = r.table(slot, &sections::ROUTE_LIMITS)?;
    r.size(table.get("body_bytes"), BODY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_within_literals() {
        let at = |literal: &str, range: TextSpan| within_literal(literal, &range);
        assert_eq!(at("'^/v(1'", 3..4), Some(4..5));
        assert_eq!(at("\"^/v(1\"", 3..5), Some(4..6));
        assert_eq!(at(r#""\\d(1""#, 2..3), Some(4..5));
        assert_eq!(at("'é('", 2..3), Some(3..4));
        assert_eq!(at("'ab'", 2..2), Some(3..3));
        assert_eq!(at(r#""\u0041(""#, 1..2), None);
        assert_eq!(at("'''a('''", 1..2), None);
        assert_eq!(at("", 0..1), None);
    }
}
