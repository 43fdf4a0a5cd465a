//! `docs/configuration.md`, which is made of the declarations of the keys: that it is up to date, that its examples are
//! valid, and that the defaults it shows are what an absent key means.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use super::{REST, shown};
use crate::config::load::{load, load_agent};
use crate::config::sections::{KeySpec, OF_PROXY, Otherwise, Section, ValueKind, agent};
use crate::model::units::{show_duration, show_size};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");

const INTRODUCTION: &str = "\
# Configuration

The reference of all keys. It is made of the declarations in `src/config/sections`, so do not edit it: change the
declaration, and write the page again with `LBPROXY_BLESS=1 cargo test --lib config::tests::reference`.

Four words carry the file, the log, the metrics and the status: a **listener** is a bound address, a **route** says which
requests go where, a **cluster** is a named set of backends under one policy, a **backend** is one address. The samples in
`config/` show them together; `config/full.toml` has every key.

- Durations are written `\"250ms\"`, `\"10s\"`, `\"5m\"`, `\"1h\"` or `\"1d\"`, sizes `\"512B\"`, `\"64KiB\"`, `\"10MiB\"`, `\"1GiB\"` or
  `\"1TiB\"`. Bare numbers are refused for both, and no value means \"unlimited\".
- A share is a ratio from 0.0 to 1.0 or a text such as `\"50%\"`.
- An unknown key, a wrong type and a value out of range are errors with the line, the place and what was expected. All
  errors are reported at once, by `lbproxy check lb.toml` and by a start or a reload. What is legal but surely a mistake is
  a warning.
- `\"${NAME}\"` in any string is a variable of the environment in which the process was started, and an error if there is
  none. `\"${NAME:-default}\"` has a default for a variable that is absent or empty, and `\"$${\"` is a plain `${`.
- Paths of files are relative to the directory of the file that names them.
- Routes, listeners and clusters may stand in several files (see `include`), everything else in one of them.
";

/// The whole page.
fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push('\n');
    for section in all().filter(|section| level(section) == 2) {
        let heading = section.intro.0;
        writeln!(page, "- [{heading}](#{})", anchor(heading)).unwrap();
    }
    for section in all() {
        let (heading, intro) = section.intro;
        let marks = "#".repeat(level(section));
        write!(
            page,
            "\n{marks} {heading}\n\n{}\n\n",
            wrapped(intro.trim_end())
        )
        .unwrap();
        page.push_str("| key | type | default | range | meaning |\n|---|---|---|---|---|\n");
        for key in section.keys {
            let cells = [
                format!("`{}`", key.name),
                type_of(key),
                default_of(key),
                range_of(key),
                key.text.to_owned(),
            ];
            let cells = cells.map(|cell| cell.replace('|', "\\|"));
            writeln!(page, "| {} |", cells.join(" | ")).unwrap();
        }
    }
    page
}

fn all() -> impl Iterator<Item = &'static Section> {
    OF_PROXY.into_iter().chain([&agent::AGENT])
}

