//! What a new configuration changes compared to the previous one, in one line for the log: at most [`MAX_ITEMS`]
//! changes are named.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

use crate::config::schema::{BackendConfig, ClusterConfig, Config, RouteConfig};

/// Most changes that are named; the rest is counted.
const MAX_ITEMS: usize = 12;
/// Most characters of a name that are shown.
const MAX_NAME: usize = 64;

/// Differences between two configurations.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changes {
    named: Vec<String>,
    more: usize,
}

impl Changes {
    /// What differs in `after` from `before`.
    pub fn between(before: &Config, after: &Config) -> Self {
        let mut changes = Self::default();
        changes.top(before, after);
        changes.list("listener", &before.listeners, &after.listeners, |l| &l.name);
        changes.list("route", &before.routes, &after.routes, |r| &r.name);
        changes.order_of_routes(&before.routes, &after.routes);
        changes.clusters(&before.clusters, &after.clusters);
        changes
    }

    fn add(&mut self, item: impl FnOnce() -> String) {
        match self.named.len() < MAX_ITEMS {
            true => self.named.push(item()),
            false => self.more += 1,
        }
    }

    fn top(&mut self, before: &Config, after: &Config) {
        let keys = [
            ("workers", before.workers != after.workers),
            ("drain_timeout", before.drain_timeout != after.drain_timeout),
            (
                "shutdown_delay",
                before.shutdown_delay != after.shutdown_delay,
            ),
            ("watch", before.watch != after.watch),
            ("state_dir", before.state_dir != after.state_dir),
            ("[admin]", before.admin != after.admin),
            ("[log]", before.log != after.log),
            ("[gossip]", before.gossip != after.gossip),
        ];
        for (key, _) in keys.iter().filter(|(_, changed)| *changed) {
            self.add(|| format!("{key} changed"));
        }
    }

    fn list<T: PartialEq>(&mut self, what: &str, before: &[T], after: &[T], name: fn(&T) -> &str) {
        for (name, before, after) in differences(before, after, |e| Cow::Borrowed(name(e))) {
            self.entry(what, &name, before, after);
        }
    }

    /// Adds that an entry was added, removed or changed.
    fn entry<T>(&mut self, what: &str, name: &str, before: Option<&T>, after: Option<&T>) {
        let change = match (before, after) {
            (None, _) => "added",
            (_, None) => "removed",
            (Some(_), Some(_)) => "changed",
        };
        self.add(|| format!("{what} {} {change}", cut(name)));
    }

    /// The first match wins, so the order counts.
    fn order_of_routes(&mut self, before: &[RouteConfig], after: &[RouteConfig]) {
        fn names(routes: &[RouteConfig]) -> impl Iterator<Item = &str> {
            routes.iter().map(|route| route.name.as_str())
        }
        if names(before).eq(names(after)) {
            return;
        }
        let places = numbered(names(before)).enumerate();
        let places: HashMap<(&str, usize), usize> = places.map(|(at, key)| (key, at)).collect();
        let kept = numbered(names(after)).filter_map(|key| places.get(&key).copied());
        if !kept.is_sorted() {
            self.add(|| "order of the routes changed".to_owned());
        }
    }

    fn clusters(&mut self, before: &[ClusterConfig], after: &[ClusterConfig]) {
        for (name, before, after) in differences(before, after, |c| Cow::Borrowed(&*c.name)) {
            let (Some(before), Some(after)) = (before, after) else {
                self.entry("cluster", &name, before, after);
                continue;
            };
            let what = format!("cluster {}:", cut(&name));
            if before.settings.policy != after.settings.policy {
                self.add(|| format!("{what} policy {}", after.settings.policy.as_str()));
            }
            let backend = format!("{what} backend");
            let address = |backend: &BackendConfig| Cow::Owned(backend.address.to_string());
            for (name, before, after) in differences(&before.backends, &after.backends, address) {
                self.entry(&backend, &name, before, after);
            }
            let mut rest = before.clone();
            rest.settings.policy = after.settings.policy;
            rest.backends.clone_from(&after.backends);
            if rest != *after {
                self.add(|| format!("{what} settings changed"));
            }
        }
    }
}

