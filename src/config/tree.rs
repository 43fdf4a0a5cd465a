//! From the parsed texts to the one tree that the readers see: spans count through all texts, `${NAME}` in string
//! values is filled in, included files are joined, and `[defaults]` are copied to each table that does not say
//! otherwise.
//!
//! All of this happens after TOML has been parsed, so no value can make syntax. Keys stay as they are written.

use std::borrow::Cow;
use std::collections::HashSet;

use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::diagnostics::findings::{Finding, Findings, quoted};
use super::environment::Environment;
use super::sections::answers::ACTIONS;
use super::sections::cluster::{CHECK_DETAILS, CHECK_KINDS, CLUSTER};
use super::sections::listener::LISTENER;
use super::sections::{Inheritance, Section, ValueKind};
use super::span::TextSpan;

/// Bytes that all variables may add together.
const MAX_EXPANDED: usize = 16 << 20;
/// Values that are copied from `[defaults]`, over all tables.
const MAX_INHERITED: usize = 1 << 20;
/// What is known of the values of a tree.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Starts of the values that could not be filled in, which has been reported.
    pub unknown: HashSet<usize>,
    /// Starts of the values that were filled in, so that their text is not their value.
    pub expanded: HashSet<usize>,
    /// Starts of the values that stand in `[defaults]`.
    pub inherited: HashSet<usize>,
}

/// Builds trees of parsed texts.
pub(super) struct TreeBuilder<'w> {
    /// Provides the variables.
    pub environment: &'w dyn Environment,
    /// All texts, joined.
    pub text: &'w str,
    /// Whether to look for what TOML 1.0 does not have.
    pub whole: bool,
    /// What was found.
    pub findings: Findings,
    /// What is known of the values.
    pub marks: Marks,
    /// Bytes that variables may still add.
    pub room: usize,
}

impl<'w> TreeBuilder<'w> {
    pub(super) fn new(environment: &'w dyn Environment, text: &'w str, whole: bool) -> Self {
        Self {
            environment,
            text,
            whole,
            findings: Findings::default(),
            marks: Marks::default(),
            room: MAX_EXPANDED,
        }
    }

    /// The tree of a text that begins at `start`.
    pub(super) fn build<'t>(&mut self, tree: DeTable<'t>, start: usize) -> DeTable<'t> {
        self.table(tree, start, true)
    }

    fn table<'t>(&mut self, table: DeTable<'t>, start: usize, look: bool) -> DeTable<'t> {
        let entries = table.into_iter().map(|(key, value)| {
            let span = shifted(key.span(), start);
            let key = Spanned::new(span, key.into_inner());
            (key, self.value(value, start, look))
        });
        entries.collect()
    }

    fn value<'t>(
        &mut self,
        value: Spanned<DeValue<'t>>,
        start: usize,
        look: bool,
    ) -> Spanned<DeValue<'t>> {
        let span = shifted(value.span(), start);
        let value = match value.into_inner() {
            DeValue::String(text) => DeValue::String(self.string(text, &span)),
            DeValue::Array(array) => {
                let mut moved = DeArray::new();
                for entry in array {
                    moved.push(self.value(entry, start, look));
                }
                DeValue::Array(moved)
            }
            DeValue::Table(table) => {
                let odd = look && self.whole && self.warn_of_form(&span);
                DeValue::Table(self.table(table, start, look && !odd))
            }
            other => other,
        };
        Spanned::new(span, value)
    }

    fn string<'t>(&mut self, text: DeString<'t>, span: &TextSpan) -> DeString<'t> {
        if !text.contains("${") {
            return text;
        }
        let mut problems = Vec::new();
        let expanded = expand(&text, self.environment, &mut problems);
        let more = expanded.len().saturating_sub(text.len());
        match self.room.checked_sub(more) {
            Some(room) => self.room = room,
            None => problems.push((
                "the variables are too long".to_owned(),
                format!("expected at most {MAX_EXPANDED} bytes in all"),
            )),
        }
        self.marks.expanded.insert(span.start);
        if problems.is_empty() {
            return Cow::Owned(expanded);
        }
        for (message, label) in problems {
            self.findings.add(
                Finding::error(span.clone(), message)
                    .label(label)
                    .help("a plain `${` is written `$${`".to_owned()),
            );
        }
        self.marks.unknown.insert(span.start);
        text
    }

    /// Whether an inline table needs TOML 1.1, with a warning if it does.
    fn warn_of_form(&mut self, span: &TextSpan) -> bool {
        let literal = self.text.get(span.clone()).unwrap_or_default();
        let Some(what) = beyond_toml_1_0(literal) else {
            return false;
        };
        self.findings.add(
            Finding::warning(span.clone(), format!("an inline table with {what}"))
                .label("many editors and other readers of TOML refuse it")
                .help(
                    "write it on one line without a comma at its end, or as a [table]".to_owned(),
                ),
        );
        true
    }
}

