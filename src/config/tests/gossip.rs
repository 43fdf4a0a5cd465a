//! `[gossip]` and `discover`: what they mean, and each error and warning with its text and place.

use std::path::PathBuf;

use super::{config, expect, report, report_of};
use crate::config::schema::GossipConfig;
use crate::model::peer_set::PeerSetSettings;

/// A file whose [gossip] has `lines`, the first of them on line 5, and whose cluster discovers.
fn file(lines: &str) -> String {
    format!(
        "[[listener]]\naddress = ':8080'\ncluster = 'web'\n[gossip]\n{lines}\n\
         [cluster.web]\ndiscover = {{ gossip = 'web' }}\n"
    )
}

/// Compares the diagnostics of a `[gossip]` that has `lines` from its third line on, line 7 of the file, with
/// `expected`. Its address is loopback.
#[track_caller]
fn expect_of_gossip(lines: &str, expected: &str) {
    let file = file(&format!(
        "address = '127.0.0.1:7946'\nallow_cidrs = ['10.0.0.0/8']\n{lines}"
    ));
    assert_eq!(report(&file).join("\n"), expected, "{lines}");
}

/// Compares the diagnostics of a `[gossip]` with this address on line 5, and a key, with `expected`.
#[track_caller]
fn expect_of_address(address: &str, expected: &str) {
    let file = file(&format!(
        "address = {address}\nallow_cidrs = ['10.0.0.0/8']\nkey_files = ['a.key']"
    ));
    assert_eq!(report(&file).join("\n"), expected, "{address}");
}

fn read(lines: &str) -> GossipConfig {
    config(&file(lines)).gossip.unwrap()
}

#[test]
fn defaults_and_every_key() {
    let least = read("address = '127.0.0.1:7946'");
    assert_eq!(
        least,
        GossipConfig {
            peer_set: PeerSetSettings {
                address: "127.0.0.1:7946".parse().unwrap(),
                advertise: "127.0.0.1:7946".parse().unwrap(),
                seeds: vec![],
                label: String::new(),
                key_files: vec![],
                insecure_plaintext: false,
            },
            token_keys: vec![],
            revoked: vec![],
            allow_cidrs: vec![],
            members_file: None,
        }
    );
    let all = read(
        "address = '[::]:7946'\nadvertise = '[::ffff:10.0.0.5]:7947'\nseeds = ['Seeds.:1', '10.0.0.6:7946']\n\
         label = 'prod'\nkey_files = ['b', 'a']\ntoken_key = 'operator.pub'\nrevoked = ['A1b2']\nallow_cidrs = ['10.0.0.0/8', '::1']\n\
         insecure_plaintext = true\nmembers_file = 'members'",
    );
    assert_eq!(
        all,
        GossipConfig {
            peer_set: PeerSetSettings {
                address: "[::]:7946".parse().unwrap(),
                advertise: "10.0.0.5:7947".parse().unwrap(),
                seeds: vec!["seeds:1".parse().unwrap(), "10.0.0.6:7946".parse().unwrap()],
                label: "prod".to_owned(),
                key_files: vec![PathBuf::from("b"), PathBuf::from("a")],
                insecure_plaintext: true,
            },
            token_keys: vec![PathBuf::from("operator.pub")],
            revoked: vec!["a1b2".to_owned()],
            allow_cidrs: vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            members_file: Some(PathBuf::from("members")),
        }
    );
    let full = config(include_str!("../../../config/full.toml"));
    assert!(full.gossip.is_some() && full.clusters[0].discover.as_deref() == Some("web"));
    assert_eq!(full.clusters[1].discover, None);
}

