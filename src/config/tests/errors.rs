//! Errors of single values and contradictions between parts, with their texts and places.

use super::{expect, report, report_of};

#[test]
fn top_level() {
    expect(
        "workers = 0",
        "1:11 error: `workers` is 0 | expected a whole number from 1 to 1024",
    );
    expect(
        "workers = 1025",
        "1:11 error: `workers` is 1025 | expected a whole number from 1 to 1024",
    );
    expect(
        "workers = -1",
        "1:11 error: `workers` is -1 | expected a whole number from 1 to 1024",
    );
    expect(
        "workers = 99999999999999999999999999999999999999999",
        "1:11 error: `workers` is 99999999999999999999999999999999999999999 | \
         expected a whole number from 1 to 1024",
    );
    expect(
        "workers = 2.0",
        "1:11 error: `workers` is a float | expected a whole number from 1 to 1024",
    );
    expect(
        "workers = 1979-05-27",
        "1:11 error: `workers` is a date or time | expected a whole number from 1 to 1024",
    );
    expect(
        "watch = 'yes'",
        "1:9 error: `watch` is a string | expected true or false, without quotes",
    );
    expect(
        "admin = 3",
        "1:9 error: `admin` is an integer | expected a table such as { address = \"127.0.0.1:9900\" }",
    );
    expect(
        "listener2 = 3",
        "1:1 error: unknown key `listener2` in the top level of the file | expected `workers`, `drain_timeout`, \
         `shutdown_delay`, `watch`, `include`, `state_dir`, `admin`, `log`, `gossip`, `defaults`, `listener`, `route` or \
         `cluster` | did you mean `listener`?",
    );
}

#[test]
fn keys_that_belong_elsewhere() {
    expect(
        "[log]\nwatch = true",
        "2:1 error: unknown key `watch` in [log] | expected `level`, `format` or `access` | \
         `watch` belongs at the top of the file, before the first section",
    );
    expect(
        "[log]\nweight = 1",
        "2:1 error: unknown key `weight` in [log] | expected `level`, `format` or `access` | `weight` is a key of a backend",
    );
    expect(
        "[log]\nzzz = 1",
        "2:1 error: unknown key `zzz` in [log] | expected `level`, `format` or `access`",
    );
}

#[test]
fn keys_that_do_not_work_yet_are_unknown() {
    for (snippet, key) in [
        (
            "[[listener]]\naddress = ':1'\ncluster = 'web'\ntls = {}",
            "`tls` in [[listener]]",
        ),
        (
            "[[listener]]\naddress = ':1'\ncluster = 'web'\nproxy_protocol = false",
            "`proxy_protocol` in [[listener]]",
        ),
        (
            "[[route]]\ncluster = 'web'\nsni = 'a'",
            "`sni` in [[route]]",
        ),
        (
            "[[route]]\ncluster = 'web'\nrewrite = {}",
            "`rewrite` in [[route]]",
        ),
        (
            "[[route]]\ncluster = 'web'\nrequest_headers = {}",
            "`request_headers` in [[route]]",
        ),
        (
            "[cluster.a]\nslow_start = '0s'",
            "`slow_start` in [cluster.NAME]",
        ),
        ("[cluster.a]\nsticky = {}", "`sticky` in [cluster.NAME]"),
        (
            "[cluster.a]\nbackends = [{ address = 'a:1', zone = 'a' }]",
            "`zone` in a backend",
        ),
        (
            "[cluster.a]\nlimits = { pending = 1 }",
            "`pending` in a cluster's `limits`",
        ),
        (
            "[cluster.a]\nretry = { budget = 0.2 }",
            "`budget` in `retry`",
        ),
    ] {
        let reported = report_of(snippet);
        let message = format!("error: unknown key {key}");
        assert_eq!(
            reported
                .iter()
                .filter(|line| line.contains("error:"))
                .count(),
            1,
            "{reported:?}"
        );
        assert!(
            reported.iter().any(|line| line.contains(&message)),
            "{reported:?}"
        );
    }
}