/// The text with its lines of prose broken at 120 characters.
fn wrapped(text: &str) -> String {
    let mut in_code = false;
    let lines = text.lines().map(|line| {
        in_code ^= line.starts_with("```");
        if in_code {
            return line.to_owned();
        }
        let (mut out, mut width) = (String::new(), 0);
        for word in line.split(' ') {
            let length = word.chars().count();
            let separator = match width {
                0 => "",
                _ if width + 1 + length > 120 => "\n",
                _ => " ",
            };
            width = if separator == " " {
                width + 1 + length
            } else {
                length
            };
            out.push_str(separator);
            out.push_str(word);
        }
        out
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// In the largest unit that is enough for it.
fn short_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => show_duration(duration),
        _ if seconds.is_multiple_of(3600) => show_duration(duration),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

/// Tables within tables stand below them.
fn level(section: &Section) -> usize {
    let (heading, _) = section.intro;
    let is_top = heading.starts_with("`[") || !heading.starts_with('`');
    if is_top { 2 } else { 3 }
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || matches!(c, '-' | '_') => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

fn type_of(key: &KeySpec) -> String {
    let words = |words: Vec<&str>| {
        let words: Vec<String> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
        words.join(", ")
    };
    match &key.kind {
        ValueKind::Boolean(_) => "boolean".to_owned(),
        ValueKind::Integer(..) | ValueKind::OneOf(..) => "integer".to_owned(),
        ValueKind::Size(..) => "size".to_owned(),
        ValueKind::Duration(..) => "duration".to_owned(),
        ValueKind::CountOrShare(..) => "integer or share".to_owned(),
        ValueKind::Word { words: set, .. } => words(set()),
        ValueKind::Words { words: set, .. } => format!("array of {}", words(set())),
        ValueKind::Form(shape, _) | ValueKind::List { shape, .. } => code_spans(shape),
        ValueKind::Table(section) => {
            let heading = section.intro.0;
            format!("[table](#{})", anchor(heading))
        }
        ValueKind::Tables(section) => {
            let heading = section.intro.0;
            format!("[tables](#{})", anchor(heading))
        }
    }
}

/// Puts what a message shows as TOML, strings and brackets, between backticks.
fn code_spans(shape: &str) -> String {
    let mut out = String::new();
    let mut rest = shape;
    while let Some(start) = rest.find(['"', '{', '[']) {
        let (before, literal) = rest.split_at(start);
        let end = end_of_literal(literal);
        let (literal, after) = literal.split_at(end);
        write!(out, "{before}`{literal}`").unwrap();
        rest = after;
    }
    out + rest
}

/// Where the string, table or array ends with which `text` begins.
fn end_of_literal(text: &str) -> usize {
    let (mut depth, mut in_string) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '"' => in_string = !in_string,
            '{' | '[' if !in_string => depth += 1,
            '}' | ']' if !in_string => depth -= 1,
            _ => {}
        }
        if depth == 0 && !in_string {
            return at + c.len_utf8();
        }
    }
    text.len()
}

/// The default as TOML, if it is a value.
fn literal(key: &KeySpec) -> Option<String> {
    match &key.kind {
        ValueKind::Boolean(value) => Some(value.to_string()),
        ValueKind::Integer(_, Otherwise::Is(value)) | ValueKind::OneOf(_, value) => {
            Some(value.to_string())
        }
        ValueKind::Size(_, Otherwise::Is(value)) => Some(format!("\"{}\"", show_size(*value))),
        ValueKind::Duration(_, Otherwise::Is(value)) => {
            Some(format!("\"{}\"", short_duration(*value)))
        }
        ValueKind::Word { default, .. } => Some(format!("\"{}\"", default())),
        ValueKind::Words { default, .. } => Some(format!("{default:?}")),
        ValueKind::Form(_, Otherwise::Is(text))
        | ValueKind::List {
            otherwise: Otherwise::Is(text),
            ..
        } => Some((*text).to_owned()),
        _ => None,
    }
}

fn default_of(key: &KeySpec) -> String {
    let in_words = |otherwise: &str| code_spans(otherwise);
    match &key.kind {
        ValueKind::Integer(_, Otherwise::Absent(text))
        | ValueKind::Size(_, Otherwise::Absent(text))
        | ValueKind::Duration(_, Otherwise::Absent(text))
        | ValueKind::CountOrShare(_, text)
        | ValueKind::Form(_, Otherwise::Absent(text))
        | ValueKind::List {
            otherwise: Otherwise::Absent(text),
            ..
        } => in_words(text),
        ValueKind::Form(_, Otherwise::Required)
        | ValueKind::List {
            otherwise: Otherwise::Required,
            ..
        } => "**required**".to_owned(),
        _ => literal(key).map_or_else(String::new, |text| format!("`{text}`")),
    }
}

fn range_of(key: &KeySpec) -> String {
    match &key.kind {
        ValueKind::Integer(range, _) | ValueKind::CountOrShare(range, _) => {
            format!("{} to {}", range.start(), range.end())
        }
        ValueKind::OneOf(numbers, _) => {
            let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
            numbers.join(", ")
        }
        ValueKind::Size(range, _) => {
            format!(
                "{} to {}",
                show_size(*range.start()),
                show_size(*range.end())
            )
        }
        ValueKind::Duration(range, _) => {
            let (least, most) = (show_duration(*range.start()), show_duration(*range.end()));
            format!("{least} to {most}")
        }
        ValueKind::List { most, .. } if *most < usize::MAX => format!("at most {most} entries"),
        _ => String::new(),
    }
}

#[test]
fn the_page_is_up_to_date() {
    let page = page();
    if std::env::var_os("LBPROXY_BLESS").is_some() {
        std::fs::create_dir_all(Path::new(PAGE).parent().unwrap()).unwrap();
        std::fs::write(PAGE, &page).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    let differs = page
        .lines()
        .zip(written.lines())
        .find(|(new, old)| new != old);
    assert!(
        page == written,
        "docs/configuration.md is not what the declarations say (first difference: {differs:?}); write it again with:\n\
         LBPROXY_BLESS=1 cargo test --lib config::tests::reference"
    );
}

#[test]
fn links_lead_to_headings() {
    let page = page();
    let headings: Vec<String> = all().map(|section| anchor(section.intro.0)).collect();
    let mut links = page.split("](#").skip(1).peekable();
    assert!(links.peek().is_some());
    for link in links {
        let target = link.split(')').next().unwrap().to_owned();
        let count = headings
            .iter()
            .filter(|heading| **heading == target)
            .count();
        assert_eq!(count, 1, "#{target}");
    }
}

#[test]
fn the_examples_are_valid() {
    let mut examples = 0;
    for section in all() {
        for block in section.intro.1.split("```toml ").skip(1) {
            let (kind, block) = block.split_once('\n').unwrap();
            let block = block.split("```").next().unwrap();
            let diagnostics = match kind {
                "agent" => load_agent(block.as_bytes()).diagnostics,
                "fragment" => load(&completed(block)).diagnostics,
                other => panic!("{other}"),
            };
            let diagnostics: Vec<String> = diagnostics.iter().map(shown).collect();
            assert_eq!(diagnostics, [""; 0], "{}:\n{block}", section.name);
            examples += 1;
        }
    }
    assert!(examples > 15, "only {examples} examples were found");
}

/// An example that shows one part alone, with the parts that no file can be without.
fn completed(block: &str) -> String {
    let mut text = block.to_owned();
    if !block.contains("[[listener]]") {
        text.push_str("\n[[listener]]\naddress = ':8080'\ncluster = 'web'\n");
    }
    if !block.contains("[cluster.") {
        text.push_str("\n[cluster.web]\nbackends = ['10.0.0.1:80', '10.0.0.2:80']\n");
    }
    text
}

/// What stands before and after an entry of a section in a valid file.
fn surroundings(section: &Section) -> Option<(String, String)> {
    let listener = "[[listener]]\naddress = ':8080'\ncluster = 'web'\n";
    let cluster = "[cluster.web]\nbackends = ['10.0.0.1:80']\n";
    let within = |before: &str, after: &str| Some((before.to_owned(), after.to_owned()));
    let in_listener = |before: &str, after: &str| {
        Some((format!("{listener}{before}"), format!("{after}\n{cluster}")))
    };
    let in_route = |before: &str, after: &str| {
        Some((
            format!("[[route]]\n{before}"),
            format!("{after}\n{listener}{cluster}"),
        ))
    };
    let in_cluster = |before: &str, after: &str| {
        Some((format!("{listener}{cluster}{before}"), after.to_owned()))
    };
    match section.name {
        "the top level of the file" => within("", &format!("\n{REST}")),
        "[log]" => within("[log]\n", &format!("\n{REST}")),
        "`access`" => within("log.access = { to = 'stdout', ", &format!(" }}\n{REST}")),
        "[[listener]]" => in_listener("", ""),
        "a listener's `timeouts`" => in_listener("timeouts = { ", " }"),
        "a listener's `limits`" => in_listener("limits = { ", " }"),
        "[[route]]" => in_route("respond = {}\n", ""),
        "`redirect`" => in_route("redirect = { to = '/', ", " }"),
        "`respond`" => in_route("respond = { ", " }"),
        "[cluster.NAME]" => within(&format!("{listener}[cluster.web]\n"), ""),
        "a backend" => within(
            &format!("{listener}[cluster.web]\nbackends = [{{ address = '10.0.0.1:80', "),
            " }]",
        ),
        "`resolve`" => in_cluster("resolve = { ", " }"),
        "`check`" => in_cluster("check = { http = '/', ", " }"),
        "a cluster's `timeouts`" => in_cluster("timeouts = { ", " }"),
        "`retry`" => in_cluster("retry = { ", " }"),
        "a cluster's `limits`" => in_cluster("limits = { ", " }"),
        "[gossip]" => within(
            "[gossip]\naddress = '127.0.0.1:7946'\n",
            &format!("\n{REST}"),
        ),
        "an agent's file" => within(
            "cluster = 'web'\nbackend = '10.0.0.7:8080'\naddress = '127.0.0.1:7946'\ncheck = 'tcp://a:1'\n",
            "",
        ),
        _ => None,
    }
}

#[test]
fn an_absent_key_means_the_default_that_is_shown() {
    let mut keys = 0;
    for section in all() {
        let config = |text: &str| {
            let config = match section.name == agent::AGENT.name {
                true => format!("{:?}", load_agent(text.as_bytes()).config),
                false => format!("{:?}", load(text).config),
            };
            assert_ne!(config, "None", "{text}");
            config
        };
        for key in section.keys {
            let Some(default) = literal(key) else {
                continue;
            };
            let (before, after) =
                surroundings(section).unwrap_or_else(|| panic!("no file for {}", section.name));
            let entry = format!("{} = {default}", key.name);
            let absent = before.trim_end_matches(", ");
            assert_eq!(
                config(&format!("{before}{entry}{after}")),
                config(&format!("{absent}{after}")),
                "{entry} in {}",
                section.name
            );
            keys += 1;
        }
    }
    assert!(keys > 50, "only {keys} defaults were compared");
}