/// The names, each with a number that tells equal names apart.
fn numbered<N: Hash + Eq + Clone>(
    names: impl Iterator<Item = N>,
) -> impl Iterator<Item = (N, usize)> {
    let mut seen: HashMap<N, usize> = HashMap::new();
    names.map(move |name| {
        let number = seen.entry(name.clone()).or_default();
        *number += 1;
        (name, *number)
    })
}

/// An entry by its name, in one list and in the other.
type Difference<'a, T> = (Cow<'a, str>, Option<&'a T>, Option<&'a T>);

/// The entries of both lists that are not the same, by name, and those with one name by their order; new ones in their
/// place, removed ones at the end. Cheap as long as the names stand in the same order, as they do in most reloads.
fn differences<'a, T: PartialEq>(
    before: &'a [T],
    after: &'a [T],
    name: impl Fn(&'a T) -> Cow<'a, str>,
) -> Vec<Difference<'a, T>> {
    let in_order = before.iter().zip(after);
    let in_order = in_order
        .take_while(|(old, new)| name(old) == name(new))
        .count();
    let (before, old_rest) = before.split_at(in_order);
    let (after, new_rest) = after.split_at(in_order);
    let changed = before.iter().zip(after).filter(|(old, new)| old != new);
    let mut differences: Vec<Difference<'a, T>> = changed
        .map(|(old, new)| (name(new), Some(old), Some(new)))
        .collect();

    let keys = |entries: &'a [T]| numbered(entries.iter().map(&name)).zip(entries);
    let mut old: HashMap<(Cow<'a, str>, usize), &'a T> = keys(old_rest).collect();
    differences.extend(keys(new_rest).filter_map(|(key, new)| {
        let old = old.remove(&key);
        (old != Some(new)).then_some((key.0, old, Some(new)))
    }));
    let gone = keys(old_rest).filter(|(key, _)| old.contains_key(key));
    differences.extend(gone.map(|(key, entry)| (key.0, Some(entry), None)));
    differences
}