#[test]
fn http_2_is_not_supported_yet() {
    expect(
        "[[listener]]\naddress = ':1'\ncluster = 'web'\nhttp_versions = ['1.1', '2']",
        "4:25 error: an entry of `http_versions` is \"2\" | HTTP/2 is not supported yet; expected \"1.1\"",
    );
    expect(
        "[[listener]]\naddress = ':1'\ncluster = 'web'\nhttp_versions = []",
        "4:17 error: `http_versions` is an empty array | expected at least one entry; \
         leave `http_versions` out otherwise",
    );
    let reported = report(
        "[[listener]]\naddress = ':1'\ncluster = 'a'\n[cluster.a]\nbackends = ['a:1']\nhttp_version = '2'",
    );
    assert_eq!(
        reported,
        ["6:16 error: `http_version` is \"2\" | HTTP/2 is not supported yet; expected \"1.1\""]
    );
}

#[test]
fn durations_and_sizes() {
    let shape = "a duration such as \"250ms\", \"10s\", \"5m\", \"1h\" or \"1d\"";
    let at = "1:17 error: `drain_timeout` is";
    for (value, rest) in [
        (
            "30",
            "a bare number | expected a duration with its unit, such as \"30s\" or \"30ms\""
                .to_owned(),
        ),
        ("1.5", format!("a float | expected {shape}")),
        ("'30'", format!("\"30\" | it has no unit; expected {shape}")),
        (
            "'30sec'",
            format!("\"30sec\" | \"sec\" is not a unit; expected {shape}"),
        ),
        (
            "'1.5s'",
            format!("\"1.5s\" | fractions are not allowed; use a smaller unit; expected {shape}"),
        ),
        (
            "'366d'",
            "\"366d\" | expected a duration from \"0s\" to \"365d\"".to_owned(),
        ),
    ] {
        expect(&format!("drain_timeout = {value}"), &format!("{at} {rest}"));
    }
    let of_limits = |limits: &str| {
        report_of(&format!(
            "[[listener]]\naddress = ':1'\ncluster = 'web'\nlimits = {limits}"
        ))
    };
    assert_eq!(
        of_limits("{ header_bytes = 1024, uri_bytes = '8B', body_bytes = '1EB', headers = 0 }"),
        [
            "4:27 error: `header_bytes` is a bare number | \
             expected a size with its unit, such as \"1024B\" or \"1024KiB\"",
            "4:45 error: `uri_bytes` is \"8B\" | expected a size from \"16B\" to \"32KiB\"",
            "4:64 error: `body_bytes` is \"1EB\" | \"EB\" is not a unit; \
             expected a size such as \"512B\", \"64KiB\", \"10MiB\", \"1GiB\" or \"1TiB\"",
            "4:81 error: `headers` is 0 | expected a whole number from 1 to 1000",
        ]
    );
    assert_eq!(
        of_limits("{ header_bytes = '4KiB', uri_bytes = '5KiB' }"),
        ["4:47 error: `uri_bytes` is \"5KiB\" | expected a size from \"16B\" to \"4KiB\""]
    );
}

