//! Imports point down only: no `crate::` path of the source points up or across the layers, and inside a room no files import
//! each other in a circle, but a module and its children.
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
        &[
            "proxy",
            "control",
            "agent",
            "app",
            "cli",
            "demo",
            "internals",
        ],
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
        "app" | "cli" | "demo" | "internals" | "lib" | "main" => true,
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

/// The source files as modules that import each other.
mod files {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::{Path, PathBuf};

    /// The path of a module, from the root of the crate.
    pub(super) type Module = Vec<String>;

    /// What one file holds.
    #[derive(Debug, Default)]
    pub(super) struct File {
        /// Paths that it names, each as its segments.
        paths: Vec<Module>,
        /// Names that it exports, and where they come from.
        exports: BTreeMap<String, Module>,
    }

    /// The module of a source file.
    pub(super) fn module_of(path: &Path) -> Module {
        let mut module: Module = path
            .with_extension("")
            .components()
            .map(|part| part.as_os_str().to_str().unwrap().to_owned())
            .collect();
        if module
            .last()
            .is_some_and(|name| name == "mod" || name == "lib")
        {
            module.pop();
        }
        module
    }

    /// The code without comments, texts and what is there for tests alone.
    pub(super) fn code_of(text: &str) -> String {
        let mut code = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let skip = if rest.starts_with("//") {
                rest.find('\n').unwrap_or(rest.len())
            } else if let Some(hashes) = raw_string(rest) {
                let end = format!("\"{}", "#".repeat(hashes));
                let begin = hashes + 2;
                rest[begin..]
                    .find(&end)
                    .map_or(rest.len(), |at| begin + at + end.len())
            } else if c == '"' {
                string_end(rest)
            } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
                rest[1..].find('\'').unwrap() + 2
            } else {
                code.push(c);
                c.len_utf8()
            };
            rest = &rest[skip..];
        }
        without_tests(&code)
    }

    /// The number of `#` of the raw string that `text` begins with.
    fn raw_string(text: &str) -> Option<usize> {
        let hashes = text.strip_prefix('r')?;
        let count = hashes.chars().take_while(|c| *c == '#').count();
        hashes[count..].starts_with('"').then_some(count)
    }

    /// The end of the string that `text` begins with.
    fn string_end(text: &str) -> usize {
        let mut escaped = false;
        for (at, c) in text.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return at + 1,
                _ => {}
            }
        }
        text.len()
    }

    fn without_tests(code: &str) -> String {
        let mut out = String::new();
        let mut rest = code;
        while let Some(at) = rest.find("#[cfg(test)]") {
            out.push_str(&rest[..at]);
            let item = &rest[at..];
            let end = match (item.find(';'), item.find('{')) {
                (Some(semicolon), Some(brace)) if brace < semicolon => block_end(item, brace),
                (None, Some(brace)) => block_end(item, brace),
                (Some(semicolon), _) => semicolon + 1,
                (None, None) => item.len(),
            };
            rest = &item[end..];
        }
        out + rest
    }

    /// The end of the block that begins at `brace`; of a declaration, its semicolon.
    fn block_end(item: &str, brace: usize) -> usize {
        let mut depth = 0;
        for (at, c) in item[brace..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => continue,
            }
            if depth == 0 {
                let end = brace + at + 1;
                let is_use = item[..brace].contains(" use ");
                return end + usize::from(is_use);
            }
        }
        item.len()
    }

    /// What a file holds whose code this is.
    pub(super) fn read(code: &str) -> File {
        let mut file = File::default();
        let mut other = String::new();
        let mut rest = code;
        while let Some(at) = find_use(rest) {
            other.push_str(&rest[..at]);
            let tree = &rest[at + "use ".len()..];
            let end = tree.find(';').unwrap_or(tree.len());
            let is_export = rest[..at].trim_end().ends_with([')', 'b']) && exports(&rest[..at]);
            for (path, name) in expand(&tree[..end]) {
                if is_export {
                    file.exports.insert(name, path.clone());
                }
                file.paths.push(path);
            }
            rest = &tree[end..];
        }
        other.push_str(rest);
        file.paths.extend(inline_paths(&other));
        file
    }

    /// Whether the declaration that follows `before` is public in some way.
    fn exports(before: &str) -> bool {
        let line = before.rsplit(['\n', ';', '}']).next().unwrap();
        line.trim_start().starts_with("pub")
    }

    fn find_use(code: &str) -> Option<usize> {
        code.match_indices("use ").map(|(at, _)| at).find(|at| {
            let before = code[..*at].chars().next_back();
            before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '#')
                && !code[..*at].ends_with("+ ")
        })
    }

    /// The paths of a use tree, each with the name that it gets.
    fn expand(tree: &str) -> Vec<(Module, String)> {
        let tree = tree.trim();
        if let Some(open) = tree.find('{') {
            let prefix = segments(&tree[..open]);
            let close = tree.rfind('}').unwrap_or(tree.len());
            let with_prefix =
                |(path, name): (Module, String)| ([&prefix[..], &path].concat(), name);
            return parts(&tree[open + 1..close])
                .into_iter()
                .flat_map(expand)
                .map(with_prefix)
                .map(|(mut path, name)| {
                    if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
                        path.pop();
                    }
                    (path, name)
                })
                .collect();
        }
        let (path, name) = tree.split_once(" as ").unwrap_or((tree, ""));
        let path = segments(path);
        let last = path.last().cloned().unwrap_or_default();
        let name = if name.is_empty() {
            last
        } else {
            name.trim().to_owned()
        };
        vec![(path, name)]
    }

    /// The parts of a list between braces.
    fn parts(list: &str) -> Vec<&str> {
        let (mut depth, mut begin, mut found) = (0, 0, Vec::new());
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    found.push(&list[begin..at]);
                    begin = at + 1;
                }
                _ => {}
            }
        }
        found.push(&list[begin..]);
        found.retain(|part| !part.trim().is_empty());
        found
    }

    fn segments(path: &str) -> Module {
        let parts = path.split("::").map(|part| part.trim().to_owned());
        parts.filter(|part| !part.is_empty()).collect()
    }

    /// Paths in the code that begin in the crate.
    fn inline_paths(code: &str) -> Vec<Module> {
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        code.split(|c: char| !is_part(c))
            .filter(|word| word.contains("::"))
            .map(segments)
            .collect()
    }

    /// The crate: its files by module.
    pub(super) type Crate = BTreeMap<Module, File>;

    /// The module that a path of `from` leads to, if it is one of the crate.
    fn resolve(all: &Crate, from: &Module, path: &[String]) -> Option<Module> {
        let mut module = from.clone();
        let mut segments = path.iter();
        let mut left = segments.as_slice();
        let mut is_local = false;
        while let Some(first) = segments.next() {
            match first.as_str() {
                "crate" => module.clear(),
                "self" => {}
                "super" => drop(module.pop()),
                _ => break,
            }
            is_local = true;
            left = segments.as_slice();
        }
        let first = left.first()?;
        let child = [&module[..], std::slice::from_ref(first)].concat();
        if !is_local && !all.contains_key(&child) {
            return None;
        }
        for segment in left {
            let child = [&module[..], std::slice::from_ref(segment)].concat();
            if !all.contains_key(&child) {
                break;
            }
            module = child;
        }
        let item = left.get(module.len().saturating_sub(module_depth(from, path)));
        let exported = item.and_then(|name| all.get(&module)?.exports.get(name));
        match exported {
            Some(path) => resolve(all, &module, path).or(Some(module)),
            None => all.contains_key(&module).then_some(module),
        }
    }

    /// How deep the module is in which the named part of `path` begins.
    fn module_depth(from: &Module, path: &[String]) -> usize {
        let mut depth = from.len();
        for segment in path {
            match segment.as_str() {
                "crate" => depth = 0,
                "self" => {}
                "super" => depth = depth.saturating_sub(1),
                _ => break,
            }
        }
        depth
    }

    /// For each module, which of its children import which, each with an example.
    type Siblings = BTreeMap<Module, BTreeMap<String, BTreeMap<String, String>>>;

    fn siblings(all: &Crate) -> Siblings {
        let mut found = Siblings::new();
        for (from, file) in all {
            for path in &file.paths {
                let Some(to) = resolve(all, from, path) else {
                    continue;
                };
                let same = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                // A module and those below it may know each other.
                if same == from.len() || same == to.len() {
                    continue;
                }
                let level = found.entry(from[..same].to_vec()).or_default();
                let example = format!("{} names {}", from.join("::"), to.join("::"));
                level
                    .entry(from[same].clone())
                    .or_default()
                    .entry(to[same].clone())
                    .or_insert(example);
            }
        }
        found
    }

    /// Circles of modules under one parent, each with an example of every import in it.
    pub(super) fn circles(all: &Crate) -> Vec<String> {
        let mut found = Vec::new();
        for (parent, level) in siblings(all) {
            let mut seen = BTreeSet::new();
            for start in level.keys() {
                if let Some(circle) = circle_from(&level, start, &mut seen) {
                    let arrow = |pair: &[String]| level[&pair[0]][&pair[1]].clone();
                    let arrows: Vec<String> = circle.windows(2).map(arrow).collect();
                    let parent = parent.join("::");
                    found.push(format!("circle in {parent}: {}", arrows.join(", ")));
                }
            }
        }
        found
    }

    /// A circle that can be reached from `start` over children that are not in `seen` yet.
    fn circle_from(
        level: &BTreeMap<String, BTreeMap<String, String>>,
        start: &str,
        seen: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        fn visit(
            level: &BTreeMap<String, BTreeMap<String, String>>,
            at: &str,
            way: &mut Vec<String>,
            seen: &mut BTreeSet<String>,
        ) -> Option<Vec<String>> {
            if let Some(begin) = way.iter().position(|step| step == at) {
                let circle = [&way[begin..], &[at.to_owned()]].concat();
                return Some(circle);
            }
            if !seen.insert(at.to_owned()) {
                return None;
            }
            way.push(at.to_owned());
            let next = level.get(at).into_iter().flat_map(BTreeMap::keys);
            let circle = next.into_iter().find_map(|to| visit(level, to, way, seen));
            way.pop();
            circle
        }
        visit(level, start, &mut Vec::new(), seen)
    }

    /// Reads the files of a crate.
    pub(super) fn read_all(texts: impl IntoIterator<Item = (PathBuf, String)>) -> Crate {
        texts
            .into_iter()
            .map(|(path, text)| (module_of(&path), read(&code_of(&text))))
            .collect()
    }
}

