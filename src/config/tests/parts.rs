//! Errors of routes and clusters, with their texts and places.

use super::{expect, report, report_of};

/// All diagnostics of a file whose cluster has `lines` from line 5 on.
fn report_of_cluster(lines: &str) -> Vec<String> {
    report(&format!(
        "[[listener]]\naddress = ':1'\ncluster = 'a'\n[cluster.a]\n{lines}\n"
    ))
}

#[track_caller]
fn expect_of_cluster(lines: &str, expected: &str) {
    let backends = "backends = ['a:1']\n";
    let reported = report_of_cluster(&format!("{backends}{lines}"));
    assert_eq!(reported.join("\n"), expected, "{lines}");
}

/// Compares the diagnostics of a route that responds, and has `line` as its third line, with `expected`.
#[track_caller]
fn expect_of_route(line: &str, expected: &str) {
    expect(&format!("[[route]]\nrespond = {{}}\n{line}"), expected);
}

#[test]
fn what_a_route_does() {
    expect(
        "[[route]]\npath = '/'",
        "1:1 error: [[route]] does nothing | expected one of `cluster`, `redirect` or `respond` in it",
    );
    expect(
        "[[route]]\ncluster = 'web'\nrespond = {}",
        "3:11 error: [[route]] has `cluster` and `respond` | expected only one of `cluster`, `redirect` or `respond`",
    );
    assert_eq!(
        report_of("[[route]]\nredirect = { to = 'https://{hsot}', status = 306 }"),
        [
            "2:19 error: `to` is \"https://{hsot}\" | expected \"{host}\", \"{uri}\", \"{path}\" or \"{query}\"; \
             did you mean \"{host}\"?",
            "2:46 error: `status` is 306 | expected 301, 302, 303, 307 or 308",
        ]
    );
    expect(
        "[[route]]\nredirect = {}",
        "2:12 error: `redirect` has no `to` | expected `to = …` in it, a URL such as \"https://{host}{uri}\"",
    );
    expect(
        "[[route]]\nrespond = { status = 199 }",
        "2:22 error: `status` is 199 | expected a whole number from 200 to 599",
    );
    let long = format!("[[route]]\nrespond = {{ body = '{}' }}", "a".repeat(65_537));
    expect(
        &long,
        "2:20 error: `body` has 65537 bytes | expected at most 65536",
    );
    expect_of_route(
        "timeout = 30",
        "3:11 error: `timeout` is a bare number | expected a duration with its unit, such as \"30s\" or \"30ms\"",
    );
}

#[test]
fn hosts_and_paths() {
    expect_of_route(
        "host = 'a:80'",
        "3:8 error: `host` is \"a:80\" | expected a host without a port, which does not matter",
    );
    expect_of_route(
        "host = 'a.'",
        "3:8 error: `host` is \"a.\" | expected a host without a dot at its end, which does not matter",
    );
    expect_of_route(
        "host = '*'",
        "3:8 error: `host` is \"*\" | expected a host; leave `host` out to match all",
    );
    expect_of_route(
        "host = 1",
        "3:8 error: `host` is an integer | expected a host such as \"api.example.com\", or an array of them",
    );
    expect_of_route(
        "host = ['a', 'b:80']",
        "3:14 error: an entry of `host` is \"b:80\" | expected a host without a port, which does not matter",
    );
    expect_of_route(
        "host = []",
        "3:8 error: `host` is an empty array | expected at least one entry; leave `host` out otherwise",
    );
    expect_of_route(
        "path = ['/', 'a']",
        "3:14 error: an entry of `path` is \"a\" | expected a path that begins with \"/\", or \"*\" for all paths",
    );
    expect_of_route(
        "name = ''",
        "3:8 error: `name` is \"\" | expected a name of 1 to 128 bytes without control characters",
    );
    expect_of_route(
        "path = 'a'",
        "3:8 error: `path` is \"a\" | expected a path that begins with \"/\", or \"*\" for all paths",
    );
    expect_of_route(
        "path = '/a?b=1'",
        "3:8 error: `path` is \"/a?b=1\" | expected a path without a query; parameters are matched by `query`",
    );
    expect_of_route(
        "path = '/a b'",
        "3:8 error: `path` is \"/a b\" | a request has this character only as \"%20\"",
    );
    expect_of_route(
        "path_regex = '^/v(1'",
        "3:18 error: `path_regex` is not an expression | unclosed group",
    );
    expect_of_route(
        "path_regex = \"^\\\\d/v(1\"",
        "3:21 error: `path_regex` is not an expression | unclosed group",
    );
    expect_of_route(
        "path_regex = '(a{1000}){1000}'",
        "3:14 error: `path_regex` is not an expression | the expression needs more than 1MiB when it is compiled",
    );
    expect_of_route(
        "path = '/'\npath_regex = '/'",
        "4:14 error: `path_regex` beside `path` | expected one of the two | `path` is 3:8",
    );
}

