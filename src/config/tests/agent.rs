//! The file of an agent, and the rules that flags share with it.

use std::path::PathBuf;
use std::time::Duration;

use super::shown;
use crate::config::load::{Loaded, is_agent, load_agent};
use crate::config::schema::{AgentConfig, LocalCheck, LogLevel};
use crate::model::peer_set::PeerSetSettings;
use crate::model::settings::{Check, CheckKind};

const LEAST: &str = "cluster = 'web'\nbackend = '10.0.0.7:8080'\naddress = '127.0.0.1:7946'\n";

fn least() -> AgentConfig {
    AgentConfig::new(
        "web".to_owned(),
        "10.0.0.7:8080".parse().unwrap(),
        "127.0.0.1:7946".parse().unwrap(),
    )
}

fn report(text: &str) -> String {
    let Loaded {
        config,
        diagnostics,
        ..
    } = load_agent(text.as_bytes());
    let lines: Vec<String> = diagnostics.iter().map(shown).collect();
    assert_eq!(
        config.is_none(),
        lines.iter().any(|line| line.contains(" error: ")),
        "{text}"
    );
    lines.join("\n")
}

/// Compares all diagnostics of a file that has `lines` from its fourth line on, after what it needs, with `expected`.
#[track_caller]
fn expect(lines: &str, expected: &str) {
    assert_eq!(report(&format!("{LEAST}{lines}")), expected, "{lines}");
}

fn config(text: &str) -> AgentConfig {
    let loaded = load_agent(text.as_bytes());
    loaded
        .config
        .unwrap_or_else(|| panic!("{text}\n{:#?}", loaded.diagnostics))
}

fn http(target: &str, host: &str, path: &str) -> LocalCheck {
    LocalCheck {
        target: target.parse().unwrap(),
        check: Check {
            kind: CheckKind::Http {
                path: path.to_owned(),
                host: Some(host.to_owned()),
                status: vec![(200, 299)],
                expect: None,
            },
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 1,
            fall: 2,
            port: None,
        },
    }
}

#[test]
fn defaults_and_every_key() {
    assert_eq!(config(LEAST), least());
    let sample = config(include_str!("../../../config/agent.toml"));
    let address = "10.0.0.7:7946".parse().unwrap();
    let expected = AgentConfig {
        zone: "a".to_owned(),
        name: Some("web-7".to_owned()),
        build: "1.4.2".to_owned(),
        check: Some(http("127.0.0.1:8080", "127.0.0.1:8080", "/healthz")),
        peer_set: PeerSetSettings {
            seeds: vec![
                "10.0.0.5:7946".parse().unwrap(),
                "seeds.internal:7946".parse().unwrap(),
            ],
            label: "prod".to_owned(),
            key_files: vec![PathBuf::from("gossip.key")],
            ..PeerSetSettings::new(address)
        },
        token_file: Some(PathBuf::from("agent.token")),
        ..AgentConfig::new("web".to_owned(), least().backend, address)
    };
    assert_eq!(sample, expected, "the sample shows the defaults");
    let others = config(&format!(
        "{LEAST}weight = 0\nadvertise = '10.0.0.7:7946'\ninsecure_plaintext = true\ncheck = 'tcp://web:80'\n\
         interval = '5s'\ntimeout = '20ms'\ndrain_timeout = '0s'\ndrain_delay = '3s'\nonce = true\nlevel = 'warn'"
    ));
    let check = others.check.unwrap();
    assert_eq!(check.check.kind, CheckKind::Tcp);
    assert_eq!(
        (check.check.interval, check.check.timeout),
        (Duration::from_secs(5), Duration::from_millis(20))
    );
    assert_eq!(others.peer_set.advertise, address);
    assert_eq!(
        (
            others.weight,
            others.peer_set.insecure_plaintext,
            others.level
        ),
        (0, true, LogLevel::Warn)
    );
    assert_eq!(others.drain_timeout, Duration::ZERO);
    assert_eq!(
        (others.drain_delay, others.once),
        (Duration::from_secs(3), true)
    );
}

