//! What the loader makes of valid and invalid texts, word for word.

mod agent;
mod errors;
mod gossip;
mod habits;
mod parts;
mod reference;
mod several;
mod syntax;
mod values;
mod warnings;

use proptest::prelude::*;

use super::diagnostics::{Diagnostic, Severity};
use super::limits::MAX_FILE;
use super::load::{load, load_agent, load_bytes};
use super::{schema::Config, sections};

/// A small valid file that can follow a snippet with keys of the top level or with tables.
const REST: &str = "
[[listener]]
address = ':8080'
cluster = 'web'
[cluster.web]
backends = ['10.0.0.1:80']
";

/// `1:2 error: message | label | help`, without the parts that are empty.
fn shown(diagnostic: &Diagnostic) -> String {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let Diagnostic {
        line,
        column,
        message,
        label,
        ..
    } = diagnostic;
    let mut shown = format!("{line}:{column} {severity}: {message} | {label}");
    if let Some(help) = &diagnostic.help {
        shown.push_str(&format!(" | {help}"));
    }
    if let Some(related) = &diagnostic.related {
        shown.push_str(&format!(
            " | {} {}:{}",
            related.message, related.line, related.column
        ));
    }
    shown
}

/// All diagnostics of `text`.
fn report(text: &str) -> Vec<String> {
    let loaded = load(text);
    let errors = loaded
        .diagnostics
        .iter()
        .any(|diagnostic| diagnostic.severity == Severity::Error);
    assert_eq!(loaded.config.is_none(), errors, "{text}");
    loaded.diagnostics.iter().map(shown).collect()
}

/// All diagnostics of `snippet`, followed by a small valid file.
fn report_of(snippet: &str) -> Vec<String> {
    report(&format!("{snippet}\n{REST}"))
}

/// The configuration of a valid text.
fn config(text: &str) -> Config {
    let loaded = load(text);
    loaded
        .config
        .unwrap_or_else(|| panic!("{text}\n{:#?}", loaded.diagnostics))
}

/// Compares all diagnostics of `snippet`, one a line, with `expected`.
#[track_caller]
fn expect(snippet: &str, expected: &str) {
    assert_eq!(report_of(snippet).join("\n"), expected, "{snippet}");
}

#[test]
fn the_full_sample_has_every_key() {
    sections::seen::take();
    assert_eq!(report(include_str!("../../../config/full.toml")), [""; 0]);
    let agent = load_agent(include_bytes!("../../../config/agent.toml"));
    assert_eq!(agent.diagnostics, []);
    let seen = sections::seen::take();
    for section in sections::OF_PROXY
        .into_iter()
        .chain([&sections::agent::AGENT])
    {
        // One of two keys for the same thing is enough.
        let others = [("[gossip]", "key_files"), ("`access`", "to")];
        let is_shown = |key: &&str| !others.contains(&(section.name, *key));
        for key in section.names().filter(is_shown) {
            assert!(
                seen.contains(&(section.name, key)),
                "`{key}` of {} is not read, or is missing in the sample",
                section.name
            );
        }
    }
}

#[test]
fn a_file_that_is_not_text_or_too_large() {
    let report = |bytes: &[u8]| -> Vec<String> {
        let loaded = load_bytes(bytes);
        assert!(loaded.config.is_none());
        loaded.diagnostics.iter().map(shown).collect()
    };
    assert_eq!(
        report(b"a = 1\nb = \"\xff\"\n"),
        ["2:6 error: the file is not UTF-8 text | expected UTF-8, found the byte 0xFF"]
    );
    assert_eq!(
        report(&vec![b' '; MAX_FILE + 1]),
        [
            "1:1 error: the file is too large | expected at most 16777216 bytes, found at least 16777217"
        ]
    );
    assert!(load_bytes(REST.as_bytes()).config.is_some());
}

#[test]
fn a_hostile_number_of_errors_is_bounded() {
    let loaded = load(&format!("x = 1\nlistener = [{}]", "1,".repeat(100_000)));
    assert_eq!(loaded.diagnostics.len(), 1001);
    let last = loaded.diagnostics.last().unwrap();
    assert_eq!(last.message, "99001 more errors are not listed");
}

#[test]
fn deep_nesting_does_not_overflow() {
    for open in ["[", "{ a = ", "a."] {
        let text = format!("a = {}", open.repeat(100_000));
        assert!(load(&text).config.is_none());
        assert!(load(&open.repeat(100_000)).config.is_none());
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "(\\PC|\n){0,200}") {
        let _ = load(&text);
    }

    #[test]
    fn nothing_that_looks_like_a_file_panics(
        parts in proptest::collection::vec(prop_oneof![
            Just("[[listener]]\n"), Just("[[route]]\n"), Just("[cluster.a]\n"), Just("[cluster]\n"),
            Just("[listener.limits]\n"), Just("[log]\n"), Just("[admin]\n"), Just("[gossip]\n"), Just("\n"), Just("["), Just("]"),
            Just("{"), Just("}"), Just(","), Just("="), Just("\""), Just("'''"), Just("#"),
            Just("address = \":1\"\n"), Just("cluster = \"a\"\n"), Just("listeners = [\"a\"]\n"),
            Just("path = \"/*\"\n"), Just("backends = [\"a:1\", {}]\n"), Just("a.b = 1\n"), Just("a = 0x\n"),
            Just("check = { http = 1 }\n"), Just("é = \"\\u0000\"\n"), Just("present = 1e999\n"),
            Just("discover = { gossip = \"a\" }\n"), Just("seeds = [\"a:1\", 1]\n"), Just("backend = \"[::]:1\"\n"),
            Just("path_regex = '('\n"), Just("x = 1979-05-27\n"), Just("-0"), Just("nan"),
        ], 0..30)
    ) {
        let text = parts.concat();
        for diagnostic in load(&text).diagnostics {
            prop_assert!(diagnostic.line >= 1 && diagnostic.column >= 1);
            prop_assert!(diagnostic.line <= text.lines().count() + 1);
        }
        let agent = load_agent(text.as_bytes());
        prop_assert_eq!(agent.config.is_some(), super::diagnostics::is_valid(&agent.diagnostics));
    }

    #[test]
    fn no_mutation_of_the_sample_panics(
        at in 0..10_000usize, len in 0..40usize, with in "[\\PC\n]{0,4}"
    ) {
        let sample = include_str!("../../../config/full.toml");
        let start = sample.floor_char_boundary(at % sample.len());
        let end = sample.ceil_char_boundary((start + len).min(sample.len()));
        let text = format!("{}{with}{}", &sample[..start], &sample[end..]);
        let loaded = load(&text);
        prop_assert_eq!(loaded.config.is_some(), super::diagnostics::is_valid(&loaded.diagnostics));
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let loaded = load_bytes(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _ = super::diagnostics::render("lb.toml", &text, &loaded.diagnostics, true);
    }
}
