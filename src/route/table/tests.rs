//! Tests each condition of a rule, and compares the table with a linear search.

use std::cell::Cell;

use proptest::prelude::*;
use regex::bytes::Regex;

use super::*;
use crate::route::Fields;
use crate::route::rule::{HostPattern, PathPattern, ValuePattern};

fn rule<T>(target: T) -> Rule<T> {
    Rule {
        hosts: Vec::new(),
        paths: Vec::new(),
        methods: Vec::new(),
        headers: Vec::new(),
        query: Vec::new(),
        clients: Vec::new(),
        target,
    }
}

/// Parses hosts as the configuration writes them, separated by commas.
fn host(text: &str) -> Vec<HostPattern> {
    let texts = text.split(',').filter(|text| !text.is_empty());
    texts
        .map(|text| match text.strip_prefix("*.") {
            Some(domain) => HostPattern::Under(domain.to_owned()),
            None => HostPattern::Exact(text.to_owned()),
        })
        .collect()
}

/// Parses paths as the configuration writes them, separated by commas; `~` begins a regular expression.
fn path(text: &str) -> Vec<PathPattern> {
    if let Some(regex) = text.strip_prefix('~') {
        return vec![PathPattern::Regex(Regex::new(regex).unwrap())];
    }
    let texts = text.split(',').filter(|text| !text.is_empty());
    texts
        .map(
            |text| match (text.strip_suffix("/*"), text.strip_suffix('*')) {
                (Some(path), _) if !path.is_empty() => PathPattern::Below(path.to_owned()),
                (_, Some(prefix)) => PathPattern::Prefix(prefix.to_owned()),
                _ => PathPattern::Exact(text.to_owned()),
            },
        )
        .collect()
}

fn at(host_text: &str, path_text: &str) -> Rule<()> {
    Rule {
        hosts: host(host_text),
        paths: path(path_text),
        ..rule(())
    }
}

type FieldList<'a> = &'a [(&'a str, &'a str)];

fn request<'a>(host: &'a str, path: &'a str, fields: &'a FieldList<'a>) -> RequestView<'a> {
    RequestView {
        method: b"GET",
        host: host.as_bytes(),
        path: path.as_bytes(),
        query: None,
        client: "192.0.2.1".parse().ok(),
        fields,
    }
}

const NO_FIELDS: &FieldList<'static> = &(&[] as FieldList<'static>);

fn matches(rule: Rule<()>, request: &RequestView<'_>) -> bool {
    Table::new(vec![rule]).find(request).is_some()
}

#[test]
fn hosts_match() {
    for (pattern, asked, expected) in [
        ("example.com", "example.com", true),
        ("example.com", "a.example.com", false),
        ("example.com", "example.co", false),
        ("example.com", "", false),
        ("*.example.com", "a.example.com", true),
        ("*.example.com", "b.a.example.com", true),
        ("*.example.com", "example.com", false),
        ("*.example.com", ".example.com", false),
        ("*.example.com", "aexample.com", false),
        ("*.example.com", "a.example.com.org", false),
        ("*.example.com", "", false),
        ("*.com", "com", false),
        ("*.com", "a.b.com", true),
        ("a,*.b", "a", true),
        ("a,*.b", "a.b", true),
        ("a,*.b", "b", false),
        ("", "", true),
        ("", "anything", true),
    ] {
        let found = matches(at(pattern, ""), &request(asked, "/", NO_FIELDS));
        assert_eq!(found, expected, "{pattern} {asked}");
    }
}

#[test]
fn paths_match() {
    for (pattern, asked, expected) in [
        ("/v1", "/v1", true),
        ("/v1", "/v1/", false),
        ("/v1", "/V1", false),
        ("/v1", "/%761", false),
        ("/v1/*", "/v1/", true),
        ("/v1/*", "/v1/a/b", true),
        ("/v1/*", "/v1", true),
        ("/v1/*", "/v10", false),
        ("/v1/*", "/v", false),
        ("/v1*", "/v10", true),
        ("/v1//*", "/v1/", true),
        ("/v1//*", "/v1", false),
        ("/a,/b/*", "/a", true),
        ("/a,/b/*", "/b", true),
        ("/a,/b/*", "/b/c", true),
        ("/a,/b/*", "/a/c", false),
        ("/*", "/", true),
        ("/*", "*", false),
        ("*", "*", true),
        ("*", "/a", true),
        ("~^/v[0-9]+/", "/v12/x", true),
        ("~^/v[0-9]+/", "/a/v12/x", false),
        ("~v[0-9]+", "/a/v12/x", true),
        ("~[.]png$", "/a.png", true),
        ("~[.]png$", "/a.png/", false),
    ] {
        let found = matches(at("", pattern), &request("h", asked, NO_FIELDS));
        assert_eq!(found, expected, "{pattern} {asked}");
    }
    let mut bytes = request("h", "", NO_FIELDS);
    bytes.path = b"/\xff\xfe";
    assert!(matches(at("", "/*"), &bytes), "paths need not be UTF-8");
    assert!(matches(at("", "~^/(?-u:.)"), &bytes));
}

