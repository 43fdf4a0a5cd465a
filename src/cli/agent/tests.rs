//! Command lines, and the settings that they give.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    agent: AgentArguments,
}

/// Parses a command line.
fn parse(line: &str) -> Result<AgentArguments, String> {
    let words = ["agent"].into_iter().chain(line.split_whitespace());
    Program::try_parse_from(words)
        .map(|program| program.agent)
        .map_err(|error| error.to_string())
}

fn settings(line: &str, file: Option<AgentConfig>) -> Result<AgentSettings, ArgumentError> {
    parse(line).unwrap().settings(file)
}

const LEAST: &str = "--cluster web --backend 10.0.0.7:8080 --address 127.0.0.7:7946";

fn least() -> AgentConfig {
    AgentConfig::new(
        "web".to_owned(),
        "10.0.0.7:8080".parse().unwrap(),
        "127.0.0.7:7946".parse().unwrap(),
    )
}

#[test]
fn the_fewest_flags() {
    assert_eq!(settings(LEAST, None), Ok(AgentSettings::new(least())));
}

#[test]
fn all_flags() {
    let line = format!(
        "{LEAST} --weight 3 --zone a --check http://127.0.0.1:8080/healthz --advertise 10.0.0.7:7946 \
         --seeds 10.0.0.5:7946,seeds.internal:7946 --seeds [::1]:7946 --label prod --key-file new.key,old.key \
         --key-file older.key --token-file agent.token --name web-7 --build 1.2 --interval 2s --timeout 500ms \
         --drain-timeout 10s --drain-delay 0s --insecure-plaintext --once --level debug \
         -- ./server --once -x"
    );
    let mut check: LocalCheck = "http://127.0.0.1:8080/healthz".parse().unwrap();
    check.check.interval = Duration::from_secs(2);
    check.check.timeout = Duration::from_millis(500);
    let config = AgentConfig {
        weight: 3,
        zone: "a".to_owned(),
        check: Some(check),
        peer_set: PeerSetSettings {
            advertise: "10.0.0.7:7946".parse().unwrap(),
            seeds: ["10.0.0.5:7946", "seeds.internal:7946", "[::1]:7946"]
                .map(|seed| seed.parse().unwrap())
                .to_vec(),
            label: "prod".to_owned(),
            key_files: ["new.key", "old.key", "older.key"]
                .map(PathBuf::from)
                .to_vec(),
            insecure_plaintext: true,
            ..least().peer_set
        },
        token_file: Some("agent.token".into()),
        name: Some("web-7".to_owned()),
        build: "1.2".to_owned(),
        drain_timeout: Duration::from_secs(10),
        drain_delay: Duration::ZERO,
        once: true,
        level: LogLevel::Debug,
        ..least()
    };
    let expected = AgentSettings {
        command: ["./server", "--once", "-x"].map(OsString::from).to_vec(),
        config: config.clone(),
    };
    assert_eq!(settings(&line, None), Ok(expected.clone()));
    // Without flags everything comes from the file.
    let line_of_file = "--weight 3 -- ./server --once -x";
    assert_eq!(
        settings(line_of_file, Some(config.clone())),
        Ok(expected.clone())
    );
    assert_eq!(
        settings("--weight 3", Some(config)),
        Err(ArgumentError::NoCommand)
    );
    // Every flag wins over another value of the file.
    let other = AgentConfig {
        check: Some("tcp://10.9.9.9:1".parse().unwrap()),
        peer_set: PeerSetSettings {
            seeds: vec!["10.9.9.9:7".parse().unwrap()],
            key_files: vec!["other.key".into()],
            ..PeerSetSettings::new("127.0.0.9:9".parse().unwrap())
        },
        ..AgentConfig::new(
            "other".to_owned(),
            "10.9.9.9:1".parse().unwrap(),
            "127.0.0.9:9".parse().unwrap(),
        )
    };
    assert_eq!(settings(&line, Some(other)), Ok(expected));
}