fn shifted(span: TextSpan, start: usize) -> TextSpan {
    span.start + start..span.end + start
}

/// `text` with its variables filled in. `problems` gets a message, and what was expected, for each that cannot be.
fn expand(
    text: &str,
    environment: &dyn Environment,
    problems: &mut Vec<(String, String)>,
) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &from[2..];
            continue;
        }
        out.push_str(before);
        let Some((inside, after)) = from[2..].split_once('}') else {
            problems.push((
                "`${` without its `}`".to_owned(),
                "expected `${NAME}` or `${NAME:-default}`".to_owned(),
            ));
            return out;
        };
        match variable(inside, environment) {
            Ok(value) => out.push_str(&value),
            Err(problem) => problems.push(problem),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The value of `NAME` or `NAME:-default`. As in a shell, an empty variable takes the default too.
fn variable(inside: &str, environment: &dyn Environment) -> Result<String, (String, String)> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let shown: String = name.chars().take(60).collect();
    if !is_name(name) {
        return Err((
            format!("`${{{shown}}}` does not name a variable"),
            "expected a name of letters, digits and `_`, as in `${NAME}` or `${NAME:-default}`"
                .to_owned(),
        ));
    }
    let value = environment
        .variable(name)
        .filter(|value| default.is_none() || !value.is_empty());
    match (value.map(std::ffi::OsString::into_string), default) {
        (Some(Ok(value)), _) => Ok(value),
        (Some(Err(_)), _) => Err((
            format!("the environment variable `{shown}` is not UTF-8"),
            "expected text".to_owned(),
        )),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err((
            format!("there is no environment variable `{shown}`"),
            format!("expected it to be set, or a default as in `${{{shown}:-…}}`"),
        )),
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What an inline table has that only TOML 1.1 allows: a line end or a trailing comma directly inside its braces, or
/// inside those of a table in it.
fn beyond_toml_1_0(literal: &str) -> Option<&'static str> {
    if !literal.starts_with('{') {
        return None;
    }
    let bytes = literal.as_bytes();
    let mut open = Vec::new();
    let mut last = b' ';
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' | b'\'' => at = end_of_string(bytes, at) - 1,
            b'#' => {
                let line = literal[at..].find('\n');
                at += line.unwrap_or(literal.len() - at) - 1;
            }
            b'{' | b'[' => open.push(byte),
            b'}' if last == b',' => return Some("a comma at its end"),
            b'}' | b']' => drop(open.pop()),
            b'\n' if open.last() == Some(&b'{') => return Some("line ends"),
            _ => {}
        }
        if !byte.is_ascii_whitespace() && byte != b'#' {
            last = byte;
        }
        at += 1;
    }
    None
}

/// The offset after the string that begins at `at`.
fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let quote = bytes[at];
    let long = bytes[at..].starts_with(&[quote; 3]);
    let mut next = at + if long { 3 } else { 1 };
    while let Some(&byte) = bytes.get(next) {
        if byte == b'\\' && quote == b'"' {
            next += 2;
        } else if long && bytes[next..].starts_with(&[quote; 3]) {
            // One or two quotes before the three that end it belong to the string.
            let run = bytes[next..].iter().take(5).take_while(|b| **b == quote);
            return next + run.count();
        } else if byte == quote && !long {
            return next + 1;
        } else {
            next += 1;
        }
    }
    bytes.len()
}