#[test]
fn methods_match() {
    let of = |methods: &[&str]| Rule {
        methods: methods.iter().map(|&method| method.to_owned()).collect(),
        ..rule(())
    };
    for (methods, asked, expected) in [
        (&["GET"][..], "GET", true),
        (&["GET"], "get", false),
        (&["GET"], "GETS", false),
        (&["GET", "HEAD"], "HEAD", true),
        (&["GET", "HEAD"], "POST", false),
        (&[], "BREW", true),
    ] {
        let asked = RequestView {
            method: asked.as_bytes(),
            ..request("h", "/", NO_FIELDS)
        };
        assert_eq!(matches(of(methods), &asked), expected, "{methods:?}");
    }
}

fn exactly(value: &str) -> ValuePattern {
    ValuePattern::Exact(value.to_owned())
}

#[test]
fn fields_match() {
    let sent: FieldList<'_> = &[("X-Canary", "0"), ("x-canary", "1"), ("Empty", "")];
    for (patterns, expected) in [
        (vec![("x-canary", exactly("1"))], true),
        (vec![("x-canary", exactly("0"))], true),
        (vec![("x-canary", exactly("2"))], false),
        (vec![("x-canary", exactly(""))], false),
        (vec![("empty", exactly(""))], true),
        (vec![("absent", exactly(""))], false),
        (vec![("empty", ValuePattern::Present(true))], true),
        (vec![("empty", ValuePattern::Present(false))], false),
        (vec![("absent", ValuePattern::Present(true))], false),
        (vec![("absent", ValuePattern::Present(false))], true),
        (
            vec![("x-canary", exactly("1")), ("empty", exactly("1"))],
            false,
        ),
        (
            vec![("x-canary", exactly("1")), ("empty", exactly(""))],
            true,
        ),
    ] {
        let headers: Vec<_> = patterns
            .into_iter()
            .map(|(name, pattern)| (name.to_owned(), pattern))
            .collect();
        let shown = format!("{headers:?}");
        let asked = request("h", "/", &sent);
        assert_eq!(
            matches(
                Rule {
                    headers,
                    ..rule(())
                },
                &asked
            ),
            expected,
            "{shown}"
        );
    }
}

#[test]
fn queries_match() {
    for (sent, name, pattern, expected) in [
        (Some("v=2"), "v", exactly("2"), true),
        (Some("v=1&v=2"), "v", exactly("2"), true),
        (Some("a=1&v=2&b"), "v", exactly("2"), true),
        (Some("vv=2"), "v", exactly("2"), false),
        (Some("v=22"), "v", exactly("2"), false),
        (Some("V=2"), "v", exactly("2"), false),
        (Some("v=%32"), "v", exactly("2"), false),
        (Some("%76=2"), "v", exactly("2"), false),
        (Some("v=2=3"), "v", exactly("2=3"), true),
        (Some("v=2;b=1"), "v", exactly("2"), false),
        (Some("v"), "v", exactly(""), true),
        (Some("v="), "v", exactly(""), true),
        (Some("v=&v=2"), "v", exactly(""), true),
        (Some("&&v=2&"), "v", exactly("2"), true),
        (Some(""), "v", exactly(""), false),
        (None, "v", exactly(""), false),
        (Some("v"), "v", ValuePattern::Present(true), true),
        (Some("vv"), "v", ValuePattern::Present(true), false),
        (Some("v=1"), "v", ValuePattern::Present(false), false),
        (Some(""), "v", ValuePattern::Present(false), true),
        (None, "v", ValuePattern::Present(false), true),
        (None, "v", ValuePattern::Present(true), false),
    ] {
        let shown = format!("{sent:?} {name} {pattern:?}");
        let asked = RequestView {
            query: sent.map(str::as_bytes),
            ..request("h", "/", NO_FIELDS)
        };
        let query = vec![(name.to_owned(), pattern)];
        assert_eq!(
            matches(Rule { query, ..rule(()) }, &asked),
            expected,
            "{shown}"
        );
    }
}

