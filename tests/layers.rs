//! Imports point down only: no `crate::` path of the source points up or across the layers.
//!
//! L0 model; L1 pure rooms that do not know each other; L2 files, and snapshot over transport; L3 the data plane (proxy) and the
//! rooms of the control plane, none of which imports another; above them control and agent, then app, cli and demo.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::path::{Path, PathBuf};

/// What each room may import beside itself.
const L0: &[&str] = &["model"];
const L1: &[&str] = &["route", "balance", "limit", "http1", "gossip", "telemetry"];
const L2: &[&str] = &["snapshot", "transport", "files"];
const CONTROL_ROOMS: &[&str] = &["config", "discovery", "health", "admin", "logging"];

/// Whether code in the room `from` may import the room `to`; `None` if one of them has no layer yet.
fn allowed(from: &str, to: &str) -> Option<bool> {
    let below = |rooms: &[&[&str]]| rooms.iter().any(|layer| layer.contains(&to));
    let known = below(&[
        L0,
        L1,
        L2,
        CONTROL_ROOMS,
        &["proxy", "control", "agent", "app", "cli", "demo"],
    ]);
    let verdict = match from {
        _ if !known => return None,
        _ if from == to => true,
        "model" => false,
        "files" => below(&[L0]),
        "transport" => below(&[L0]) || below(&[L1]),
        "snapshot" => below(&[L0, L1, &["transport"]]),
        "proxy" => below(&[L0, L1, L2]),
        "control" | "agent" => below(&[L0, L1, L2, CONTROL_ROOMS]),
        "app" | "cli" | "demo" | "lib" | "main" => true,
        room if L1.contains(&room) => below(&[L0]),
        room if CONTROL_ROOMS.contains(&room) => below(&[L0, L1, L2]),
        _ => return None,
    };
    Some(verdict)
}

/// The room of a source file: its first directory, or its own name.
fn room(path: &Path) -> String {
    let first = path.components().next().unwrap();
    let name = first.as_os_str().to_str().unwrap();
    name.strip_suffix(".rs").unwrap_or(name).to_owned()
}

/// The rooms that a source text names after `crate::`, with the line numbers.
///
/// Follows `use crate::{a::x, b}` into its first level. Comments do not count; strings would, and none needs to.
fn imports(text: &str) -> Vec<(usize, String)> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap().to_owned() + "\n")
        .collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let whole_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if !whole_word {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = code[at + "crate::".len()..].trim_start();
        match rest.strip_prefix('{') {
            Some(group) => {
                found.extend(first_level(group).into_iter().map(|name| (line, name)));
            }
            None => found.push((line, word(rest))),
        }
    }
    found
}

fn word(text: &str) -> String {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    text[..end.unwrap_or(text.len())].to_owned()
}

/// The first words of the entries of a group, whose opening brace is gone.
fn first_level(group: &str) -> Vec<String> {
    let (mut depth, mut begin, mut words) = (0, 0, Vec::new());
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                words.push(word(group[begin..i].trim_start()));
                begin = i + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    words.retain(|w| !w.is_empty());
    words
}

/// What is wrong in one file.
fn faults(path: &Path, text: &str) -> Vec<String> {
    let from = room(path);
    let judge = |(line, to): (usize, String)| {
        let place = format!("{}:{line}: {from} -> {to}", path.display());
        match allowed(&from, &to) {
            Some(true) => None,
            Some(false) => Some(format!("{place} points up or across")),
            None => Some(format!(
                "{place}: a room without a layer; give it one in this test"
            )),
        }
    };
    imports(text).into_iter().filter_map(judge).collect()
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn no_path_in_the_source_points_up_or_across_the_layers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 10, "the source was not found");
    let check = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        faults(path.strip_prefix(&root).unwrap(), &text)
    };
    let all: Vec<String> = files.iter().flat_map(check).collect();
    assert!(all.is_empty(), "\n{}", all.join("\n"));
}

#[test]
fn bad_paths_are_found_and_good_ones_are_not() {
    for (path, text) in [
        ("model/a.rs", "use crate::route::Table;"),
        ("route/mod.rs", "use crate::balance::Picker;"),
        ("telemetry/a.rs", "fn f() { crate::http1::parse() }"),
        ("transport/listen.rs", "use crate::snapshot::Snapshot;"),
        ("snapshot/mod.rs", "use crate::proxy::worker;"),
        ("proxy/http/a.rs", "use crate::config::schema;"),
        ("proxy/http/a.rs", "use crate::control::Control;"),
        ("health/probe.rs", "use crate::admin;"),
        ("health/probe.rs", "use crate::proxy::pool;"),
        ("config/mod.rs", "use crate::control;"),
        ("control.rs", "use crate::proxy::worker;"),
        ("control/a.rs", "use crate::app;"),
        ("agent/mod.rs", "use crate::proxy::pool;"),
        ("agent/mod.rs", "use crate::control;"),
        ("route/mod.rs", "use crate::{model::a, balance::b};"),
        ("route/mod.rs", "use crate::{model::{a, b}, proxy};"),
        (
            "route/mod.rs",
            "use crate::{\n    model::{a, b},\n    proxy::{c},\n};",
        ),
        ("route/mod.rs", "pub(in crate::proxy) fn f() {}"),
        ("route/mod.rs", "use crate::nowhere::x;"),
        ("nowhere/mod.rs", "use crate::model::x;"),
    ] {
        assert_eq!(faults(Path::new(path), text).len(), 1, "{path}: {text}");
    }
    for (path, text) in [
        (
            "route/table.rs",
            "use crate::route::rule::Rule;\nuse crate::model::address;",
        ),
        (
            "snapshot/mod.rs",
            "use crate::transport::listen; use crate::{balance, telemetry::metrics};",
        ),
        (
            "proxy/mod.rs",
            "use crate::{model, http1, snapshot::publish, transport};",
        ),
        (
            "health/probe.rs",
            "use crate::snapshot;\n// use crate::proxy;\n//! crate::admin",
        ),
        (
            "control.rs",
            "use crate::{health, admin, config::load, snapshot};",
        ),
        (
            "agent/mod.rs",
            "use crate::{gossip::record, health::probe};",
        ),
        ("app.rs", "use crate::{control, proxy, cli};"),
        (
            "route/mod.rs",
            "macro_rules! m { () => { $crate::model::X } } use other_crate::proxy;",
        ),
    ] {
        assert_eq!(faults(Path::new(path), text), [""; 0], "{path}: {text}");
    }
    assert_eq!(imports("\n\nuse crate::model;"), [(3, "model".to_owned())]);
}
