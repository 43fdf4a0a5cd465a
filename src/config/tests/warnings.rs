//! What is legal but surely a mistake.

use super::{expect, report, report_of};

#[test]
fn clusters() {
    expect(
        "[cluster.a]\nbackends = ['a:1']",
        "1:10 warning: nothing uses cluster \"a\" | expected a listener or a route with this `cluster`",
    );
    let with = |lines: &str| {
        report(&format!(
            "[[listener]]\naddress = ':1'\ncluster = 'a'\n[cluster.a]\n{lines}\n"
        ))
    };
    for (lines, expected) in [
        (
            "",
            "4:10 warning: cluster \"a\" has no backend | every request to it is answered with 503",
        ),
        (
            "backends = []",
            "5:12 warning: cluster \"a\" has no backend | every request to it is answered with 503",
        ),
        (
            "backends = [{ address = 'a:1', weight = 0 }]",
            "5:12 warning: cluster \"a\" has only backends of weight 0 | weight 0 takes nothing new",
        ),
        (
            "backends = [{ address = 'a:1', backup = true }]",
            "5:12 warning: cluster \"a\" has only backup backends | expected at least one backend that is not a backup",
        ),
        (
            "backends = ['a:1']\nhash_key = 'path'",
            "6:12 warning: `hash_key` without consistent_hash | \
             the policy is round_robin, which does not use it | \
             write policy = \"consistent_hash\", or leave it out",
        ),
        (
            "backends = ['a:1']\nhash_seed = 0\npolicy = 'random'",
            "6:13 warning: `hash_seed` without consistent_hash | the policy is random, which does not use it | \
             write policy = \"consistent_hash\", or leave it out",
        ),
    ] {
        assert_eq!(with(lines), [expected], "{lines}");
    }
}

#[test]
fn backends_that_are_a_listener_of_the_file() {
    let speaks = |protocol: &str, listener: &str, backend: &str| {
        report(&format!(
            "[[listener]]\naddress = '{listener}'\nprotocol = '{protocol}'\ncluster = 'a'\n[cluster.a]\nbackends = ['{backend}']\n"
        ))
    };
    let with = |listener: &str, backend: &str| speaks("http", listener, backend);
    for (protocol, fate) in [
        ("http", "a request that comes back is answered with 508"),
        (
            "tcp",
            "a session that comes back is reset after a few rounds",
        ),
    ] {
        let reported = speaks(protocol, ":81", "127.0.0.1:81");
        assert!(
            reported.len() == 1 && reported[0].contains(fate),
            "{reported:?}"
        );
    }
    for (listener, backend) in [
        ("127.0.0.1:81", "127.0.0.1:81"),
        (":81", "127.0.0.1:81"),
        (":81", "[::1]:81"),
        ("0.0.0.0:81", "localhost:81"),
        ("127.0.0.1:81", "localhost:81"),
        ("unix:/run/a.sock", "unix:/run/a.sock"),
    ] {
        let reported = with(listener, backend);
        assert!(
            reported.len() == 1 && reported[0].contains("is listener"),
            "{reported:?}"
        );
    }
    for (listener, backend) in [
        ("127.0.0.1:81", "127.0.0.1:82"),
        ("127.0.0.1:81", "127.0.0.2:81"),
        (":81", "10.0.0.1:81"),
        ("10.0.0.1:81", "localhost:81"),
        ("unix:/run/a.sock", "unix:/run/b.sock"),
        (":81", "unix:/run/a.sock"),
    ] {
        assert_eq!(with(listener, backend), [""; 0]);
    }
}

#[test]
fn a_unix_socket_has_no_port_to_check() {
    let text = "[[listener]]\naddress = ':1'\ncluster = 'a'\n[cluster.a]\nbackends = ['unix:/a']\n\
                check = { tcp = true, port = 81 }\n";
    assert_eq!(
        report(text),
        ["6:30 warning: `port` on backends at Unix sockets | it has no effect there"]
    );
}

#[test]
fn checks() {
    let with = |check: &str| {
        report(&format!(
            "[[listener]]\naddress = ':1'\ncluster = 'a'\n[cluster.a]\nbackends = ['a:1']\ncheck = {check}\n"
        ))
    };
    assert_eq!(
        with("{ tcp = true, timeout = '3s' }"),
        [
            "6:33 warning: a check slower than its interval: it may take 3s, and is due every 2s | \
             expected `timeout` at most as long as `interval` | write timeout = \"2s\", or a longer interval"
        ]
    );
    assert_eq!(
        with("{ tcp = true, interval = '500ms' }"),
        [
            "6:34 warning: a check slower than its interval: it may take 1s, and is due every 500ms | \
             expected `timeout` at most as long as `interval` | write timeout = \"500ms\", or a longer interval"
        ],
        "with the default"
    );
    assert_eq!(with("{ tcp = true, interval = '1s' }"), [""; 0]);
}