#[test]
fn clients_match() {
    for (networks, client, expected) in [
        (&["10.0.0.0/8"][..], "10.1.2.3", true),
        (&["10.0.0.0/8"], "11.0.0.1", false),
        (&["10.0.0.0/8"], "::1", false),
        (&["10.0.0.0/8", "fd00::/8"], "fd12::1", true),
        (&["192.0.2.7/32"], "192.0.2.7", true),
        (&["0.0.0.0/0"], "::1", false),
        (&[], "::1", true),
        // A client address that cannot be parsed.
        (&["0.0.0.0/0", "::/0"], "unknown", false),
        (&[], "unknown", true),
    ] {
        let clients = networks
            .iter()
            .map(|network| network.parse().unwrap())
            .collect();
        let asked = RequestView {
            client: client.parse().ok(),
            ..request("h", "/", NO_FIELDS)
        };
        assert_eq!(
            matches(
                Rule {
                    clients,
                    ..rule(())
                },
                &asked
            ),
            expected,
            "{networks:?} {client}"
        );
    }
}

#[test]
fn the_first_rule_wins_even_if_a_later_one_is_more_specific() {
    let table = Table::new(vec![
        at("*.example.com", "/static/*"),
        at("a.example.com", "/static/x"),
        at("", "~[.]png$"),
        at("a.example.com", ""),
        at("", "/static/*"),
        at("a.example.com", "/late"),
    ]);
    for (host, path, index) in [
        ("a.example.com", "/static/x", Some(0)),
        ("a.example.com", "/b.png", Some(2)),
        ("a.example.com", "/late", Some(3)),
        ("other", "/static/b.png", Some(2)),
        ("other", "/static/x", Some(4)),
        ("other", "/late", None),
    ] {
        let found = table
            .find(&request(host, path, NO_FIELDS))
            .map(|(index, ())| index);
        assert_eq!(found, index, "{host}{path}");
    }
    assert_eq!(table.rules().len(), 6);
    assert!(
        Table::<()>::new(Vec::new())
            .find(&request("a", "/", NO_FIELDS))
            .is_none()
    );
}

#[test]
fn more_prefixes_and_domains_may_be_nested_than_are_merged_at_a_time() {
    let long: String = "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".to_owned();
    let deep = "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.com";
    for wanted in 0..40usize {
        // From the longest to the shortest; all but one are for another method.
        let rules = (0..40).map(|n| Rule {
            hosts: host(&format!("*.{}", &deep[deep.len() - 3 - 2 * (n % 20)..])),
            paths: path(&format!("{}*", &long[..40 - n])),
            methods: if n == wanted {
                Vec::new()
            } else {
                vec!["PUT".to_owned()]
            },
            ..rule(())
        });
        let table = Table::new(rules.collect());
        let found = table
            .find(&request(deep, &long, NO_FIELDS))
            .map(|(index, ())| index);
        assert_eq!(found, Some(wanted));
    }
}

/// What [`Table::find`] has to find, condition by condition and without an index.
fn first_of_list(rules: &[Rule<()>], request: &RequestView<'_>) -> Option<usize> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (host, path) = (text(request.host), text(request.path));
    let parameters: Vec<(String, String)> = request.query.map_or(Vec::new(), |query| {
        text(query)
            .split('&')
            .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    });
    let holds = |values: Vec<String>, pattern: &ValuePattern| match pattern {
        ValuePattern::Exact(wanted) => values.contains(wanted),
        ValuePattern::Present(wanted) => values.is_empty() != *wanted,
    };
    rules.iter().position(|rule| {
        let mut hosts = rule.hosts.iter().map(|pattern| match pattern {
            HostPattern::Exact(wanted) => host == *wanted,
            HostPattern::Under(domain) => host
                .strip_suffix(&format!(".{domain}"))
                .is_some_and(|labels| !labels.is_empty()),
        });
        let mut paths = rule.paths.iter().map(|pattern| match pattern {
            PathPattern::Exact(wanted) => path == *wanted,
            PathPattern::Prefix(wanted) => path.starts_with(wanted),
            PathPattern::Below(wanted) => {
                path == *wanted || path.starts_with(&format!("{wanted}/"))
            }
            PathPattern::Regex(regex) => regex.is_match(path.as_bytes()),
        });
        (rule.hosts.is_empty() || hosts.any(|matches| matches))
            && (rule.paths.is_empty() || paths.any(|matches| matches))
            && (rule.methods.is_empty() || rule.methods.contains(&text(request.method)))
            && (rule.clients.is_empty()
                || rule
                    .clients
                    .iter()
                    .any(|net| net.contains(&request.client.unwrap())))
            && rule.headers.iter().all(|(name, pattern)| {
                let mut values = Vec::new();
                request.fields.any_value(name, &mut |value| {
                    values.push(text(value));
                    false
                });
                holds(values, pattern)
            })
            && rule.query.iter().all(|(name, pattern)| {
                let values = parameters.iter().filter(|(n, _)| n == name);
                holds(values.map(|(_, value)| value.clone()).collect(), pattern)
            })
    })
}