#[test]
fn methods_fields_and_clients() {
    expect_of_route(
        "method = 1",
        "3:10 error: `method` is an integer | expected a method such as \"GET\", or an array of them",
    );
    expect_of_route(
        "method = ['G T']",
        "3:11 error: an entry of `method` is \"G T\" | expected letters, digits or any of !#$%&'*+-.^_`|~",
    );
    expect_of_route(
        "client = []",
        "3:10 error: `client` is an empty array | expected at least one entry; leave `client` out otherwise",
    );
    expect_of_route(
        "header = 'x'",
        "3:10 error: `header` is a string | expected a table such as { \"x-canary\" = \"1\" }",
    );
    expect_of_route(
        "header = { X-A = '1', x-a = '2' }",
        "3:23 error: `header` names \"x-a\" twice | case does not matter here",
    );
    expect_of_route(
        "header = { 'x a' = '1' }",
        "3:12 error: \"x a\" is not a name for `header` | expected letters, digits or any of !#$%&'*+-.^_`|~",
    );
    expect_of_route(
        "header = { x-a = 1 }",
        "3:18 error: `x-a` is an integer | expected a value such as \"1\", or { present = true }",
    );
    expect_of_route(
        "header = { x-a = { presnt = true } }",
        "3:18 error: a pattern of `header` or `query` has no `present` | expected `present = …` in it, true or false\n\
         3:20 error: unknown key `presnt` in a pattern of `header` or `query` | expected `present` | \
         did you mean `present`?",
    );
    expect_of_route(
        "query = { a = { present = 1 } }",
        "3:27 error: `present` is an integer | expected true or false, without quotes",
    );
    expect_of_route(
        "query = { '' = '1' }",
        "3:11 error: \"\" is not a name for `query` | expected the name of a parameter",
    );
}

#[test]
fn policies() {
    expect_of_cluster(
        "policy = 'rond_robin'",
        "6:10 error: `policy` is \"rond_robin\" | expected \"round_robin\", \"weighted\", \"least_connections\", \
         \"consistent_hash\", \"random\" or \"power_of_two\" | did you mean \"round_robin\"?",
    );
    expect_of_cluster(
        "policy = 'maglev'",
        "6:10 error: `policy` is \"maglev\" | expected \"round_robin\", \"weighted\", \"least_connections\", \
         \"consistent_hash\", \"random\" or \"power_of_two\"",
    );
    let hash = "policy = 'consistent_hash'\nhash_key = ";
    expect_of_cluster(
        &format!("{hash}'client'"),
        "7:12 error: `hash_key` is \"client\" | expected \"client_ip\", \"path\" or \"uri\"",
    );
    expect_of_cluster(
        &format!("{hash}3"),
        "7:12 error: `hash_key` is an integer | \
         expected \"client_ip\", \"path\", \"uri\" or a table such as { header = \"x-user\" }",
    );
    expect_of_cluster(
        &format!("{hash}{{ header = 'a', cookie = 'b' }}"),
        "7:12 error: `hash_key` has 2 entries | expected exactly one of `header`, `cookie` or `query`",
    );
    expect_of_cluster(
        &format!("{hash}{{ query = '' }}"),
        "7:22 error: `query` is \"\" | expected the name of a parameter",
    );
    expect_of_cluster(
        "policy = 'consistent_hash'\nhash_seed = -1",
        "7:13 error: `hash_seed` is -1 | expected a whole number from 0 to 9223372036854775807",
    );
}