/// One tree of the trees of all files, each with whether another file has included it. Lists are joined; names and
/// other keys may be given once.
pub(super) fn join<'t>(trees: Vec<(DeTable<'t>, bool)>, findings: &mut Findings) -> DeTable<'t> {
    let mut trees = trees.into_iter();
    let Some((mut root, _)) = trees.next() else {
        return DeTable::new();
    };
    for (tree, included) in trees {
        for (key, value) in tree {
            add(&mut root, key, value, included, findings);
        }
    }
    root
}

fn add<'t>(
    root: &mut DeTable<'t>,
    key: Spanned<DeString<'t>>,
    value: Spanned<DeValue<'t>>,
    included: bool,
    findings: &mut Findings,
) {
    let name = key.get_ref().clone();
    let twice = |first: &TextSpan| {
        Finding::error(key.span(), format!("`{name}` is given in two files"))
            .label("expected it once in all files")
            .related(first, "the first is")
    };
    match name.as_ref() {
        "include" if included => findings.add(
            Finding::error(key.span(), "an included file that includes others")
                .label("expected `include` only in a file that is named at the start"),
        ),
        // Each file that was named has its own, which has been followed.
        "include" => {}
        "listener" | "route" => match (root.get_mut(name.as_ref()), value) {
            (None, value) => drop(root.insert(key, value)),
            (Some(known), value) => match (known.get_mut(), value.get_ref()) {
                (DeValue::Array(known), DeValue::Array(_)) => {
                    if let DeValue::Array(more) = value.into_inner() {
                        for entry in more {
                            known.push(entry);
                        }
                    }
                }
                (DeValue::Array(_), _) => findings.add(
                    Finding::error(value.span(), format!("`{name}` is a single table")).label(
                        format!("expected [[{name}]], with two brackets on each side"),
                    ),
                ),
                // That the first is wrong is reported when it is read.
                _ => {}
            },
        },
        "cluster" => match (root.get_mut(name.as_ref()), value) {
            (None, value) => drop(root.insert(key, value)),
            (Some(known), value) => {
                let span = value.span();
                match (known.get_mut(), value.into_inner()) {
                    (DeValue::Table(known), DeValue::Table(more)) => {
                        for (key, value) in more {
                            add_cluster(known, key, value, findings);
                        }
                    }
                    (DeValue::Table(_), _) => findings.add(
                        Finding::error(span, "`cluster` is not a table")
                            .label("expected tables, each under its own [cluster.NAME]"),
                    ),
                    _ => {}
                }
            }
        },
        _ => match root.get_key_value(name.as_ref()) {
            Some((first, _)) => findings.add(twice(&first.span())),
            None => drop(root.insert(key, value)),
        },
    }
}

fn add_cluster<'t>(
    known: &mut DeTable<'t>,
    key: Spanned<DeString<'t>>,
    value: Spanned<DeValue<'t>>,
    findings: &mut Findings,
) {
    if let Some((first, _)) = known.get_key_value(key.get_ref().as_ref()) {
        let name = quoted(key.get_ref());
        findings.add(
            Finding::error(key.span(), format!("cluster {name} is given in two files"))
                .label("expected each cluster once")
                .related(&first.span(), "the first is"),
        );
        return;
    }
    known.insert(key, value);
}

/// Copies `[defaults]` to the listeners and clusters that do not say otherwise.
pub(super) fn inherit(root: &mut DeTable<'_>, marks: &mut Marks, findings: &mut Findings) {
    let Some(defaults) = root.get("defaults").cloned() else {
        return;
    };
    let DeValue::Table(kinds) = defaults.get_ref() else {
        return;
    };
    let table_of = |kind: &str| match kinds.get(kind).map(|value| value.get_ref()) {
        Some(DeValue::Table(table)) => Some(table.clone()),
        _ => None,
    };
    let mut room = MAX_INHERITED;
    if let (Some(default), Some(DeValue::Array(listeners))) = (
        table_of("listener"),
        root.get_mut("listener").map(|value| value.get_mut()),
    ) {
        let defaults = ListenerDefaults::new(&default);
        for value in listeners.iter_mut() {
            if let DeValue::Table(listener) = value.get_mut() {
                let default = defaults.fitting(listener);
                give(listener, default, Some(&LISTENER), &mut room);
            }
        }
        mark(&default, marks);
    }
    if let (Some(default), Some(DeValue::Table(clusters))) = (
        table_of("cluster"),
        root.get_mut("cluster").map(|value| value.get_mut()),
    ) {
        let inherited = inherited_keys(&default, &CLUSTER);
        for (_, value) in clusters.iter_mut() {
            if let DeValue::Table(cluster) = value.get_mut() {
                give(cluster, &inherited, Some(&CLUSTER), &mut room);
            }
        }
        mark(&default, marks);
    }
    if room == 0 {
        findings.add(
            Finding::error(defaults.span(), "`defaults` holds too much")
                .label("expected less, or fewer listeners and clusters that take it"),
        );
    }
}