fn cut(name: &str) -> Cow<'_, str> {
    match name.char_indices().nth(MAX_NAME) {
        Some((end, _)) => Cow::Owned(format!("{}…", &name[..end])),
        None => Cow::Borrowed(name),
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.named.is_empty(), self.more) {
            (true, _) => f.write_str("nothing"),
            (false, 0) => f.write_str(&self.named.join("; ")),
            (false, more) => write!(f, "{}; and {more} more", self.named.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::load::load;
    use crate::model::page::Page;

    const FILE: &str = "
[[listener]]
name = 'web'
address = ':80'
cluster = 'web'
[[route]]
path = '/a'
cluster = 'web'
[[route]]
path = '/b'
cluster = 'web'
[cluster.web]
backends = ['10.0.0.1:80', '10.0.0.2:80']
";

    fn config(text: &str) -> Config {
        let loaded = load(text);
        loaded
            .config
            .unwrap_or_else(|| panic!("{text}: {:?}", loaded.diagnostics))
    }

    fn between(before: &str, after: &str) -> String {
        Changes::between(&config(before), &config(after)).to_string()
    }

    #[test]
    fn what_changed() {
        let to = |from: &str, to: &str| FILE.replace(from, to);
        for (after, expected) in [
            (FILE.to_owned(), "nothing"),
            (FILE.replace('\'', "\""), "nothing"),
            (to("':80'", "':81'"), "listener web changed"),
            (
                to("'web'\naddress", "'front'\naddress"),
                "listener front added; listener web removed",
            ),
            (to("'/b'", "'/c'"), "route /c added; route /b removed"),
            (
                to("'/b'\ncluster = 'web'", "'/b'\nrespond = {}"),
                "route /b changed",
            ),
            (
                to("'/a'", "'/x'")
                    .replace("'/b'", "'/a'")
                    .replace("'/x'", "'/b'"),
                "order of the routes changed",
            ),
            (
                to("'10.0.0.2:80'", "'10.0.0.3:80'"),
                "cluster web: backend 10.0.0.3:80 added; cluster web: backend 10.0.0.2:80 removed",
            ),
            (
                to("'10.0.0.2:80'", "{ address = '10.0.0.2:80', weight = 2 }"),
                "cluster web: backend 10.0.0.2:80 changed",
            ),
            (
                format!("{FILE}policy = 'random'\nretry = {{ attempts = 1 }}"),
                "cluster web: policy random; cluster web: settings changed",
            ),
            (
                format!("{FILE}[cluster.api]\nbackends = ['a:1']"),
                "cluster api added",
            ),
            (
                format!("drain_timeout = '1s'\nlog.level = 'warn'\nadmin.address = ':1'\n{FILE}"),
                "drain_timeout changed; [admin] changed; [log] changed",
            ),
        ] {
            assert_eq!(between(FILE, &after), expected, "{after}");
        }
        let api = format!("{FILE}[cluster.api]\nbackends = ['a:1']");
        assert_eq!(between(&api, FILE), "cluster api removed");
        let twice = to("'/b'", "'/a'");
        assert_eq!(
            between(&twice, &to("'/b'\ncluster = 'web'", "'/a'\nrespond = {}")),
            "route /a changed"
        );
    }

    #[test]
    fn entries_with_one_name_are_told_apart_by_their_order() {
        let names =
            |entries: &[(&'static str, u8)], others: &[(&'static str, u8)]| -> Vec<String> {
                let found = differences(entries, others, |entry| Cow::Borrowed(entry.0));
                let shown = found.into_iter().map(|(name, old, new)| {
                    let number = |entry: Option<&(&str, u8)>| entry.map_or(0, |entry| entry.1);
                    format!("{name}{}{}", number(old), number(new))
                });
                shown.collect()
            };
        let before = [("x", 1), ("x", 2), ("y", 3), ("x", 4)];
        assert!(names(&before, &before).is_empty());
        assert_eq!(
            names(&before, &[("x", 1), ("x", 5), ("y", 3), ("x", 4)]),
            ["x25"]
        );
        assert_eq!(names(&before, &[("x", 1), ("y", 3), ("x", 2)]), ["x40"]);
        assert_eq!(
            names(&before, &[("y", 3), ("x", 1), ("z", 7)]),
            ["z07", "x20", "x40"]
        );
        assert_eq!(names(&[], &before).len(), 4);
    }

    #[test]
    fn the_line_is_bounded() {
        let long = "x".repeat(128);
        let many: String = (0..5000)
            .map(|n| format!("[cluster.{long}{n}]\nbackends = ['a:1']\n"))
            .collect();
        let many = many.replace(&long, &"x".repeat(120));
        let line = between(FILE, &format!("{FILE}{many}"));
        assert!(line.ends_with("; and 4988 more"), "{line}");
        assert!(line.len() < 2000, "{}", line.len());
    }

    #[test]
    fn expressions_are_compared_by_their_text() {
        let with = |regex: &str| {
            FILE.replace(
                "path = '/a'",
                &format!("host = 'h'\npath_regex = '{regex}'"),
            )
        };
        assert_eq!(between(&with("^/a"), &with("^/a")), "nothing");
        let other = between(&with("^/a"), &with("^/b"));
        assert!(other.contains("route"), "{other}");
    }

    #[test]
    fn pages_are_compared_by_what_they_hold() {
        let with = |body: &[u8]| {
            let mut config = config(FILE);
            let page = Page {
                content_type: "text/html".to_owned(),
                body: body.into(),
            };
            config.routes[1].errors.add(503, Arc::new(page));
            config
        };
        let between = |a: &[u8], b: &[u8]| Changes::between(&with(a), &with(b)).to_string();
        assert_eq!(between(b"sorry", b"sorry"), "nothing");
        assert_eq!(between(b"sorry", b"later"), "route /b changed");
    }
}