fn values() -> impl Strategy<Value = Vec<(String, ValuePattern)>> {
    let value = prop_oneof![
        "[12]?".prop_map(ValuePattern::Exact),
        any::<bool>().prop_map(ValuePattern::Present),
    ];
    // Most rules have no such condition.
    prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(("[xy]", value), 1..3)]
}

fn rules() -> impl Strategy<Value = Rule<()>> {
    let hosts = prop_oneof![2 => Just(String::new()), 3 => "[ab]([.][ab]){0,2}", 3 => "[*][.][ab]([.][ab]){0,2}",
        1 => "([*][.])?[ab],[ab]([.][ab]){0,2},([*][.])?[ab]"];
    let paths = prop_oneof![
        1 => Just(String::new()),
        3 => "(/[ab]{1,2}){1,3}",
        4 => "(/[ab]{0,2}){0,3}[*]",
        2 => "(/[ab]{0,2}){1,3}/[*]",
        1 => "(/[ab]{1,2}){1,2},(/[ab]){1,2}/[*],(/[ab]?){1,2}[*]",
        1 => prop::sample::select(vec!["~^/a", "~b$", "~/a/b", "~^(/a)*$"]).prop_map(str::to_owned),
    ];
    let methods = prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec("GET|PUT", 1..3)];
    let clients = prop_oneof![
        4 => Just(vec![]),
        1 => prop::collection::vec(prop::sample::select(vec!["10.0.0.0/8", "10.1.0.0/16", "::/0"]), 1..3),
    ];
    (hosts, paths, methods, values(), values(), clients).prop_map(
        |(hosts, paths, methods, headers, query, clients)| Rule {
            hosts: host(&hosts),
            paths: path(&paths),
            methods,
            headers,
            query,
            clients: clients
                .into_iter()
                .map(|network| network.parse().unwrap())
                .collect(),
            target: (),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_index_finds_what_a_linear_search_finds(
        rules in prop::collection::vec(rules(), 0..40),
        requests in prop::collection::vec(
            (
                "GET|PUT|get",
                "[.]?([ab]([.][ab]){0,3})?",
                "(/[ab]{0,2}){0,4}",
                prop::option::of("([xy](=[12]?)?(&[xy]=?[12]?)*)?"),
                prop::sample::select(vec!["10.0.0.1", "10.1.0.1", "192.0.2.1", "::1"]),
                prop::collection::vec(("[xyXY]", "[12]?"), 0..3),
            ),
            20,
        ),
    ) {
        let table = Table::new(rules);
        for (method, host, path, query, client, fields) in &requests {
            let fields: Vec<(&str, &str)> =
                fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let fields = fields.as_slice();
            let request = RequestView {
                method: method.as_bytes(),
                host: host.as_bytes(),
                path: path.as_bytes(),
                query: query.as_deref().map(str::as_bytes),
                client: client.parse().ok(),
                fields: &fields,
            };
            let found = table.find(&request).map(|(index, ())| index);
            prop_assert_eq!(found, first_of_list(table.rules(), &request), "{:?}", (method, host, path, query));
        }
    }
}

#[test]
fn a_path_is_ambiguous_if_a_normal_form_matches_another_rule() {
    let table = Table::new(vec![at("", "/admin/*"), at("", "/a/b"), at("", "/files/*")]);
    for (path, ambiguous) in [
        ("/admin/x", false),
        ("/admin", false),
        ("/x", false),
        ("/x/../admin/y", true),
        ("/x/%2e%2e/admin/y", true),
        ("/%61dmin/y", true),
        ("/%61dmin", true),
        ("/admin%2fy", true),
        ("/admin\\y", true),
        ("/admin%5cy", true),
        ("//admin/y", true),
        ("/admin/../x", true),
        ("/admin/..", true),
        ("/x/..;/admin/", true),
        ("/admin;v=1/y", true),
        ("/admin;v=1", true),
        ("/admin%3Bv=1", true),
        ("/;/admin/y", true),
        ("/;x/../y", true),
        ("/admin//y", false),
        ("/admin/%2F/y", false),
        ("/admin/a/../b", false),
        ("/admin/x;v=1/y", false),
        ("/admin/x%5Cy", false),
        ("/files/a%2Fb", false),
        ("/files/a%2Fb;c/%61//d", false),
        ("/files/a/../b", false),
        ("/files/a/..", false),
        ("/files/..", true),
        // Dot segments together with what splits segments.
        ("/files/a%2F../b", true),
        ("/files/a;v/../b", true),
        ("/x%2Fy//z/../w", true),
        ("/files/./a\\b", true),
        ("/files/%2e/a%5Cb", true),
        ("/files/...;a", false),
        ("/a/./b", true),
        ("/a//b", true),
        ("*", false),
    ] {
        assert_eq!(
            table.is_ambiguous(&request("a", path, NO_FIELDS)),
            ambiguous,
            "{path}"
        );
    }
    let without_paths = Table::new(vec![at("a", "")]);
    for path in ["/x/../y", "/x/..;/y", "/x%2F..%2Fy"] {
        assert!(!without_paths.is_ambiguous(&request("a", path, NO_FIELDS)));
    }
}

/// Counts how often rules read a field.
#[derive(Default)]
struct CountedFields(Cell<usize>);

impl Fields for CountedFields {
    fn any_value(&self, _: &str, each: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.0.set(self.0.get() + 1);
        each(b"")
    }
}

impl CountedFields {
    /// How often fields are read during `act`.
    fn count(&self, act: impl FnOnce()) -> usize {
        self.0.set(0);
        act();
        self.0.get()
    }
}

/// A path with all features but dot segments.
const ODDEST: &str = "/z//%2fq%5c\\%61%21y%3b";

#[test]
fn an_odd_path_costs_no_more_than_a_few_ordinary_ones_on_the_same_table() {
    let rule_with_field = |path_text: &str, value| Rule {
        headers: vec![("x".to_owned(), value)],
        ..at("", path_text)
    };
    for count in [1, 10, 100, 1000] {
        // Each rule reads the field first, then the path if it has a regular expression.
        for (pattern, value) in [
            ("/*", exactly("other")),
            ("~^/a/[a-z]+$", ValuePattern::Present(true)),
        ] {
            let rules = (0..count).map(|_| rule_with_field(pattern, value.clone()));
            let table = Table::new(rules.collect());
            let fields = CountedFields::default();
            let with = |path: &'static str| RequestView {
                path: path.as_bytes(),
                fields: &fields,
                ..request("a", "/", NO_FIELDS)
            };
            let ordinary = fields.count(|| assert!(table.find(&with("/ordinary")).is_none()));
            assert_eq!(ordinary, count);
            let odd = fields.count(|| assert_eq!(table.is_ambiguous(&with(ODDEST)), count > 1));
            let limit = STEPS + (LOOKUPS + 1) * ordinary;
            assert!(odd <= limit, "{odd} of {limit} on {count} times {pattern}");
            let few = fields.count(|| assert!(!table.is_ambiguous(&with("/a//%61%2f"))));
            assert_eq!(
                few,
                8 * count,
                "all subsets of three features are looked up"
            );
        }
    }
}

#[test]
fn nested_domains_and_prefixes_count_as_steps_even_if_no_rule_is_examined() {
    // The index decides every rule, and the first one matches before the others.
    let host_text = "a.".repeat(30) + "com";
    let rules = (0..30).flat_map(|domain| {
        let host_text = &host_text[2 * domain..];
        (0..ODDEST.len()).map(move |n| at(&format!("*.{host_text}"), &format!("{}*", &ODDEST[..n])))
    });
    let mut rules: Vec<Rule<()>> = rules.collect();
    rules.insert(0, at("", "/*"));
    let table = Table::new(rules);
    assert!(table.is_ambiguous(&request(&host_text, ODDEST, NO_FIELDS)));
    assert!(!table.is_ambiguous(&request(&host_text, "/z//%2fq", NO_FIELDS)));
    assert!(!table.is_ambiguous(&request("b", ODDEST, NO_FIELDS)));
}