#[test]
fn everything_that_is_missing_or_wrong_is_reported_at_once() {
    assert_eq!(
        report(""),
        "1:1 error: an agent's file has no `cluster` | \
         expected `cluster = …` in it, the name that proxies discover, in quotes\n\
         1:1 error: an agent's file has no `backend` | \
         expected `backend = …` in it, an address such as \"10.0.0.7:8080\"\n\
         1:1 error: an agent's file has no `address` | \
         expected `address = …` in it, an address such as \"10.0.0.5:7946\""
    );
    assert_eq!(
        report("cluster = ''\nbackend = 'web:80'\naddress = '10.0.0.7:0'\nkey_file = 3\n= 1"),
        "1:11 error: `cluster` is \"\" | expected 1 to 64 bytes of text without control characters\n\
         2:11 error: `backend` is \"web:80\" | expected an IP address, not a name: \"web\"\n\
         3:11 error: `address` is \"10.0.0.7:0\" | expected a port from 1 to 65535, at which others can reach it\n\
         4:12 error: `key_file` is an integer | expected the path of a file, or an array of them\n\
         5:1 error: unquoted keys cannot be empty | expected letters, numbers, `-`, `_`"
    );
    let loaded = load_agent(b"cluster = '\xff'");
    assert_eq!(
        shown(&loaded.diagnostics[0]),
        "1:12 error: the file is not UTF-8 text | expected UTF-8, found the byte 0xFF"
    );
}

