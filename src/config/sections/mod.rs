//! The declaration of every key: its table, name, kind, range, default, and a text for people.
//!
//! One declaration feeds the checks and defaults of the readers, the list of expected keys and the "did you mean" of an
//! unknown one, the test that `config/full.toml` names every key, and `docs/configuration.md`. A key that does not work
//! yet is not declared, so it is unknown like any other.
//!
//! To add a key: declare it in its section, give its struct in `schema` or `model::settings` a field, read it in one
//! line of the reader of its table, show it in `config/full.toml` (a test asks for it) and write the reference page
//! again.

use std::ops::RangeInclusive;
use std::time::Duration;

pub(crate) mod agent;
pub(crate) mod answers;
pub(crate) mod cluster;
pub(crate) mod gossip;
pub(crate) mod listener;
pub(crate) mod route;
pub(crate) mod top;
pub(crate) mod words;

use words::ConfigWord;

/// A table of the file and the keys that it may hold.
#[cfg_attr(
    not(test),
    allow(
        dead_code,
        reason = "the reference page, which a test writes, reads all of it"
    )
)]
#[derive(Debug)]
pub(crate) struct Section {
    /// What messages call it.
    pub name: &'static str,
    /// What messages say was expected where its table is a value of another type.
    pub shape: &'static str,
    /// Keys that such a value stands for: `retry = 3` is meant as `retry = { attempts = 3 }`.
    pub meant: &'static [Meant],
    /// Heading and introduction on the reference page, in Markdown.
    pub intro: (&'static str, &'static str),
    /// The keys in the order in which people write them.
    pub keys: &'static [KeySpec],
}

/// What a value that stands in the place of a table is probably meant as.
#[derive(Debug)]
pub(crate) enum Meant {
    /// A string is the value of this key.
    String(&'static str),
    /// An integer is the value of this key.
    Integer(&'static str),
    /// A boolean of this value is this entry.
    Boolean(bool, &'static str),
}

/// A key of a table.
#[cfg_attr(
    not(test),
    allow(
        dead_code,
        reason = "the reference page, which a test writes, reads all of it"
    )
)]
#[derive(Debug)]
pub(crate) struct KeySpec {
    /// The key.
    pub name: &'static str,
    /// Its type, range and default.
    pub kind: ValueKind,
    /// What it means, in Markdown.
    pub text: &'static str,
    /// Whether only requests are affected, so that it has no effect on a tcp listener and its clusters.
    pub for_requests: bool,
    /// What becomes of it in `[defaults]`.
    pub inheritance: Inheritance,
}

/// How a table takes a key of `[defaults]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inheritance {
    /// If it does not have the key itself; tables are merged key by key.
    Merged,
    /// If it does not have the key itself, and then the whole table.
    Whole,
    /// Never: the key belongs to one table.
    Never,
}