#[test]
fn addresses() {
    expect_of_gossip("", "");
    expect(
        "[gossip]\ninsecure_plaintext = true",
        "1:1 error: [gossip] has no `address` | expected `address = …` in it, an address such as \"10.0.0.5:7946\"\n\
         1:1 warning: no cluster discovers backends in [gossip] | expected a cluster with discover = { gossip = \"…\" }",
    );
    for (address, expected) in [
        (
            "'10.0.0.5:0'",
            "5:11 error: `address` is \"10.0.0.5:0\" | expected a port from 1 to 65535, at which others can reach it",
        ),
        (
            "':7946'",
            "5:11 error: `address` is \":7946\" | expected an address before the port, such as \"10.0.0.5:7946\"",
        ),
        (
            "'web:7946'",
            "5:11 error: `address` is \"web:7946\" | expected an IP address, not a name: \"web\"",
        ),
        (
            "'10.0.0.5'",
            "5:11 error: `address` is \"10.0.0.5\" | expected a port, as in \"10.0.0.5:8080\"",
        ),
        (
            "7946",
            "5:11 error: `address` is an integer | expected an address such as \"10.0.0.5:7946\"",
        ),
        ("'0.0.0.0:7946'\nadvertise = '10.0.0.5:7946'", ""),
    ] {
        expect_of_address(address, expected);
    }
    for address in ["0.0.0.0", "[::]", "224.0.0.1", "255.255.255.255"] {
        expect_of_address(
            &format!("'{address}:7946'"),
            "5:11 error: `address` is not an address at which others can reach this member | \
             expected `advertise` beside it | \
             set `advertise` to an address of this machine, such as \"10.0.0.5:7946\"",
        );
    }
    for (advertise, label) in [
        (
            "10.0.0.5:0",
            "expected a port from 1 to 65535, at which others can reach it",
        ),
        (
            "[::]:7946",
            "expected the address of one machine, neither unspecified nor multicast nor broadcast",
        ),
        (
            "[ff02::1]:7946",
            "expected the address of one machine, neither unspecified nor multicast nor broadcast",
        ),
        (
            "lb.internal:7946",
            "expected an IP address, not a name: \"lb.internal\"",
        ),
    ] {
        expect_of_address(
            &format!("'0.0.0.0:7946'\nadvertise = '{advertise}'"),
            &format!("6:13 error: `advertise` is \"{advertise}\" | {label}"),
        );
    }
}

#[test]
fn the_address_is_not_used_twice() {
    let admin = "admin.address = '127.0.0.1:7946'";
    let gossip = "[gossip]\naddress = '127.0.0.1:7946'\nallow_cidrs = ['::1']";
    let cluster = "[cluster.a]\ndiscover = { gossip = 'a' }\n[[route]]\ncluster = 'a'";
    expect(
        &format!("{admin}\n{gossip}\n{cluster}"),
        "3:11 error: \"127.0.0.1:7946\" is already in use | expected an address and port of its own | \
         the admin server has it 1:17",
    );
    expect(
        &format!("{gossip}\n{cluster}").replace("7946", "8080"),
        "10:11 error: \":8080\" is already in use | expected an address and port of its own | [gossip] has it 2:11",
    );
    expect(
        &format!(
            "{}\n{cluster}\n[[listener]]\naddress = ':1'\ncluster = 'a'",
            gossip.replace("7946", "0")
        ),
        "2:11 error: `address` is \"127.0.0.1:0\" | expected a port from 1 to 65535, at which others can reach it",
    );
}

#[test]
fn seeds() {
    expect_of_gossip(
        "seeds = '10.0.0.6:7946'",
        "7:9 error: `seeds` is a string | \
         expected an array of addresses, such as [\"10.0.0.6:7946\", \"seeds.internal:7946\"] | \
         write ['10.0.0.6:7946']",
    );
    expect_of_gossip(
        "seeds = ['a', ':1', 'a:0', '0.0.0.0:1', 'a:1', 'A.:1', '10.0.0.1:1', '[::ffff:10.0.0.1]:1']",
        "7:10 error: an entry of `seeds` is \"a\" | expected a port, as in \"a:8080\"\n\
         7:15 error: an entry of `seeds` is \":1\" | expected an address or a name before the port, as in \"10.0.0.1:1\"\n\
         7:21 error: an entry of `seeds` is \"a:0\" | \"0\" is not a port; expected a number from 1 to 65535\n\
         7:28 error: an entry of `seeds` is \"0.0.0.0:1\" | \
         expected the address of one machine, neither unspecified nor multicast nor broadcast\n\
         7:48 error: seed \"a:1\" is given twice | expected each once | the first is 7:41\n\
         7:70 error: seed \"10.0.0.1:1\" is given twice | expected each once | the first is 7:56",
    );
    // All members may have the same list: each leaves itself out.
    let lines = "advertise = '10.0.0.5:1'
seeds = ['10.0.0.5:1', '127.0.0.1:7946']";
    expect_of_gossip(lines, "");
    let others = read(&format!("address = '127.0.0.1:7946'\n{lines}"));
    assert_eq!(others.peer_set.seeds.len(), 2);
}