#[test]
fn admin_and_log() {
    expect(
        "[admin]",
        "1:1 error: [admin] has no `address` | expected `address = …` in it, \
         an address such as \"127.0.0.1:9900\" or \"unix:/run/lbproxy.sock\"",
    );
    expect(
        "admin.address = 'unix:lb.sock'",
        "1:17 error: `address` is \"unix:lb.sock\" | expected an absolute path, as in \"unix:/run/app.sock\"",
    );
    expect(
        "admin.address = '127.0.0.1'",
        "1:17 error: `address` is \"127.0.0.1\" | expected a port, as in \"127.0.0.1:9900\"",
    );
    let long = format!("admin.address = 'unix:/{}'", "a".repeat(107));
    assert!(
        report_of(&long)[0].ends_with("| expected a path of at most 107 bytes"),
        "{:?}",
        report_of(&long)
    );
    expect(
        "log.level = 'inof'",
        "1:13 error: `level` is \"inof\" | expected \"error\", \"warn\", \"info\", \"debug\" or \"trace\" | \
         did you mean \"info\"?",
    );
    expect(
        "log.format = 'jsonl'",
        "1:14 error: `format` is \"jsonl\" | expected \"text\" or \"json\" | did you mean \"json\"?",
    );
    let expected = "expected \"off\", \"stdout\" or { file = \"access.log\" }";
    expect(
        "log.access = 'a.log'",
        &format!(
            "1:14 error: `access` is \"a.log\" | {expected} | a file is written {{ file = \"…\" }}"
        ),
    );
    expect(
        "log.access = true",
        &format!("1:14 error: `access` is a boolean | {expected}"),
    );
    expect(
        "log.access = {}",
        "1:14 error: `access` has neither `to` nor `file` | expected `to = \"stdout\"` or `file = \"access.log\"` in it",
    );
    expect(
        "log.access = { to = 'stdout', file = 'a.log' }",
        "1:38 error: `file` beside `to` | expected one of them: they say where the lines go",
    );
    expect(
        "log.access = { to = 'stduot', query = 'no' }",
        "1:21 error: `to` is \"stduot\" | expected \"off\" or \"stdout\" | did you mean \"stdout\"?\n\
         1:39 error: `query` is a string | expected true or false, without quotes",
    );
    expect(
        "log.access.file = ''",
        "1:19 error: `file` is \"\" | expected the path of a file",
    );
}

#[test]
fn the_shape_of_the_lists() {
    assert_eq!(
        report(""),
        [
            "1:1 error: the file has no listener | expected at least one [[listener]] with an `address`"
        ]
    );
    assert_eq!(
        report("listener = []"),
        [
            "1:1 error: the file has no listener | expected at least one [[listener]] with an `address`"
        ]
    );
    assert_eq!(
        report("[listener]\naddress = ':1'"),
        [
            "1:1 error: `listener` is a single table | expected [[listener]], with two brackets on each side | \
             write [[listener]]; there may be several"
        ]
    );
    assert_eq!(
        report("[[listener]]\naddress = ':1'\ncluster = 'a'\n[[cluster]]\nname = 'a'"),
        [
            "4:1 error: `cluster` is an array | expected tables, each under its own [cluster.NAME] | \
             write [cluster.NAME], with one bracket on each side"
        ]
    );
    expect(
        "route = 3",
        "1:9 error: `route` is an integer | expected tables, each under its own [[route]] | write [3]",
    );
    expect(
        "route = [3]",
        "1:10 error: an entry of `route` is an integer | expected a table",
    );
    assert_eq!(
        report("[[listener]]\naddress = ':1'\ncluster = 'a'\n[cluster]\na = 3"),
        ["5:5 error: `a` is an integer | expected a table"],
        "its name is known nevertheless"
    );
}

#[test]
fn listeners() {
    expect(
        "[[listener]]\ncluster = 'web'",
        "1:1 error: [[listener]] has no `address` | expected `address = …` in it, \
         an address such as \":8080\", \"127.0.0.1:8080\" or \"unix:/run/lb.sock\", or an array of them",
    );
    expect(
        "[[listener]]\ncluster = 'web'\naddress = 'localhost:80'",
        "3:11 error: `address` is \"localhost:80\" | \
         expected an IP address, not a name: write \"127.0.0.1:80\", or \"[::1]:80\" for IPv6",
    );
    expect(
        "[[listener]]\ncluster = 'web'\naddress = ':1'\nprotocol = 'udp'",
        "4:12 error: `protocol` is \"udp\" | expected \"http\" or \"tcp\" | UDP is not supported yet",
    );
    expect(
        "[[listener]]\ncluster = 'web'\naddress = ':1'\nname = \"a\\u001bb\"",
        "4:8 error: `name` is \"a\\u{1b}b\" | expected a name of 1 to 128 bytes without control characters",
    );
    expect(
        "[[listener]]\ncluster = 'web'\naddress = ':1'\ntrusted_proxies = ['10.0.0.0/33']",
        "4:20 error: an entry of `trusted_proxies` is \"10.0.0.0/33\" | \
         expected a network such as \"10.0.0.0/8\" or \"fd00::/8\", or an address",
    );
    expect(
        "[[listener]]\ncluster = 'web'\naddress = ':1'\ntimeouts = { idle = '0s' }",
        "4:21 error: `idle` is \"0s\" | expected a duration from \"1ms\" to \"365d\"",
    );
}