#[test]
fn each_part_of_a_check_is_overridden_by_itself() {
    let fast: LocalCheck = "tcp://10.0.0.1:1".parse().unwrap();
    let mut slow = fast.clone();
    slow.check.interval = Duration::from_secs(9);
    let file = AgentConfig {
        check: Some(slow.clone()),
        ..least()
    };
    let check = |line| settings(line, Some(file.clone())).unwrap().config.check;
    assert_eq!(check("--interval 1s"), Some(fast));
    let mut other: LocalCheck = "http://10.0.0.2/x".parse().unwrap();
    other.check.interval = slow.check.interval;
    assert_eq!(check("--check http://10.0.0.2/x"), Some(other));
}

#[test]
fn an_advertised_default_follows_the_address() {
    let moved = settings("--address 127.0.0.8:1", Some(least())).unwrap();
    let moved = moved.config.peer_set;
    assert_eq!(moved.advertise, moved.address);
    let file = AgentConfig {
        peer_set: PeerSetSettings {
            advertise: "10.0.0.9:1".parse().unwrap(),
            ..least().peer_set
        },
        ..least()
    };
    let moved = settings("--address 127.0.0.8:1", Some(file.clone())).unwrap();
    assert_eq!(moved.config.peer_set.advertise, file.peer_set.advertise);
}

#[test]
fn what_does_not_fit_together() {
    let no_key = "--address is not loopback, and there is no --key-file: expected --key-file, since anyone \
                  who reaches the address could speak for every member; make a key with: lbproxy key generate --out \
                  gossip.key; or, in a network that you trust, set --insecure-plaintext";
    for (line, expected) in [
        ("--weight 1", "--cluster is required without --config"),
        ("--cluster web", "--backend is required without --config"),
        (
            "--cluster web --backend 10.0.0.7:8080",
            "--address is required without --config",
        ),
        (
            &format!("{LEAST} --interval 1s"),
            "--interval without a check",
        ),
        (
            &format!("{LEAST} --timeout 1s"),
            "--timeout without a check",
        ),
        (
            "--cluster web --backend 10.0.0.7:8080 --address 10.0.0.7:7946",
            no_key,
        ),
        (
            "--cluster web --backend 10.0.0.7:8080 --address 0.0.0.0:7946 --key-file k",
            "--address is not an address at which others can reach this member: expected --advertise beside it; set \
             --advertise to an address of this machine, such as \"10.0.0.5:7946\"",
        ),
        (
            &format!("{LEAST} --key-file 1,2,3,4,5,6,7,8,9"),
            "--key-file is 9 files: expected at most 8",
        ),
    ] {
        assert_eq!(
            settings(line, None).unwrap_err().to_string(),
            expected,
            "{line}"
        );
    }
    for flag in ["--key-file k", "--insecure-plaintext"] {
        let line = format!("--cluster web --backend 10.0.0.7:8080 --address 10.0.0.7:7946 {flag}");
        assert!(settings(&line, None).is_ok(), "{line}");
    }
}

#[test]
fn what_is_refused() {
    let long = "x".repeat(65);
    for (line, expected) in [
        ("", "Usage:"),
        ("--weight 1001", "1001 is not in 0..=1000"),
        ("--backend web:80", "expected an IP address, not a name"),
        ("--backend 0.0.0.0:80", "the address of one machine"),
        ("--advertise 10.0.0.1:0", "expected a port from 1"),
        ("--address :7946", "expected an address before the port"),
        ("--check https://127.0.0.1/", "expected \"http://"),
        ("--check http://user@host/", "expected \"http://"),
        ("--seeds 10.0.0.1", "expected a port"),
        ("--key-file a,", "expected the path of a file"),
        ("--interval 1", "it has no unit; expected a duration"),
        ("--interval 9ms", "from \"10ms\" to \"1d\""),
        ("--timeout 9ms", "from \"10ms\" to \"1d\""),
        ("--drain-timeout 366d", "from \"0s\" to"),
        ("--drain-delay 1s", "COMMAND"),
        ("--once", "COMMAND"),
        ("--level loud", "\"warn\", \"info\""),
        (&format!("--cluster {long}"), "expected 1 to 64 bytes"),
        (&format!("--zone {}", &long[..33]), "expected 0 to 32 bytes"),
        // Secrets are files.
        ("--key abc", "unexpected argument '--key'"),
        ("--token abc", "unexpected argument '--token'"),
        ("./server", "unexpected argument"),
    ] {
        let error = parse(line).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
}