#[test]
fn labels_and_files() {
    let long = "a".repeat(65);
    for label in [&long, "a\\u0007"] {
        let expected = format!(
            "7:9 error: `label` is \"{}\" | expected 0 to 64 bytes of text without control characters",
            match label.len() {
                65 => format!("{}…", "a".repeat(60)),
                _ => "a\\u{7}".to_owned(),
            }
        );
        expect_of_gossip(&format!("label = \"{label}\""), &expected);
    }
    expect_of_gossip(&format!("label = '{}'", "a".repeat(64)), "");
    for (key, column) in [("token_key", 13), ("members_file", 16)] {
        expect_of_gossip(
            &format!("{key} = ''"),
            &format!("7:{column} error: `{key}` is \"\" | expected the path of a file"),
        );
    }
    expect_of_gossip(
        "key_files = ['a', 'b', 'a', \"\\u0000\"]",
        "7:24 error: key file \"a\" is given twice | expected each once | the first is 7:14\n\
         7:29 error: an entry of `key_files` is \"\\u{0}\" | expected the path of a file",
    );
    expect_of_gossip(
        "key_files = []",
        "7:13 error: `key_files` is an empty array | expected at least one entry; leave `key_files` out otherwise",
    );
    let files = |count: u8| {
        format!(
            "key_files = {:?}",
            (0..count).map(|i| i.to_string()).collect::<Vec<_>>()
        )
    };
    expect_of_gossip(&files(8), "");
    expect_of_gossip(
        &files(9),
        "7:13 error: `key_files` has 9 entries | expected at most 8",
    );
}

#[test]
fn without_a_key() {
    let report_of_address = |lines: &str| {
        report(&file(&format!(
            "address = {lines}\nallow_cidrs = ['10.0.0.0/8']"
        )))
        .join("\n")
    };
    let refused = "5:11 error: `address` is not loopback, and there is no `key_file` | \
         expected `key_file`, since anyone who reaches the address could speak for every member | \
         make a key with: lbproxy key generate --out gossip.key; or, in a network that you trust, set \
         `insecure_plaintext`";
    for (lines, expected) in [
        ("'10.0.0.5:7946'", refused),
        ("'10.0.0.5:7946'\ninsecure_plaintext = false", refused),
        ("'0.0.0.0:7946'\nadvertise = '127.0.0.1:7946'", refused),
        (
            "'[::]:7946'\nadvertise = 'x'\nkey_files = ['a']",
            "6:13 error: `advertise` is \"x\" | expected a port, as in \"x:8080\"",
        ),
        (
            "'10.0.0.5:7946'\nkey_files = ['']",
            "6:14 error: an entry of `key_files` is \"\" | expected the path of a file",
        ),
        ("'10.0.0.5:7946'\ninsecure_plaintext = true", ""),
        ("'127.0.0.2:7946'", ""),
        ("'[::1]:7946'", ""),
        ("'[::ffff:127.0.0.1]:7946'", ""),
        (
            "'10.0.0.5:7946'\nkey_files = ['a']\ninsecure_plaintext = true",
            "7:22 warning: `insecure_plaintext` beside `key_files` | packets that are not sealed are accepted too | \
             leave it out as soon as every member has the key",
        ),
        (
            "'10.0.0.5:7946'\ninsecure_plaintext = 'no'\nkey_files = ['a']",
            "6:22 error: `insecure_plaintext` is a string | expected true or false, without quotes",
        ),
    ] {
        assert_eq!(report_of_address(lines), expected, "{lines}");
    }
}

#[test]
fn networks_of_backends() {
    let none = "no announced backend will be accepted | \
         expected `allow_cidrs` with the networks where backends may live | \
         write allow_cidrs = [\"10.0.0.0/8\"]; loopback only when it is listed";
    let report_of =
        |lines: &str| report(&file(&format!("address = '127.0.0.1:7946'\n{lines}"))).join("\n");
    assert_eq!(report_of(""), format!("4:1 warning: {none}"));
    assert_eq!(
        report_of("allow_cidrs = []"),
        format!("6:15 warning: {none}")
    );
    assert_eq!(
        report_of("allow_cidrs = ['10.0.0.0/8', '10.0.0.0/33', '::/0']"),
        "6:30 error: an entry of `allow_cidrs` is \"10.0.0.0/33\" | \
         expected a network such as \"10.0.0.0/8\" or \"fd00::/8\", or an address\n\
         6:45 warning: an entry of `allow_cidrs` contains every address | \
         so a member that may announce can have requests sent to any address",
    );
    assert_eq!(
        report_of("allow_cidrs = ['10.0.0.0/33']").lines().count(),
        1,
        "that it is empty only follows from the error"
    );
    let networks = |count: u8| {
        format!(
            "allow_cidrs = {:?}",
            (0..count)
                .map(|i| format!("10.{i}.0.0/16"))
                .collect::<Vec<_>>()
        )
    };
    assert_eq!(report_of(&networks(64)), "");
    assert_eq!(
        report_of(&networks(65)),
        "6:15 error: `allow_cidrs` has 65 entries | expected at most 64"
    );
}

