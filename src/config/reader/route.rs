//! `[[route]]`: what it matches and what it does.

use std::collections::HashSet;

use toml::de::DeValue;

use super::answers::{at_most_one_action, errors, redirect, respond};
use super::listener::network;
use super::{CheckedTable, NamedValue, Reader};
use crate::config::diagnostics::findings::{Finding, quoted};
use crate::config::draft::RouteSpans;
use crate::config::grammar::{self, RegexProblem};
use crate::config::schema::RouteConfig;
use crate::config::sections::route::{ROUTE, VALUE};
use crate::config::span::TextSpan;
use crate::model::route_action::RouteAction;
use crate::route::rule::{HostPattern, PathPattern, Rule, ValuePattern};

/// Pairs of a host and a path that one route may have: each host is indexed with each path.
const MAX_PAIRS: usize = 10_000;
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];

pub(super) fn route(
    r: &mut Reader<'_>,
    value: NamedValue<'_>,
) -> Option<(RouteConfig, RouteSpans)> {
    let before = r.findings.errors();
    let table = r.table_of(value, &ROUTE)?;
    let listeners = listeners(r, &table);
    let (names, listener_spans) = listeners.map(|l| l.into_iter().unzip()).unzip();
    let (host_texts, hosts): (Vec<_>, Vec<_>) = hosts(r, &table).into_iter().unzip();
    let (path_texts, paths): (Vec<_>, Vec<_>) = paths(r, &table).into_iter().unzip();
    if hosts.len().saturating_mul(paths.len()) > MAX_PAIRS {
        let (hosts, paths) = (hosts.len(), paths.len());
        r.error(
            table.span.clone(),
            format!("[[route]] has {hosts} hosts and {paths} paths"),
            format!("expected at most {MAX_PAIRS} pairs of a host and a path"),
        );
    }
    let name = r.parsed(table.value("name"), grammar::name);
    let limits = r.table_or_empty(table.get("limits"));
    let config = RouteConfig {
        named: name.is_some(),
        name: name.unwrap_or_else(|| host_texts.join(",") + &path_texts.join(",")),
        listeners: names,
        rule: Rule {
            hosts,
            paths,
            methods: methods(r, &table),
            headers: value_patterns(r, table.value("header"), grammar::field_name),
            query: value_patterns(r, table.value("query"), grammar::parameter_name),
            clients: r
                .one_or_more(table.get("client"), network)
                .unwrap_or_default(),
            target: action(r, &table),
        },
        timeout: r.optional_duration(table.get("timeout")),
        body_bytes: r.optional_number(limits.get("body_bytes")),
        errors: errors(r, table.value("errors")),
        log: r.boolean(table.get("log")),
    };
    let spans = RouteSpans {
        header: table.span.clone(),
        listeners: listener_spans.unwrap_or_default(),
        cluster: table.value("cluster").map(|cluster| cluster.span()),
        whole: r.findings.errors() == before,
    };
    Some((config, spans))
}

fn listeners(r: &mut Reader<'_>, table: &CheckedTable<'_>) -> Option<Vec<(String, TextSpan)>> {
    r.one_or_more(table.get("listeners"), |r, value| {
        let name = r.string(Some(value))?;
        Some((name.to_owned(), value.span()))
    })
}

/// Each host with its text.
fn hosts<'a>(r: &mut Reader<'_>, table: &CheckedTable<'a>) -> Vec<(&'a str, HostPattern)> {
    let hosts = r.one_or_more(table.get("host"), |r, value| {
        r.parsed(Some(value), |text| {
            grammar::host(text).map(|pattern| (text, pattern))
        })
    });
    hosts.unwrap_or_default()
}

/// Each `path`, or the `path_regex`, with its text.
fn paths<'a>(r: &mut Reader<'_>, table: &CheckedTable<'a>) -> Vec<(&'a str, PathPattern)> {
    let (plain, regex) = (table.value("path"), table.value("path_regex"));
    if let (Some(plain), Some(regex)) = (&plain, &regex) {
        r.findings.add(
            Finding::error(regex.span(), "`path_regex` beside `path`")
                .label("expected one of the two")
                .related(&plain.span(), "`path` is"),
        );
    }
    let plain = r.one_or_more(table.get("path"), |r, value| {
        let (text, pattern) = r.parsed(Some(value), |text| {
            grammar::path(text).map(|pattern| (text, pattern))
        })?;
        warn_of_star(r, &value, text);
        warn_of_odd_form(r, &value, text, &pattern);
        Some((text, pattern))
    });
    plain.unwrap_or_else(|| path_regex(r, regex).into_iter().collect())
}

/// Warns of a `*` that is not at the end, which is legal in a path but surely not meant.
fn warn_of_star(r: &mut Reader<'_>, value: &NamedValue<'_>, text: &str) {
    let body = text.strip_suffix('*').unwrap_or(text);
    if body.contains('*') {
        let message = format!("{value} is {}", quoted(text));
        let finding = Finding::warning(value.span(), message)
            .label("a `*` before the end stands for itself")
            .help("a pattern is written with `path_regex`".to_owned());
        r.findings.add(finding);
    }
}