/// The keys of a table of defaults that can be inherited. What is wrong with the others is reported where they stand.
fn inherited_keys<'t>(default: &DeTable<'t>, section: &Section) -> DeTable<'t> {
    let is_inherited = |name: &str| {
        let key = section.key(name);
        key.is_some_and(|key| key.inheritance != Inheritance::Never)
    };
    let entries = default.iter();
    let inherited = entries.filter(|(key, _)| is_inherited(key.get_ref()));
    inherited
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// What listeners inherit: by protocol, and by whether they say what takes the rest of the requests.
struct ListenerDefaults<'t> {
    protocol: Option<String>,
    http: [DeTable<'t>; 2],
    tcp: [DeTable<'t>; 2],
}

impl<'t> ListenerDefaults<'t> {
    fn new(default: &DeTable<'t>) -> Self {
        let http = inherited_keys(default, &LISTENER);
        let mut tcp = http.clone();
        remove_keys_for_requests(&mut tcp, &LISTENER);
        let with_action = |table: DeTable<'t>| {
            let mut without = table.clone();
            ACTIONS.iter().for_each(|key| drop(without.remove(*key)));
            [table, without]
        };
        Self {
            protocol: protocol(&http).map(str::to_owned),
            http: with_action(http),
            tcp: with_action(tcp),
        }
    }

    fn fitting(&self, listener: &DeTable<'_>) -> &DeTable<'t> {
        let kinds = match protocol(listener).or(self.protocol.as_deref()) {
            Some("tcp") => &self.tcp,
            _ => &self.http,
        };
        let has_action = ACTIONS.iter().any(|key| listener.contains_key(*key));
        &kinds[usize::from(has_action)]
    }
}

fn protocol<'a>(listener: &'a DeTable<'_>) -> Option<&'a str> {
    listener.get("protocol")?.get_ref().as_str()
}

/// Removes the keys that have no effect on a tcp listener.
fn remove_keys_for_requests(table: &mut DeTable<'_>, section: &Section) {
    for key in section.keys {
        if key.for_requests {
            table.remove(key.name);
        } else if let ValueKind::Table(inner) = key.kind
            && let Some(DeValue::Table(table)) =
                table.get_mut(key.name).map(|value| value.get_mut())
        {
            remove_keys_for_requests(table, inner);
        }
    }
}

/// Gives `own` what it lacks. `section` declares the keys of both, if they are declared.
fn give<'t>(
    own: &mut DeTable<'t>,
    default: &DeTable<'t>,
    section: Option<&Section>,
    room: &mut usize,
) {
    for (key, value) in default {
        if *room == 0 {
            return;
        }
        let name = key.get_ref().as_ref();
        let declared = section.and_then(|section| section.key(name));
        let inheritance = declared.map_or(Inheritance::Merged, |key| key.inheritance);
        match (own.get_mut(name).map(|own| own.get_mut()), value.get_ref()) {
            (None, content) => {
                *room = room.saturating_sub(weight(content));
                if *room > 0 {
                    own.insert(key.clone(), value.clone());
                }
            }
            (Some(DeValue::Table(own)), DeValue::Table(default)) if name == "check" => {
                *room = room.saturating_sub(default.len());
                give(own, &fitting_check(own, default), None, room);
            }
            (Some(DeValue::Table(own)), DeValue::Table(default))
                if inheritance == Inheritance::Merged =>
            {
                give(own, default, None, room);
            }
            _ => {}
        }
    }
}

