//! The samples, damaged copies of the full one, and how an error is shown.

use fastrand::Rng;
use lbproxy::internals::config::diagnostics::{Severity, render, to_json};
use lbproxy::internals::config::load::{Loaded, load, load_agent, load_bytes};

const FULL: &str = include_str!("../config/full.toml");

const AGENT: &str = include_str!("../config/agent.toml");

const SAMPLES: [(&str, &str); 6] = [
    ("smallest.toml", include_str!("../config/smallest.toml")),
    ("full.toml", FULL),
    ("tcp.toml", include_str!("../config/tcp.toml")),
    ("gossip.toml", include_str!("../config/gossip.toml")),
    ("weighted.toml", include_str!("../config/weighted.toml")),
    (
        "consistent_hash.toml",
        include_str!("../config/consistent_hash.toml"),
    ),
];

#[test]
fn samples_are_valid_and_without_warnings() {
    for (name, text) in SAMPLES {
        let loaded = load(text);
        let shown = render(name, text, &loaded.diagnostics, false);
        assert_eq!(shown, "", "{name}");
        assert!(loaded.config.is_some(), "{name}");
    }
    let loaded = load_agent(AGENT.as_bytes());
    assert!(loaded.config.is_some() && loaded.diagnostics.is_empty());
}

#[test]
fn every_sample_is_tested() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    files.sort();
    let mut tested = SAMPLES.map(|(name, _)| name).to_vec();
    tested.push("agent.toml");
    tested.sort_unstable();
    assert_eq!(files, tested);
}

/// Either a configuration and no error, or none and an error with a place in the text; and it can be shown.
fn refused_or_whole(bytes: &[u8]) -> Loaded {
    let loaded = load_bytes(bytes);
    let text = String::from_utf8_lossy(bytes);
    let errors: Vec<_> = loaded
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Error)
        .collect();
    assert_eq!(loaded.config.is_none(), !errors.is_empty());
    let lines = text.split('\n').count();
    for error in &loaded.diagnostics {
        assert!((1..=lines).contains(&error.line), "{error:?}");
        let line = text.split('\n').nth(error.line - 1).unwrap_or_default();
        assert!(
            (1..=line.chars().count() + 1).contains(&error.column),
            "{error:?} in {line:?}"
        );
        assert!(!error.message.is_empty());
    }
    let shown = render("lb.toml", &text, &loaded.diagnostics, false);
    for error in errors.iter().take(100) {
        let place = format!("lb.toml:{}:{}", error.line, error.column);
        assert!(shown.contains(&place), "{place} is not in\n{shown}");
    }
    loaded
}

/// One damage of the full sample, chosen by the seed.
fn mutate(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = FULL.as_bytes().to_vec();
    let at = rng.usize(..bytes.len());
    let lines: Vec<&str> = FULL.lines().collect();
    let line = rng.usize(..lines.len());
    let joined = |lines: Vec<&str>| lines.join("\n").into_bytes();
    match rng.u8(..9) {
        0 => drop(bytes.remove(at)),
        1 => bytes.insert(at, bytes[at]),
        2 => bytes[at] = rng.u8(..),
        3 => bytes.truncate(at),
        4 => return joined([&lines[..line], &lines[line + 1..]].concat()),
        5 => return joined([&lines[..=line], &lines[line..]].concat()),
        6 => {
            let mut lines = lines;
            let other = rng.usize(..lines.len());
            lines.swap(line, other);
            return joined(lines);
        }
        // Another type, and another number, for one value.
        _ => {
            let values: Vec<(usize, usize)> = FULL
                .match_indices(" = ")
                .filter_map(|(at, _)| {
                    let rest = &FULL[at + 3..];
                    rest.find([',', '\n', ' '])
                        .map(|end| (at + 3, at + 3 + end))
                })
                .collect();
            let (start, end) = values[rng.usize(..values.len())];
            let others = [
                "0",
                "-1",
                "1.5",
                "true",
                "\"\"",
                "\"x\"",
                "[]",
                "{}",
                "[1]",
                "nan",
                "99999999999999999999",
            ];
            let other = others[rng.usize(..others.len())];
            bytes.splice(start..end, other.bytes());
        }
    }
    bytes
}