/// Warns of a path that can be read in more than one way: the data plane refuses it unless all readings take the same
/// route.
fn warn_of_odd_form(r: &mut Reader<'_>, value: &NamedValue<'_>, text: &str, pattern: &PathPattern) {
    if !pattern.is_normal() {
        let message = format!("{value} is {}, which is not in normal form", quoted(text));
        let finding = Finding::warning(value.span(), message)
            .label("a path of which a reading takes another route is refused with 400")
            .help(
                "write it without `%2F`, `%5C`, `\\`, `;`, `//`, dot segments, encoded letters and lower-case escapes"
                    .to_owned(),
            );
        r.findings.add(finding);
    }
}

fn path_regex<'a>(
    r: &mut Reader<'_>,
    value: Option<NamedValue<'a>>,
) -> Option<(&'a str, PathPattern)> {
    let text = r.string(value)?;
    let value = value?;
    match grammar::path_regex(text) {
        Ok(regex) => Some((text, PathPattern::Regex(regex))),
        Err(RegexProblem { message, span }) => {
            let literal = r.text.get(value.span()).unwrap_or_default();
            let as_written = !r.marks.expanded.contains(&value.span().start);
            let within = span
                .filter(|_| as_written)
                .and_then(|span| within_literal(literal, &span));
            let span = within.map_or(value.span(), |span| {
                let start = value.span().start;
                start + span.start..start + span.end
            });
            r.error(span, format!("{value} is not an expression"), message);
            None
        }
    }
}

/// Where a byte range of a string's value is in its literal. Only for literals of one line whose escapes have two
/// characters.
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

fn methods(r: &mut Reader<'_>, table: &CheckedTable<'_>) -> Vec<String> {
    let methods = r.one_or_more(table.get("method"), |r, value| {
        let method = r.parsed(Some(value), grammar::token)?;
        let upper = method.to_ascii_uppercase();
        if upper != method && METHODS.contains(&upper.as_str()) {
            r.findings.add(
                Finding::warning(value.span(), format!("{value} is \"{method}\""))
                    .label("methods are case-sensitive, so this matches hardly anything")
                    .help(format!("did you mean \"{upper}\"?")),
            );
        }
        Some(method.to_owned())
    });
    methods.unwrap_or_default()
}

/// `{ "x-canary" = "1" }` or `{ "x-canary" = { present = true } }`.
fn value_patterns(
    r: &mut Reader<'_>,
    value: Option<NamedValue<'_>>,
    name_of: impl Fn(&str) -> Result<String, String>,
) -> Vec<(String, ValuePattern)> {
    let Some(value) = value else {
        return Vec::new();
    };
    let DeValue::Table(entries) = value.get() else {
        r.wrong_type(&value, value.shape);
        return Vec::new();
    };
    let mut patterns = Vec::new();
    let mut names = HashSet::new();
    for (key, entry) in entries {
        let written = key.get_ref().as_ref();
        match name_of(written) {
            Err(label) => {
                let message = format!("{} is not a name for {value}", quoted(written));
                r.error(key.span(), message, label);
            }
            Ok(name) if !names.insert(name.clone()) => {
                let message = format!("{value} names {} twice", quoted(&name));
                r.error(key.span(), message, "case does not matter here");
            }
            Ok(name) => {
                let shape = "a value such as \"1\", or { present = true }";
                let entry = NamedValue::of_entry(written, shape, entry);
                patterns.extend(value_pattern(r, entry).map(|pattern| (name, pattern)));
            }
        }
    }
    patterns
}

fn value_pattern(r: &mut Reader<'_>, value: NamedValue<'_>) -> Option<ValuePattern> {
    if let DeValue::Table(_) = value.get() {
        let table = r.table_of(value, &VALUE)?;
        let present = r.required(&table, "present")?;
        return r.boolean_value(Some(present)).map(ValuePattern::Present);
    }
    r.parsed(Some(value), grammar::field_value)
        .map(ValuePattern::Exact)
}

/// Exactly one of `cluster`, `redirect` and `respond`.
fn action(r: &mut Reader<'_>, table: &CheckedTable<'_>) -> RouteAction<String> {
    if !at_most_one_action(r, table) && r.whole {
        r.error(
            table.span.clone(),
            "[[route]] does nothing",
            "expected one of `cluster`, `redirect` or `respond` in it",
        );
    }
    let cluster = r.string(table.value("cluster"));
    let redirect = redirect(r, table.value("redirect"));
    let respond = respond(r, table.get("respond"));
    let cluster = cluster.map(|name| RouteAction::Cluster(name.to_owned()));
    // Stands in where an error was reported, and names no cluster.
    let none = RouteAction::Respond {
        status: 200,
        fields: "".into(),
        page: None,
    };
    cluster.or(redirect).or(respond).unwrap_or(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_within_literals() {
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