#[test]
fn backends() {
    let expect = |backends: &str, expected: &[&str]| {
        assert_eq!(
            report_of_cluster(&format!("backends = {backends}")),
            expected,
            "{backends}"
        );
    };
    expect(
        "'a:1'",
        &[
            "5:12 error: `backends` is a string | expected an array of backends, such as \
           [\"10.0.0.1:80\", { address = \"10.0.0.2:80\", weight = 3 }] | write ['a:1']",
        ],
    );
    expect(
        "['10.0.0.1', ':80', '10.0.0.1:0', '10.0.0.256:80', 3]",
        &[
            "5:13 error: an entry of `backends` is \"10.0.0.1\" | expected a port, as in \"10.0.0.1:8080\"",
            "5:25 error: an entry of `backends` is \":80\" | expected an address or a name before the port, as in \"10.0.0.1:80\"",
            "5:32 error: an entry of `backends` is \"10.0.0.1:0\" | \"0\" is not a port; expected a number from 1 to 65535",
            "5:46 error: an entry of `backends` is \"10.0.0.256:80\" | \
             \"10.0.0.256\" is neither an IP address nor a host name",
            "5:63 error: an entry of `backends` is an integer | expected an address such as \"10.0.0.1:80\" or \
             \"web.internal:80\", or { address = …, weight = … }",
        ],
    );
    expect(
        "[{ weight = 1001, backup = 'no' }]",
        &[
            "5:13 error: a backend has no `address` | expected `address = …` in it, \
             an address such as \"10.0.0.1:80\" or \"web.internal:80\"",
            "5:24 error: `weight` is 1001 | expected a whole number from 0 to 1000",
            "5:39 error: `backup` is a string | expected true or false, without quotes",
        ],
    );
    expect(
        "['Web:80', { address = 'web.:80' }]",
        &["5:35 error: backend \"web:80\" is given twice | \
           expected each backend once in a cluster; a larger share is a `weight` | the first is 5:13"],
    );
}

#[test]
fn checks() {
    expect_of_cluster(
        "check = '/healthz'",
        "6:9 error: `check` is a string | expected a table such as { http = \"/healthz\" } or { tcp = true } | \
         write check = { http = '/healthz' }",
    );
    expect_of_cluster(
        "check = {}",
        "6:9 error: `check` does not say what it asks | expected `http = \"/healthz\"` or `tcp = true` in it, or one of \
         `expect`, `postgres`, `mysql` and `redis`",
    );
    expect_of_cluster(
        "check = { http = '/', tcp = true }",
        "6:29 error: `check` has `http` and `tcp` | expected only one of them",
    );
    expect_of_cluster(
        "check = { tcp = false }",
        "6:17 error: `tcp` is false | expected true; without a check, leave the whole `check` out",
    );
    expect_of_cluster(
        "check = { tcp = true, host = 'a' }",
        "6:30 error: `host` in a tcp check | expected only beside `http`",
    );
    expect_of_cluster(
        "check = { redis = false }",
        "6:19 error: `redis` is false | expected true; without a check, leave the whole `check` out",
    );
    expect_of_cluster(
        "check = { postgres = 'lb', status = ['2xx'] }",
        "6:37 error: `status` in a postgres check | expected only beside `http`",
    );
    expect_of_cluster(
        "check = { send = 'PING' }",
        "6:18 error: `send` without `expect` | expected `expect` beside it, with a text of the answer",
    );
    expect_of_cluster(
        "check = { http = '/', send = 'PING', expect = 'x' }",
        "6:30 error: `check` has `http` and `send` | expected only one of them",
    );
    expect_of_cluster(
        "check = { tcp = true, expect = 'x' }",
        "6:32 error: `check` has `tcp` and `expect` | expected only one of them",
    );
    expect_of_cluster(
        "check = { expect = '' }",
        "6:20 error: `expect` is \"\" | expected at least one character",
    );
    expect_of_cluster(
        "check = { mysql = '' }",
        "6:19 error: `mysql` is \"\" | expected the name of a user, at most 128 bytes without control characters",
    );
    expect_of_cluster(
        "check = { http = 'healthz' }",
        "6:18 error: `http` is \"healthz\" | expected a path that begins with \"/\"",
    );
    expect_of_cluster(
        "check = { http = '/', status = ['2yx'] }",
        "6:33 error: an entry of `status` is \"2yx\" | expected \"2xx\", \"200\" or \"200-299\", from 200 to 599",
    );
    expect_of_cluster(
        "check = { http = '/', status = [99] }",
        "6:33 error: an entry of `status` is 99 | expected a whole number from 200 to 599",
    );
    expect_of_cluster(
        "check = { http = '/', interval = '9ms', timeout = '5ms' }",
        "6:34 error: `interval` is \"9ms\" | expected a duration from \"10ms\" to \"1d\"\n\
         6:51 error: `timeout` is \"5ms\" | expected a duration from \"10ms\" to \"1d\"",
    );
    expect_of_cluster(
        "check = { http = '/', rise = 0 }",
        "6:30 error: `rise` is 0 | expected a whole number from 1 to 100",
    );
    expect_of_cluster(
        "check = { http = '/', port = 0 }",
        "6:30 error: `port` is 0 | expected a whole number from 1 to 65535",
    );
    expect_of_cluster(
        "check = { http = '/', host = 'a b' }",
        "6:30 error: `host` is \"a b\" | expected a host, perhaps with a port, such as \"web.internal\"",
    );
}