#[test]
fn single_values() {
    for (lines, expected) in [
        (
            "weight = 1001",
            "4:10 error: `weight` is 1001 | expected a whole number from 0 to 1000",
        ),
        (
            "zone = 'a zone whose name has 33 bytes ..'",
            "4:8 error: `zone` is \"a zone whose name has 33 bytes ..\" | \
             expected 0 to 32 bytes of text without control characters",
        ),
        (
            "build = \"\\t\"",
            "4:9 error: `build` is \"\\u{9}\" | expected 0 to 32 bytes of text without control characters",
        ),
        (
            "name = ''",
            "4:8 error: `name` is \"\" | expected 1 to 64 bytes of text without control characters",
        ),
        (
            "drain_timeout = 30",
            "4:17 error: `drain_timeout` is a bare number | \
             expected a duration with its unit, such as \"30s\" or \"30ms\"",
        ),
        (
            "drain_delay = '-1s'",
            "4:15 error: `drain_delay` is \"-1s\" | it does not begin with a number; expected a duration such as \
             \"250ms\", \"10s\", \"5m\", \"1h\" or \"1d\"",
        ),
        (
            "once = 'yes'",
            "4:8 error: `once` is a string | expected true or false, without quotes",
        ),
        (
            "level = 'warning'",
            "4:9 error: `level` is \"warning\" | expected \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        ),
        (
            "token_file = ''",
            "4:14 error: `token_file` is \"\" | expected the path of a file",
        ),
        (
            "key_file = 'a'\ninsecure_plaintext = true",
            "5:22 warning: `insecure_plaintext` beside `key_file` | packets that are not sealed are accepted too | \
             leave it out as soon as every member has the key",
        ),
    ] {
        expect(lines, expected);
    }
    let unknown = report(&format!(
        "{LEAST}key_files = ['a']\nhealth = 1\nlistener = []"
    ));
    let reported: Vec<&str> = unknown.lines().collect();
    assert!(reported[0].starts_with(
        "4:1 error: unknown key `key_files` in an agent's file | expected `cluster`, "
    ));
    assert!(
        reported[0].ends_with(" | did you mean `key_file`?"),
        "{unknown}"
    );
    assert!(
        reported[1..]
            .iter()
            .all(|line| line.ends_with("`once` or `level`")),
        "no key of the proxy's file is suggested: {unknown}"
    );
}

#[test]
fn checks() {
    for (url, expected) in [
        (
            "http://127.0.0.1:8080/healthz?a=1",
            http("127.0.0.1:8080", "127.0.0.1:8080", "/healthz?a=1"),
        ),
        (
            "http://Web.Internal",
            http("web.internal:80", "Web.Internal", "/"),
        ),
        ("http://[::1]", http("[::1]:80", "[::1]", "/")),
        ("http://[::1]:8080/", http("[::1]:8080", "[::1]:8080", "/")),
    ] {
        assert_eq!(url.parse(), Ok(expected), "{url}");
    }
    let tcp: LocalCheck = "tcp://[::1]:5432".parse().unwrap();
    assert_eq!(
        (tcp.target.to_string().as_str(), tcp.check.kind),
        ("[::1]:5432", CheckKind::Tcp)
    );
    let expected = "expected \"http://127.0.0.1:8080/healthz\" or \"tcp://127.0.0.1:8080\"";
    for (url, label) in [
        ("https://127.0.0.1/", expected.to_owned()),
        ("/healthz", expected.to_owned()),
        ("", expected.to_owned()),
        (
            "http:///x",
            format!("a backend needs an address or a name before its port; {expected}"),
        ),
        (
            "http://a:b@c/",
            format!("\"b@c\" is not a port; {expected}"),
        ),
        (
            "http://::1/",
            format!("an IPv6 address is written in brackets, as in \"[::1]:8080\"; {expected}"),
        ),
        (
            "http://a?b",
            "expected a path that begins with \"/\"".to_owned(),
        ),
        (
            "http://a/ b",
            "a request has this character only as \"%20\"".to_owned(),
        ),
        (
            "tcp://a",
            format!("expected a port, as in \"a:8080\"; {expected}"),
        ),
        ("tcp://a:1/x", format!("\"1/x\" is not a port; {expected}")),
    ] {
        expect(
            &format!("check = '{url}'"),
            &format!("4:9 error: `check` is \"{url}\" | {label}"),
        );
    }
    expect(
        "check = 'tcp://a:1'\ninterval = '1ms'\ntimeout = '2d'",
        "5:12 error: `interval` is \"1ms\" | expected a duration from \"10ms\" to \"1d\"\n\
         6:11 error: `timeout` is \"2d\" | expected a duration from \"10ms\" to \"1d\"",
    );
    expect(
        "check = 'tcp://a:1'\ninterval = '500ms'",
        "5:12 warning: a check slower than its interval: it may take 1s, and is due every 500ms | \
         expected `timeout` at most as long as `interval` | write timeout = \"500ms\", or a longer interval",
    );
    expect(
        "interval = '1s'",
        "4:12 warning: `interval` without `check` | the service is not checked | \
         write check = \"http://127.0.0.1:8080/healthz\", or leave it out",
    );
}

#[test]
fn flags_obey_the_rules_of_the_file() {
    assert_eq!(least().validate(), Ok(()));
    let key = "`address` is not loopback, and there is no `key_file`: expected `key_file`, since anyone who reaches the \
               address could speak for every member; make a key with: lbproxy key generate --out gossip.key; or, in a \
               network that you trust, set `insecure_plaintext`";
    let one_machine =
        "expected the address of one machine, neither unspecified nor multicast nor broadcast";
    type Case = (fn(&mut AgentConfig), &'static str, String);
    let wrong: [Case; 13] = [
        (
            |c| c.cluster.clear(),
            "cluster",
            "`cluster` is \"\": expected 1 to 64 bytes of text without control characters"
                .to_owned(),
        ),
        (
            |c| c.name = Some("\n".to_owned()),
            "name",
            "`name` is \"\\u{a}\": expected 1 to 64 bytes of text without control characters"
                .to_owned(),
        ),
        (
            |c| c.zone = "a".repeat(33),
            "zone",
            format!(
                "`zone` is \"{}\": expected 0 to 32 bytes of text without control characters",
                "a".repeat(33)
            ),
        ),
        (
            |c| c.build = "\0".to_owned(),
            "build",
            "`build` is \"\\u{0}\": expected 0 to 32 bytes of text without control characters"
                .to_owned(),
        ),
        (
            |c| c.peer_set.label = "\r".to_owned(),
            "label",
            "`label` is \"\\u{d}\": expected 0 to 64 bytes of text without control characters"
                .to_owned(),
        ),
        (
            |c| c.weight = 1001,
            "weight",
            "`weight` is 1001: expected a whole number from 0 to 1000".to_owned(),
        ),
        (
            |c| c.backend.set_port(0),
            "backend",
            "`backend` is \"10.0.0.7:0\": expected a port from 1 to 65535, at which others can reach it"
                .to_owned(),
        ),
        (
            |c| c.backend = "0.0.0.0:80".parse().unwrap(),
            "backend",
            format!("`backend` is \"0.0.0.0:80\": {one_machine}"),
        ),
        (
            |c| c.peer_set.advertise = "[ff02::1]:80".parse().unwrap(),
            "advertise",
            format!("`advertise` is \"[ff02::1]:80\": {one_machine}"),
        ),
        (
            |c| c.peer_set.address = "10.0.0.7:7946".parse().unwrap(),
            "address",
            key.to_owned(),
        ),
        (
            |c| {
                c.check = Some("tcp://a:1".parse().unwrap());
                c.check.as_mut().unwrap().check.interval = Duration::ZERO;
            },
            "interval",
            "`interval` is \"0s\": expected a duration from \"10ms\" to \"1d\"".to_owned(),
        ),
        (
            |c| c.drain_timeout = Duration::MAX,
            "drain_timeout",
            "`drain_timeout` is \"".to_owned(),
        ),
        (
            |c| c.drain_delay = Duration::MAX,
            "drain_delay",
            "`drain_delay` is \"".to_owned(),
        ),
    ];
    for (spoil, key, reported) in wrong {
        let mut config = least();
        spoil(&mut config);
        let problem = config.validate().unwrap_err();
        assert_eq!(problem.key, key);
        assert!(problem.to_string().starts_with(&reported), "{problem}");
        assert_eq!(config.problems().len(), 1, "{key}");
    }
    let mut config = least();
    config.peer_set.key_files = vec![PathBuf::new(); 9];
    assert_eq!(
        config.validate().unwrap_err().to_string(),
        "`key_file` is 9 files: expected at most 8"
    );
    let mut config = least();
    config.peer_set.address = "0.0.0.0:7946".parse().unwrap();
    config.peer_set.insecure_plaintext = true;
    assert_eq!(config.validate(), Ok(()), "127.0.0.1 is advertised");
    config.peer_set.advertise = config.peer_set.address;
    assert_eq!(
        config.validate().unwrap_err().message,
        "`address` is not an address at which others can reach this member"
    );
}

#[test]
fn keys() {
    for (lines, expected) in [
        ("key_file = 'a'", vec!["a"]),
        ("key_file = ['a', 'b']", vec!["a", "b"]),
    ] {
        let files: Vec<PathBuf> = expected.into_iter().map(PathBuf::from).collect();
        assert_eq!(config(&format!("{LEAST}{lines}")).peer_set.key_files, files);
    }
    expect(
        "key_file = ['a', 'b', 'a', '']",
        "4:23 error: key file \"a\" is given twice | expected each once | the first is 4:13\n\
         4:28 error: an entry of `key_file` is \"\" | expected the path of a file",
    );
    expect(
        "key_file = []",
        "4:12 error: `key_file` is an empty array | expected at least one entry; leave `key_file` out otherwise",
    );
    expect(
        &format!(
            "key_file = {:?}",
            ["1", "2", "3", "4", "5", "6", "7", "8", "9"]
        ),
        "4:12 error: `key_file` has 9 entries | expected at most 8",
    );
    // A wrong key is not a missing key.
    assert_eq!(
        report("cluster = 'a'\nbackend = '10.0.0.1:1'\naddress = '10.0.0.1:2'\nkey_file = ['']"),
        "4:13 error: an entry of `key_file` is \"\" | expected the path of a file"
    );
}

#[test]
fn the_file_of_an_agent_is_recognised() {
    for (text, expected) in [
        (LEAST, true),
        ("cluster = 'web'", true),
        ("backend = 3\n= x", true),
        ("", false),
        ("[cluster.web]\nbackends = []", false),
        ("cluster = 'web'\n[[listener]]\naddress = ':1'", false),
    ] {
        assert_eq!(is_agent(text.as_bytes()), expected, "{text}");
    }
    assert!(!is_agent(b"cluster = '\xff'"));
}
