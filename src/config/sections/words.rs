//! The words of closed sets: which word of the file is which value. The default of a set is that of its enum.

use crate::model::settings::{HashKey, LogFormat, LogLevel, OnDown, OnUp, Policy, Protocol};

/// An enum whose variants are words of the file.
pub(crate) trait ConfigWord: Clone + Default + PartialEq + 'static {
    /// Each word with its value, in the order in which messages list them. A value may have a second word.
    const WORDS: &'static [(&'static str, Self)];
}

/// The words of `W`.
pub(crate) fn all<W: ConfigWord>() -> Vec<&'static str> {
    W::WORDS.iter().map(|(word, _)| *word).collect()
}

/// The first word for each value of `W`.
pub(crate) fn distinct<W: ConfigWord>() -> Vec<&'static str> {
    let is_first = |at: &usize| {
        let (_, value) = &W::WORDS[*at];
        W::WORDS[..*at].iter().all(|(_, earlier)| earlier != value)
    };
    let first = (0..W::WORDS.len()).filter(is_first);
    first.map(|at| W::WORDS[at].0).collect()
}

/// The first word for the default of `W`.
pub(crate) fn default<W: ConfigWord>() -> &'static str {
    let default = W::default();
    let found = W::WORDS.iter().find(|(_, value)| *value == default);
    found.map_or("", |(word, _)| word)
}

/// The value of a word.
pub(crate) fn value<W: ConfigWord>(text: &str) -> Option<W> {
    let found = W::WORDS.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| value.clone())
}

impl ConfigWord for Protocol {
    const WORDS: &'static [(&'static str, Self)] = &[
        (Self::Http.as_str(), Self::Http),
        (Self::Tcp.as_str(), Self::Tcp),
    ];
}

impl ConfigWord for Policy {
    const WORDS: &'static [(&'static str, Self)] = &[
        (Self::RoundRobin.as_str(), Self::RoundRobin),
        ("weighted", Self::RoundRobin),
        (Self::LeastConnections.as_str(), Self::LeastConnections),
        (Self::ConsistentHash.as_str(), Self::ConsistentHash),
        (Self::Random.as_str(), Self::Random),
        (Self::PowerOfTwo.as_str(), Self::PowerOfTwo),
    ];
}

/// Those that are a single word; the others are tables.
impl ConfigWord for HashKey {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("client_ip", Self::ClientIp),
        ("path", Self::Path),
        ("uri", Self::Uri),
    ];
}

impl ConfigWord for OnDown {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("keep", Self::Keep),
        ("close", Self::Close),
        ("drain", Self::Drain),
    ];
}

impl ConfigWord for OnUp {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("keep", Self::Keep),
        ("close_backups", Self::CloseBackups),
        ("stay", Self::Stay),
    ];
}

impl ConfigWord for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

impl ConfigWord for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

/// How many addresses of a name are used: `resolve.addresses`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum NameAddresses {
    /// Each is a backend.
    #[default]
    All,
    /// One at a time.
    One,
}

impl ConfigWord for NameAddresses {
    const WORDS: &'static [(&'static str, Self)] = &[("all", Self::All), ("one", Self::One)];
}

/// After which failure an attempt is repeated: an entry of `retry.on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum RetryCause {
    /// The connection could not be made.
    #[default]
    Connect,
    /// The connection ended before the first byte of the response.
    Reset,
    /// The response did not come in time.
    Timeout,
}

impl RetryCause {
    /// Whether it can only happen to a request. Once bytes of a session have been sent, nothing says that they may be
    /// sent again.
    pub(crate) fn is_for_requests(self) -> bool {
        self != Self::Connect
    }
}

impl ConfigWord for RetryCause {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("connect", Self::Connect),
        ("reset", Self::Reset),
        ("timeout", Self::Timeout),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_is_shown_by_its_first_word() {
        assert_eq!(default::<Policy>(), "round_robin");
        assert_eq!(default::<LogLevel>(), "info");
        assert_eq!(value::<Policy>("weighted"), Some(Policy::RoundRobin));
        assert_eq!(value::<Policy>("Weighted"), None);
        assert_eq!(all::<Protocol>(), ["http", "tcp"]);
        let policies = distinct::<Policy>();
        assert!(!policies.contains(&"weighted") && policies.len() + 1 == all::<Policy>().len());
    }
}