/// The part of a default check that fits one that may ask in another way.
fn fitting_check<'t>(own: &DeTable<'t>, default: &DeTable<'t>) -> DeTable<'t> {
    let kinds = |table: &DeTable<'_>| CHECK_KINDS.map(|kind| table.contains_key(kind));
    let mut default = default.clone();
    if kinds(own) != [false; CHECK_KINDS.len()] && kinds(own) != kinds(&default) {
        let foreign = CHECK_KINDS.iter().chain(&CHECK_DETAILS);
        foreign.for_each(|key| drop(default.remove(*key)));
    }
    default
}

fn weight(value: &DeValue<'_>) -> usize {
    1 + match value {
        DeValue::Array(array) => array.iter().map(|v| weight(v.get_ref())).sum(),
        DeValue::Table(table) => table.iter().map(|(_, v)| weight(v.get_ref())).sum(),
        _ => 0,
    }
}

fn mark(default: &DeTable<'_>, marks: &mut Marks) {
    for (key, value) in default {
        marks.inherited.insert(key.span().start);
        marks.inherited.insert(value.span().start);
        match value.get_ref() {
            DeValue::Table(table) => mark(table, marks),
            DeValue::Array(entries) => {
                let starts = entries.iter().map(|entry| entry.span().start);
                marks.inherited.extend(starts);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::path::Path;

    use super::*;

    struct Env;

    impl Environment for Env {
        fn variable(&self, name: &str) -> Option<OsString> {
            match name {
                "A" => Some("a".into()),
                "EMPTY" => Some(OsString::new()),
                "BRACES" => Some("${A}".into()),
                "RAW" => Some(OsString::from_vec(vec![0xff])),
                _ => None,
            }
        }

        fn content(&self, _: &Path, _: usize) -> Result<Vec<u8>, String> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn variables_are_filled_in() {
        for (text, value) in [
            ("${A}", "a"),
            ("x${A}y${A}z", "xayaz"),
            ("$${A}", "${A}"),
            ("$$${A}", "$${A}"),
            ("$A $ {A} }", "$A $ {A} }"),
            ("${NONE:-}", ""),
            ("${NONE:-b:-c}", "b:-c"),
            ("${A:-b}", "a"),
            ("${EMPTY:-b}", "b"),
            ("${EMPTY}", ""),
            // The value of a variable is not expanded again.
            ("${BRACES}", "${A}"),
            ("é${A}é", "éaé"),
        ] {
            let mut problems = Vec::new();
            assert_eq!(expand(text, &Env, &mut problems), value, "{text}");
            assert_eq!(problems, [], "{text}");
        }
    }

    #[test]
    fn a_variable_that_cannot_be_filled_in_is_reported() {
        for (text, message) in [
            ("${NONE}", "there is no environment variable `NONE`"),
            ("${RAW}", "the environment variable `RAW` is not UTF-8"),
            ("${A", "`${` without its `}`"),
            ("${}", "`${}` does not name a variable"),
            ("${1A}", "`${1A}` does not name a variable"),
            ("${A-b}", "`${A-b}` does not name a variable"),
            ("${ A }", "`${ A }` does not name a variable"),
        ] {
            let mut problems = Vec::new();
            expand(text, &Env, &mut problems);
            assert_eq!(problems.len(), 1, "{text}");
            assert_eq!(problems[0].0, message, "{text}");
        }
    }

    #[test]
    fn inline_tables_that_only_toml_1_1_allows() {
        for (literal, what) in [
            ("{ a = 1 }", None),
            ("{ a = [\n1,\n] }", None),
            ("{ a = '''\n''' }", None),
            ("{ a = \"\"\"\n\"\"\"\"\" }", None),
            ("{ a = \"}\\\",}\" }", None),
            ("{ a = [ # {\n] }", None),
            ("{}", None),
            ("[a]\n{,}", None),
            ("{\n a = 1 }", Some("line ends")),
            ("{ a = 1, }", Some("a comma at its end")),
            ("{ a = [1,] }", None),
            ("{ a = { b = 1,\n} }", Some("line ends")),
            ("{ a = [{ b = 1, }] }", Some("a comma at its end")),
            ("{ a = '", None),
            ("{ a = \"\\", None),
            ("{ #", None),
        ] {
            assert_eq!(beyond_toml_1_0(literal), what, "{literal}");
        }
    }
}