/// What stands for a key that is absent.
#[cfg_attr(
    not(test),
    allow(
        dead_code,
        reason = "the reference page, which a test writes, reads all of it"
    )
)]
#[derive(Debug, Clone, Copy)]
pub(crate) enum Otherwise<T> {
    /// This value.
    Is(T),
    /// No value. The text says to people what holds instead.
    Absent(&'static str),
    /// The table means nothing without the key.
    Required,
}

/// The type of a value with what its type alone does not say. What belongs to a grammar or to several keys at once is
/// left to the reader of the table.
#[cfg_attr(
    not(test),
    allow(
        dead_code,
        reason = "the reference page, which a test writes, reads all of it"
    )
)]
#[derive(Debug)]
pub(crate) enum ValueKind {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(RangeInclusive<u64>, Otherwise<u64>),
    /// One of a few numbers.
    OneOf(&'static [u64], u64),
    /// A number of bytes with its unit.
    Size(RangeInclusive<u64>, Otherwise<u64>),
    /// A span of time with its unit.
    Duration(RangeInclusive<Duration>, Otherwise<Duration>),
    /// A whole number, or a share of something.
    CountOrShare(RangeInclusive<u64>, &'static str),
    /// A word of a closed set.
    Word {
        /// The set.
        words: fn() -> Vec<&'static str>,
        /// The word that an absent key stands for.
        default: fn() -> &'static str,
    },
    /// An array of words of a closed set.
    Words {
        /// The set.
        words: fn() -> Vec<&'static str>,
        /// The words that an absent key stands for.
        default: &'static [&'static str],
    },
    /// A value with a grammar of its own, as a noun phrase that can follow "expected".
    Form(&'static str, Otherwise<&'static str>),
    /// An array, or a single value that stands for an array of one.
    List {
        /// As in [`Form`](Self::Form).
        shape: &'static str,
        /// What each entry is.
        entry: &'static str,
        /// Entries at most.
        most: usize,
        /// Shown as TOML.
        otherwise: Otherwise<&'static str>,
    },
    /// A table with keys of its own.
    Table(&'static Section),
    /// Tables of one kind: `[[name]]` or `[name.NAME]`.
    Tables(&'static Section),
}

impl KeySpec {
    const fn new(name: &'static str, kind: ValueKind, text: &'static str) -> Self {
        Self {
            name,
            kind,
            text,
            for_requests: false,
            inheritance: Inheritance::Merged,
        }
    }

    /// The same key, which has no effect on bytes that are not requests.
    const fn for_requests(self) -> Self {
        Self {
            for_requests: true,
            ..self
        }
    }

    /// The same key with another inheritance than key by key.
    const fn inherited(self, inheritance: Inheritance) -> Self {
        Self {
            inheritance,
            ..self
        }
    }

    /// What messages say was expected where the value has another type; empty for kinds whose text depends on a range.
    pub(crate) fn shape(&self) -> &'static str {
        match &self.kind {
            ValueKind::Form(shape, _) | ValueKind::List { shape, .. } => shape,
            ValueKind::Table(section) | ValueKind::Tables(section) => section.shape,
            _ => "",
        }
    }
}

const fn boolean(name: &'static str, default: bool, text: &'static str) -> KeySpec {
    KeySpec::new(name, ValueKind::Boolean(default), text)
}

const fn integer(
    name: &'static str,
    range: RangeInclusive<u64>,
    otherwise: Otherwise<u64>,
    text: &'static str,
) -> KeySpec {
    KeySpec::new(name, ValueKind::Integer(range, otherwise), text)
}

const fn size(
    name: &'static str,
    range: RangeInclusive<u64>,
    otherwise: Otherwise<u64>,
    text: &'static str,
) -> KeySpec {
    KeySpec::new(name, ValueKind::Size(range, otherwise), text)
}

const fn duration(
    name: &'static str,
    range: RangeInclusive<Duration>,
    otherwise: Otherwise<Duration>,
    text: &'static str,
) -> KeySpec {
    KeySpec::new(name, ValueKind::Duration(range, otherwise), text)
}

/// A word of the enum `W`, whose default is that of the enum.
const fn word<W: ConfigWord>(name: &'static str, text: &'static str) -> KeySpec {
    let kind = ValueKind::Word {
        words: words::all::<W>,
        default: words::default::<W>,
    };
    KeySpec::new(name, kind, text)
}

const fn words<W: ConfigWord>(
    name: &'static str,
    default: &'static [&'static str],
    text: &'static str,
) -> KeySpec {
    let words = words::all::<W>;
    KeySpec::new(name, ValueKind::Words { words, default }, text)
}

const fn form(
    name: &'static str,
    shape: &'static str,
    otherwise: Otherwise<&'static str>,
    text: &'static str,
) -> KeySpec {
    KeySpec::new(name, ValueKind::Form(shape, otherwise), text)
}

const fn list(
    name: &'static str,
    shape: &'static str,
    entry: &'static str,
    otherwise: Otherwise<&'static str>,
    text: &'static str,
) -> KeySpec {
    let kind = ValueKind::List {
        shape,
        entry,
        most: usize::MAX,
        otherwise,
    };
    KeySpec::new(name, kind, text)
}

/// A list of at most `most` entries.
const fn bounded(most: usize, key: KeySpec) -> KeySpec {
    let kind = match key.kind {
        ValueKind::List {
            shape,
            entry,
            otherwise,
            ..
        } => ValueKind::List {
            shape,
            entry,
            most,
            otherwise,
        },
        other => other,
    };
    KeySpec { kind, ..key }
}

const fn table(name: &'static str, section: &'static Section, text: &'static str) -> KeySpec {
    KeySpec::new(name, ValueKind::Table(section), text)
}

const fn tables(name: &'static str, section: &'static Section, text: &'static str) -> KeySpec {
    KeySpec::new(name, ValueKind::Tables(section), text)
}

const fn count_or_share(
    name: &'static str,
    range: RangeInclusive<u64>,
    absent: &'static str,
    text: &'static str,
) -> KeySpec {
    KeySpec::new(name, ValueKind::CountOrShare(range, absent), text)
}

const fn one_of(
    name: &'static str,
    numbers: &'static [u64],
    default: u64,
    text: &'static str,
) -> KeySpec {
    KeySpec::new(name, ValueKind::OneOf(numbers, default), text)
}

const fn seconds(seconds: u64) -> Otherwise<Duration> {
    Otherwise::Is(Duration::from_secs(seconds))
}

impl Section {
    /// The declaration of one of its keys.
    pub(crate) fn key(&self, name: &str) -> Option<&'static KeySpec> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The default of a key that is declared as a duration.
    pub(crate) fn default_duration(&self, name: &str) -> Duration {
        match self.key(name).map(|key| &key.kind) {
            Some(ValueKind::Duration(_, Otherwise::Is(default))) => *default,
            _ => {
                debug_assert!(false, "`{name}` of {} has no such default", self.name);
                Duration::ZERO
            }
        }
    }