#[test]
fn listeners() {
    expect(
        "[[listener]]\naddress = ':1'",
        "1:1 warning: listener \":1\" answers every request with 404 | expected a `cluster`, or a route for it",
    );
    assert_eq!(
        report_of("[[listener]]\naddress = ':1'\n[[route]]\nrespond = {}"),
        [""; 0]
    );
    expect(
        "[[listener]]\naddress = ':1'\n[[route]]\nlisteners = [':8080']\nrespond = {}",
        "1:1 warning: listener \":1\" answers every request with 404 | expected a `cluster`, or a route for it",
    );
    expect(
        "[[listener]]\naddress = ':1'\nprotocol = 'tcp'",
        "1:1 warning: listener \":1\" closes every connection | expected a `cluster`",
    );
    expect(
        "[[listener]]\naddress = ':1'\ncluster = 'web'\ntrusted_proxies = ['::/0']",
        "4:20 warning: an entry of `trusted_proxies` contains every address | \
         so any client may say who it is",
    );
    expect(
        "[[listener]]\naddress = ':1'\ncluster = 'web'\ntrusted_proxies = ['10.0.0.5/8']",
        "4:20 warning: an entry of `trusted_proxies` is \"10.0.0.5/8\", with bits after the prefix | \
         it means \"10.0.0.0/8\" | write \"10.0.0.0/8\", or \"10.0.0.5\" for the one address",
    );
}

#[test]
fn routes() {
    expect(
        "[[route]]\nhost = 'a'\nrespond = {}\n[[route]]\nhost = 'a'\npath = '/x'\nrespond = {}",
        "4:1 warning: a route that is never taken | an earlier route takes every request that this one matches | \
         the earlier route is 1:1",
    );
    expect(
        "[[route]]\nmethod = ['get']\nrespond = {}",
        "2:11 warning: an entry of `method` is \"get\" | \
         methods are case-sensitive, so this matches hardly anything | did you mean \"GET\"?",
    );
    expect(
        "[[route]]\npath = '/*/x'\nrespond = {}",
        "2:8 warning: `path` is \"/*/x\" | a `*` before the end stands for itself | \
         a pattern is written with `path_regex`",
    );
    for (path, is_odd) in [
        ("/a%2Fb/*", true),
        ("//a", true),
        ("/a/../b", true),
        ("/%7Ea", true),
        ("/a;v/*", true),
        ("/a%3Bv", true),
        ("/caf%c3%a9", true),
        ("/caf%C3%A9/*", false),
        ("/a%3A*", true),
        ("/.well-known/*", false),
        ("/.*", false),
        ("/a%20b", false),
        ("*", false),
    ] {
        let warnings = report_of(&format!("[[route]]\npath = '{path}'\nrespond = {{}}"));
        assert_eq!(!warnings.is_empty(), is_odd, "{path}: {warnings:?}");
        assert!(
            warnings.iter().all(|w| w.contains("not in normal form")),
            "{path}: {warnings:?}"
        );
    }
    expect(
        "[[route]]\nrespond = { status = 204, body = 'x' }",
        "2:34 warning: `body` beside status 204 | a response with this status has no body",
    );
    expect(
        "[[route]]\nrespond = { status = 205, body = 'x' }",
        "2:34 warning: `body` beside status 205 | a response with this status has no body",
    );
    assert_eq!(
        report(
            "[[listener]]\naddress = ':1'\nprotocol = 'tcp'\ncluster = 'a'\n[cluster.a]\nbackends = ['a:1']\n[[route]]\nrespond = {}"
        ),
        [
            "7:1 warning: routes without an http listener | expected a [[listener]] with protocol \"http\""
        ]
    );
}

#[test]
fn errors_bring_no_warnings_that_only_follow_from_them() {
    assert_eq!(
        report_of("[[route]]\ncluster = 'aa'\n[cluster.a]\nbackends = ['a:1']"),
        [
            "2:11 error: no cluster is called \"aa\" | expected \"a\" or \"web\" | did you mean \"a\"?"
        ]
    );
    assert_eq!(
        report_of("[[route]]\ncluster = 3\n[cluster.a]\nbackends = ['a']").len(),
        2,
        "neither an unused cluster nor an empty one"
    );
}