#[test]
fn discovery() {
    let gossip = "[gossip]\naddress = '127.0.0.1:7946'\nallow_cidrs = ['::1']\n";
    let discover = |value: &str| {
        report_of(&format!(
            "{gossip}[[route]]\ncluster = 'a'\n[cluster.a]\ndiscover = {value}"
        ))
        .join("\n")
    };
    let long = "a".repeat(65);
    for (value, expected) in [
        ("{ gossip = 'a b' }", String::new()),
        (
            "'web'",
            "7:12 error: `discover` is a string | expected a table such as { gossip = \"web\" } | \
             write discover = { gossip = 'web' }"
                .to_owned(),
        ),
        (
            "{}",
            "7:12 error: `discover` has no `gossip` | expected `gossip = …` in it, the cluster that agents announce".to_owned(),
        ),
        (
            "{ gossip = 1 }",
            "7:23 error: `gossip` is an integer | expected the cluster that agents announce".to_owned(),
        ),
        (
            "{ gossip = '' }",
            "7:23 error: `gossip` is \"\" | expected 1 to 64 bytes of text without control characters".to_owned(),
        ),
        (
            &format!("{{ gossip = '{long}' }}"),
            format!("7:23 error: `gossip` is \"{}…\" | expected 1 to 64 bytes of text without control characters", &long[..60]),
        ),
        (
            "{ gossip = 'a', dns = 'b:1' }",
            "7:28 error: unknown key `dns` in `discover` | expected `gossip`".to_owned(),
        ),
    ] {
        assert_eq!(discover(value), expected, "{value}");
    }
    let file = discover("{ gossip = 'a', file = 'a.toml' }");
    assert!(
        file.starts_with("7:28 error: unknown key `file` in `discover` | expected `gossip`"),
        "{file}"
    );
}

#[test]
fn clusters_and_the_peer_set_need_each_other() {
    let cluster = "[[route]]\ncluster = 'a'\n[cluster.a]\ndiscover = { gossip = 'a' }\n";
    expect(
        cluster,
        "4:12 error: cluster \"a\" discovers backends without a peer set | expected a [gossip] section | \
         write [gossip], with an `address`",
    );
    expect(
        &format!("gossip = 3\n{cluster}"),
        "1:10 error: `gossip` is an integer | expected a table",
    );
    let gossip = "[gossip]\naddress = '127.0.0.1:7946'\n";
    expect(
        gossip,
        "1:1 warning: no cluster discovers backends in [gossip] | expected a cluster with discover = { gossip = \"…\" }",
    );
    expect(
        &format!(
            "{gossip}allow_cidrs = ['::1']\n[[route]]\ncluster = 'a'\n[cluster.a]\ndiscover = {{ gossip = '' }}"
        ),
        "7:23 error: `gossip` is \"\" | expected 1 to 64 bytes of text without control characters",
    );
    // Whatever its own backends are, others may be announced.
    for backends in [
        "",
        "[]",
        "['a:1']",
        "[{ address = 'a:1', weight = 0 }]",
        "[{ address = 'a:1', backup = true }]",
    ] {
        let own = match backends {
            "" => String::new(),
            own => format!("backends = {own}"),
        };
        expect(
            &format!("{gossip}allow_cidrs = ['::1']\n{cluster}{own}"),
            "",
        );
    }
}

#[test]
fn keys_are_one_or_a_list_and_tokens_are_revoked_by_id() {
    let least = "address = '127.0.0.1:7946'\n";
    let files = |texts: &[&str]| texts.iter().map(PathBuf::from).collect::<Vec<_>>();
    for (lines, keys, operators) in [
        ("", &[][..], &[][..]),
        ("key_file = 'a'\ntoken_key = 'o'", &["a"], &["o"]),
        (
            "key_file = ['a', 'b']\ntoken_key = ['o', 'p']",
            &["a", "b"],
            &["o", "p"],
        ),
        ("key_files = ['a', 'b']", &["a", "b"], &[]),
    ] {
        let found = read(&format!("{least}{lines}"));
        let expected = (files(keys), files(operators));
        let found = (found.peer_set.key_files, found.token_keys);
        assert_eq!(found, expected, "{lines}");
    }
    expect_of_gossip(
        "key_file = 'a'\nkey_files = ['b']",
        "8:13 error: `key_files` beside `key_file` | expected one of the two | \
         put all files into `key_file`, the one that seals first | the other is 7:12",
    );
    expect_of_gossip(
        "token_key = ['o', 'o']",
        "7:19 error: operator file \"o\" is given twice | expected each once | the first is 7:14",
    );
    let expected = "expected 4 to 16 hexadecimal digits, as `lbproxy token show` prints them";
    for id in ["a1b", "a1b2c3d4e5f60718a", "xyzw", ""] {
        expect_of_gossip(
            &format!("revoked = ['{id}']"),
            &format!("7:12 error: an entry of `revoked` is \"{id}\" | {expected}"),
        );
    }
    expect_of_gossip("revoked = []", "");
}