    /// The names of its keys.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.keys.iter().map(|key| key.name)
    }
}

/// Stands for a key that a reader asks for although its section does not declare it, which the tests find.
pub(crate) static UNDECLARED: KeySpec = form("", "", Otherwise::Absent(""), ".");

/// All tables of the proxy's file, in the order of the reference page.
pub(crate) const OF_PROXY: [&Section; 23] = [
    &top::TOP,
    &top::ADMIN,
    &top::LOG,
    &top::ACCESS,
    &listener::LISTENER,
    &listener::TIMEOUTS,
    &listener::LIMITS,
    &route::ROUTE,
    &route::VALUE,
    &route::LIMITS,
    &answers::REDIRECT,
    &answers::RESPOND,
    &cluster::CLUSTER,
    &cluster::BACKEND,
    &cluster::HASH_KEY,
    &cluster::NAME_RESOLUTION,
    &cluster::DISCOVER,
    &cluster::CHECK,
    &cluster::TIMEOUTS,
    &cluster::RETRY,
    &cluster::LIMITS,
    &gossip::GOSSIP,
    &top::DEFAULTS,
];

/// The one section that has `key`, if exactly one has it and it can stand in the file that `section` stands in.
pub(crate) fn only_home(key: &str, section: &Section) -> Option<&'static Section> {
    if section.name == agent::AGENT.name {
        return None;
    }
    let mut homes = OF_PROXY.iter().filter(|home| home.key(key).is_some());
    let first = homes.next()?;
    homes.next().is_none().then_some(first)
}

/// What the readers have found, so that a test can tell a declared key that no reader asks for, and one that the full
/// sample lacks.
#[cfg(test)]
pub(crate) mod seen {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    thread_local! {
        static SEEN: RefCell<BTreeSet<(&'static str, &'static str)>> = const { RefCell::new(BTreeSet::new()) };
    }

    /// Notes that a key of a section was read.
    pub(crate) fn note(section: &'static str, key: &'static str) {
        SEEN.with_borrow_mut(|seen| seen.insert((section, key)));
    }

    /// Everything that this thread has read so far.
    pub(crate) fn take() -> BTreeSet<(&'static str, &'static str)> {
        SEEN.take()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn all() -> impl Iterator<Item = &'static Section> {
        OF_PROXY.into_iter().chain([&agent::AGENT])
    }

    #[test]
    fn names_are_unique_and_defaults_lie_in_their_ranges() {
        let sections: HashSet<&str> = all().map(|section| section.name).collect();
        assert_eq!(sections.len(), all().count());
        for section in all() {
            let names: HashSet<&str> = section.names().collect();
            assert_eq!(names.len(), section.keys.len(), "{}", section.name);
            for key in section.keys {
                let legal = match &key.kind {
                    ValueKind::Integer(range, Otherwise::Is(value))
                    | ValueKind::Size(range, Otherwise::Is(value)) => range.contains(value),
                    ValueKind::Duration(range, Otherwise::Is(value)) => range.contains(value),
                    ValueKind::OneOf(numbers, value) => numbers.contains(value),
                    ValueKind::Words { words, default } => {
                        default.iter().all(|word| words().contains(word))
                    }
                    _ => true,
                };
                assert!(legal, "{} of {}", key.name, section.name);
            }
        }
    }

    #[test]
    fn every_key_has_a_text_and_every_section_an_introduction() {
        for section in all() {
            let (heading, intro) = section.intro;
            assert!(
                !heading.is_empty() && intro.ends_with(['.', '`', '\n']),
                "{}",
                section.name
            );
            for key in section.keys {
                assert!(key.text.ends_with('.'), "{} of {}", key.name, section.name);
            }
        }
    }

    #[test]
    fn what_a_value_is_meant_as_is_a_key_of_the_table() {
        for section in all() {
            for meant in section.meant {
                let key = match meant {
                    Meant::String(key) | Meant::Integer(key) => key,
                    Meant::Boolean(_, entry) => entry.split(' ').next().unwrap(),
                };
                assert!(section.key(key).is_some(), "{key} of {}", section.name);
            }
        }
    }

    #[test]
    fn a_key_has_one_home_or_none() {
        let home = |key| only_home(key, &top::LOG).map(|section| section.name);
        assert_eq!(home("weight"), Some("a backend"));
        assert_eq!(home("watch"), Some("the top level of the file"));
        assert_eq!(home("timeouts"), None, "two tables have it");
        assert_eq!(home("nothing"), None);
        assert!(only_home("weight", &agent::AGENT).is_none(), "another file");
    }
}