#[test]
fn two_listeners_at_one_address() {
    let listeners = |addresses: &[&str]| {
        let listeners: String = addresses
            .iter()
            .enumerate()
            .map(|(at, address)| {
                format!("[[listener]]\nname = '{at}'\naddress = '{address}'\ncluster = 'a'\n")
            })
            .collect();
        report(&format!("{listeners}[cluster.a]\nbackends = ['a:1']"))
    };
    for pair in [
        [":80", ":80"],
        [":80", "0.0.0.0:80"],
        [":80", "[::]:80"],
        [":80", "127.0.0.1:80"],
        [":80", "[::1]:80"],
        ["0.0.0.0:80", "127.0.0.1:80"],
        ["127.0.0.1:80", "127.0.0.1:80"],
        ["127.0.0.1:80", "[::ffff:127.0.0.1]:80"],
        ["[::1]:80", "[0::1]:80"],
        ["[::]:80", "[::1]:80"],
        ["unix:/a", "unix:/a"],
    ] {
        for pair in [pair, [pair[1], pair[0]]] {
            let second = pair[1].replace("0::1", "::1");
            let what = match second.starts_with("unix:") {
                true => "a path",
                false => "an address and port",
            };
            let expected = format!(
                "7:11 error: \"{second}\" is already in use | expected {what} of its own | a listener has it 3:11"
            );
            assert_eq!(listeners(&pair), [expected], "{pair:?}");
        }
    }
    for pair in [
        [":0", ":0"],
        ["127.0.0.1:0", "127.0.0.1:0"],
        [":80", ":81"],
        ["127.0.0.1:80", "127.0.0.2:80"],
        ["127.0.0.1:80", "[::1]:80"],
        ["0.0.0.0:80", "[::1]:80"],
        ["unix:/a", "unix:/b"],
    ] {
        assert_eq!(listeners(&pair), [""; 0], "{pair:?}");
    }
}

#[test]
fn the_admin_server_has_an_address_of_its_own() {
    expect(
        "admin.address = '127.0.0.1:8080'",
        "4:11 error: \":8080\" is already in use | expected an address and port of its own | \
         the admin server has it 1:17",
    );
    assert_eq!(report_of("admin.address = 'unix:/run/lb.sock'"), [""; 0]);
}

#[test]
fn two_listeners_with_one_name() {
    expect(
        "[[listener]]\naddress = ':1'\nname = 'a'\ncluster = 'web'\n\
         [[listener]]\naddress = ':2'\nname = 'a'\ncluster = 'web'",
        "7:8 error: two listeners are called \"a\" | expected another `name`; by default it is the address | \
         the first is 3:8",
    );
    expect(
        "[[listener]]\naddress = ':0'\ncluster = 'web'\n[[listener]]\naddress = ':0'\ncluster = 'web'",
        "5:11 error: two listeners are called \":0\" | expected another `name`; by default it is the address | \
         the first is 2:11",
    );
}

#[test]
fn names_that_do_not_exist() {
    expect(
        "[[route]]\ncluster = 'wbe'",
        "2:11 error: no cluster is called \"wbe\" | expected \"web\" | did you mean \"web\"?",
    );
    expect(
        "[[route]]\ncluster = 'web'\nlisteners = [':8080', 'x']",
        "3:23 error: no listener is called \"x\" | expected \":8080\"",
    );
    expect(
        "[[listener]]\naddress = ':1'\nname = 'db'\nprotocol = 'tcp'\ncluster = 'web'\n\
         [[route]]\ncluster = 'web'\nlisteners = ['db']",
        "8:14 error: listener \"db\" has protocol tcp | expected a listener with protocol \"http\"; routes are for requests",
    );
    assert_eq!(
        report("[[listener]]\naddress = ':1'\ncluster = 'web'"),
        ["3:11 error: no cluster is called \"web\" | the file has no cluster"]
    );
}