#[test]
fn sessions_of_a_cluster() {
    expect_of_cluster(
        "panic_threshold = true",
        "6:19 error: `panic_threshold` is true | expected false, or a ratio from 0.0 to 1.0, or a share such as \"50%\"",
    );
    expect_of_cluster(
        "on_down = 'closed'",
        "6:11 error: `on_down` is \"closed\" | expected \"keep\", \"close\" or \"drain\" | did you mean \"close\"?",
    );
    expect_of_cluster(
        "on_up = 'stay'",
        "6:9 warning: `on_up` without a backup | expected a backend with `backup = true`",
    );
    expect_of_cluster("on_up = 'keep'", "");
}

#[test]
fn names_of_a_cluster() {
    expect_of_cluster(
        "resolve = { addresses = 'on' }",
        "6:25 error: `addresses` is \"on\" | expected \"all\" or \"one\" | did you mean \"one\"?",
    );
    expect_of_cluster(
        "resolve = { every = '10ms' }",
        "6:21 error: `every` is \"10ms\" | expected a duration from \"100ms\" to \"365d\"",
    );
}

#[test]
fn the_rest_of_a_cluster() {
    expect_of_cluster(
        "retry = { on = ['conect'] }",
        "6:17 error: an entry of `on` is \"conect\" | expected \"connect\", \"reset\" or \"timeout\" | \
         did you mean \"connect\"?",
    );
    expect_of_cluster(
        "retry = { attempts = 11 }",
        "6:22 error: `attempts` is 11 | expected a whole number from 1 to 10",
    );
    let ratio = "expected false, or a ratio from 0.0 to 1.0, or a share such as \"50%\"";
    for value in [
        "1.01", "-0.1", "nan", "inf", "2", "\"1\"", "\"101%\"", "\"-1%\"", "\"nan%\"", "\"%\"",
    ] {
        let expected = format!("6:19 error: `panic_threshold` is {value} | {ratio}");
        expect_of_cluster(&format!("panic_threshold = {value}"), &expected);
    }
    expect_of_cluster(
        "panic_threshold = []",
        &format!("6:19 error: `panic_threshold` is an array | {ratio}"),
    );
    expect_of_cluster(
        "resolve = '1ms'",
        "6:11 error: `resolve` is \"1ms\" | expected a duration from \"100ms\" to \"365d\"",
    );
    expect_of_cluster(
        "timeouts = { conect = '1s' }",
        "6:14 error: unknown key `conect` in a cluster's `timeouts` | \
         expected `connect`, `response`, `body` or `idle` | did you mean `connect`?",
    );
    expect_of_cluster(
        "limits = { idle_connections = 100001 }",
        "6:31 error: `idle_connections` is 100001 | expected a whole number from 0 to 100000",
    );
}