/// Whether a file is there for tests alone.
fn is_of_tests(path: &Path) -> bool {
    let text = path.to_str().unwrap();
    let names = ["tests.rs", "fixture.rs", "capture.rs"];
    text.contains("/tests/")
        || names.iter().any(|name| text.ends_with(name))
        || text.contains("internals/")
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    let of_program = paths
        .into_iter()
        .filter(|path| !is_of_tests(path) && !path.ends_with("main.rs"));
    let all = files::read_all(of_program.map(|path| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path.strip_prefix(&root).unwrap().to_owned(), text)
    }));
    let circles = files::circles(&all);
    assert!(circles.is_empty(), "\n{}", circles.join("\n"));
}

#[test]
fn circles_are_found_and_what_is_none_is_not() {
    let circles = |texts: &[(&str, &str)]| {
        let texts = texts
            .iter()
            .map(|(path, text)| (path.into(), (*text).to_owned()));
        files::circles(&files::read_all(texts)).len()
    };
    let down = [
        ("a/mod.rs", "mod b; mod c;"),
        ("a/b.rs", "use super::c::C;"),
        ("a/c.rs", ""),
    ];
    assert_eq!(circles(&down), 0);
    for back in [
        "use super::b::B;",
        "use crate::a::b::B;",
        "fn f() { crate::a::b::f() }",
        "use super::{x, b::{B, C}};",
        "use super::B;",
        "use crate::{a::B, x};",
    ] {
        let with_back = [
            ("a/mod.rs", "mod b; mod c; pub(crate) use b::B;"),
            ("a/b.rs", "use super::c::C;"),
            ("a/c.rs", back),
        ];
        assert_eq!(circles(&with_back), 1, "{back}");
    }
    for text in [
        "#[cfg(test)]\nmod tests { use super::super::b::B; }",
        "#[cfg(test)]\nuse super::b::B;",
        "// use super::b::B;",
        "const A: &str = \"crate::a::b\";",
        "use super::A;",
        "use std::fmt;",
    ] {
        let without = [
            ("a/mod.rs", "mod b; mod c; struct A;"),
            ("a/b.rs", "use super::c::C;"),
            ("a/c.rs", text),
        ];
        assert_eq!(circles(&without), 0, "{text}");
    }
    // Whole subtrees count, and a module may use its children, and they it.
    let subtrees = [
        ("a/mod.rs", ""),
        ("a/b/mod.rs", "mod x; use x::X;"),
        ("a/b/x.rs", "use super::Y; use crate::a::c::C;"),
        ("a/c.rs", "use super::b::Y;"),
    ];
    assert_eq!(circles(&subtrees), 1);
    let family = [
        ("a/mod.rs", "mod b; use b::B;"),
        ("a/b.rs", "use super::A;"),
    ];
    assert_eq!(circles(&family), 0);
}