#[test]
fn a_hundred_damaged_samples_are_refused_with_a_place_or_read_whole() {
    let mut refused = 0;
    for seed in 0..100 {
        println!("seed {seed}");
        let bytes = mutate(&mut Rng::with_seed(seed));
        let loaded = refused_or_whole(&bytes);
        refused += usize::from(loaded.config.is_none());
    }
    assert!((30..100).contains(&refused), "{refused} were refused");
}

#[test]
fn a_text_that_ends_anywhere() {
    for end in 0..FULL.len() {
        let loaded = load(&FULL[..FULL.floor_char_boundary(end)]);
        assert!(
            loaded.config.is_some() || !loaded.diagnostics.is_empty(),
            "cut at {end}"
        );
    }
}

#[test]
fn errors_as_people_see_them() {
    let text = "\
[[listener]]
adress = \":8080\"

[cluster.web]
backends = [\"10.0.0.1:80\", \"10.0.0.1:80\"]
check = { http = \"/healthz\", interval = 5 }
";
    let loaded = load(text);
    assert_eq!(
        render("lb.toml", text, &loaded.diagnostics, false),
        r#"error: [[listener]] has no `address`
 --> lb.toml:1:1
  |
1 | [[listener]]
  | ^^^^^^^^^^^^ expected `address = …` in it, an address such as ":8080", "127.0.0.1:8080" or "unix:/run/lb.sock", or an array of them

error: unknown key `adress` in [[listener]]
 --> lb.toml:2:1
  |
2 | adress = ":8080"
  | ^^^^^^ expected `name`, `address`, `protocol`, `cluster`, `redirect`, `respond`, `errors`, `trusted_proxies`, `via`, `expose_request_id`, `timeouts`, `limits` or `http_versions`
  |
  = help: did you mean `address`?

error: backend "10.0.0.1:80" is given twice
 --> lb.toml:5:28
  |
5 | backends = ["10.0.0.1:80", "10.0.0.1:80"]
  |                            ^^^^^^^^^^^^^ expected each backend once in a cluster; a larger share is a `weight`
  |
  = note: the first is at lb.toml:5:13

error: `interval` is a bare number
 --> lb.toml:6:41
  |
6 | check = { http = "/healthz", interval = 5 }
  |                                         ^ expected a duration with its unit, such as "5s" or "5ms"

"#
    );
}

#[test]
fn errors_as_programs_see_them() {
    let text = "workers = 0\nlistener = [{ address = ':1' }]\n";
    let expected = serde_json::json!({
        "file": "lb.toml",
        "valid": false,
        "errors": [{
            "line": 1,
            "column": 11,
            "message": "`workers` is 0",
            "expected": "expected a whole number from 1 to 1024",
        }],
        "warnings": [{
            "line": 2,
            "column": 13,
            "message": "listener \":1\" answers every request with 404",
            "expected": "expected a `cluster`, or a route for it",
        }],
    });
    assert_eq!(to_json("lb.toml", &load(text).diagnostics), expected);
}

#[test]
fn ten_thousand_of_each() {
    let many = |line: &dyn Fn(usize) -> String| -> String { (0..10_000).map(line).collect() };
    let routes = many(&|i| {
        format!(
            "[[route]]\nhost = \"h{i}.example.com\"\npath = \"/v{i}/*\"\ncluster = \"c{}\"\n",
            i % 10
        )
    });
    let backends = many(&|i| format!("  \"10.0.{}.{}:8080\",\n", i / 250, i % 250));
    let clusters: String = (0..10)
        .map(|i| format!("[cluster.c{i}]\nbackends = [\n{backends}]\n"))
        .collect();
    let text = format!("[[listener]]\naddress = \":8080\"\n{routes}{clusters}");
    let loaded = load(&text);
    assert_eq!(loaded.diagnostics, []);
    let config = loaded.config.unwrap();
    assert_eq!(
        (config.routes.len(), config.clusters[9].backends.len()),
        (10_000, 10_000)
    );
    let bad = text.replace("cluster = \"c", "cluster = \"d");
    assert!(load(&bad).diagnostics.len() > 1000);
}

#[test]
fn the_sample_deployments_file_is_valid() {
    let text = include_str!("../docker/lb.toml");
    let loaded = load(text);
    assert!(
        loaded.config.is_some() && loaded.diagnostics.is_empty(),
        "{:?}",
        loaded.diagnostics
    );
}
