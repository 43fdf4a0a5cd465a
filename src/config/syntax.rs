//! TOML with spans, and the syntax errors in it.
//!
//! The parser continues after an error, so that one run reports everything, but it guesses what the damaged parts mean.
//! So errors that only follow from another are left out: those on the line of a syntax error, and those in the part
//! that an unclosed bracket has swallowed.

use std::collections::HashSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, Error};

use super::diagnostics::Severity;
use super::diagnostics::findings::{Finding, Findings, quoted};

/// Longest text in which all syntax errors are found. In a longer one only the first is reported, since the parser
/// keeps them all.
const MAX_RECOVERED: usize = 1 << 20;

/// A text as TOML.
pub(super) struct Parsed<'t> {
    /// What could be parsed.
    pub root: Spanned<DeTable<'t>>,
    /// What could not, in no particular order.
    pub errors: Vec<Error>,
}

impl Parsed<'_> {
    /// The result for something that is not text.
    pub(super) fn nothing() -> Self {
        Self {
            root: Spanned::new(0..0, DeTable::new()),
            errors: Vec::new(),
        }
    }
}

/// Parses `text`.
pub(super) fn parse(text: &str) -> Parsed<'_> {
    match DeTable::parse(text) {
        Ok(root) => Parsed {
            root,
            errors: Vec::new(),
        },
        Err(first) if text.len() > MAX_RECOVERED => Parsed {
            root: Spanned::new(0..0, DeTable::new()),
            errors: vec![first],
        },
        Err(first) => {
            let (root, mut errors) = DeTable::parse_recoverable(text);
            if errors.is_empty() {
                errors.push(first);
            }
            Parsed { root, errors }
        }
    }
}

/// The syntax errors of `text`, and those errors of `others` that do not merely follow from them.
pub(super) fn merge(text: &str, errors: &[Error], others: Vec<Finding>) -> Findings {
    let lines = Lines::of(text);
    let mut ordered: Vec<&Error> = errors.iter().collect();
    ordered.sort_by_key(|error| start(error));
    let swallowed = swallowed(text, &ordered);
    let mut bracket_reported = false;
    let mut lines_with_errors = HashSet::new();
    let mut merged = Findings::default();
    for error in ordered {
        let inside = swallowed.by_brackets.contains(&start(error));
        if inside && bracket_reported && !is_unclosed(error) {
            continue;
        }
        bracket_reported |= inside;
        lines_with_errors.insert(lines.number(start(error)));
        merged.add(finding(text, error));
    }
    for other in others {
        let at = other.span.start;
        let hidden = swallowed.contains(at) || lines_with_errors.contains(&lines.number(at));
        if other.severity == Severity::Error && !hidden {
            merged.add(other);
        }
    }
    merged
}

fn start(error: &Error) -> usize {
    error.span().map_or(0, |span| span.start)
}

fn is_unclosed(error: &Error) -> bool {
    error.message().starts_with("unclosed")
}

/// A header without its end, so that what follows belongs to another table.
fn is_broken_header(error: &Error) -> bool {
    let message = error.message();
    message.starts_with("unclosed table") || message.starts_with("unclosed array table")
}

/// An array or inline table without its end, so that everything after it is misunderstood.
fn is_broken_bracket(error: &Error) -> bool {
    let message = error.message();
    let follows = message.starts_with("missing comma") || message.starts_with("missing key");
    follows || (is_unclosed(error) && !is_broken_header(error))
}

/// Parts of the text that were misunderstood.
struct Swallowed {
    /// From the line of the first unclosed bracket to the header after the last: arrays swallow headers.
    by_brackets: Range<usize>,
    /// Each from the line of a broken header to the end of the next section, whose header the parser joins with it; in
    /// order.
    by_headers: Vec<Range<usize>>,
}

impl Swallowed {
    fn contains(&self, at: usize) -> bool {
        let after = self.by_headers.partition_point(|range| range.start <= at);
        let header = after.checked_sub(1).map(|last| &self.by_headers[last]);
        self.by_brackets.contains(&at) || header.is_some_and(|range| range.contains(&at))
    }
}

fn swallowed(text: &str, ordered: &[&Error]) -> Swallowed {
    let line_start = |at: usize| {
        let before = text.get(..at).unwrap_or(text);
        before.rfind('\n').map_or(0, |end| end + 1)
    };
    let next_header = |at: usize| {
        let rest = text.get(at..).unwrap_or_default();
        rest.find("\n[")
            .map_or(text.len() + 1, |found| at + found + 1)
    };
    let mut brackets = ordered.iter().filter(|error| is_broken_bracket(error));
    let by_brackets = match (brackets.next(), brackets.next_back()) {
        (None, _) => 0..0,
        (Some(first), last) => line_start(start(first))..next_header(start(last.unwrap_or(first))),
    };
    let headers = ordered.iter().filter(|error| is_broken_header(error));
    let mut by_headers: Vec<Range<usize>> = Vec::new();
    for at in headers.map(|error| start(error)) {
        // A header in a part that is already known adds nothing.
        if by_headers.last().is_none_or(|range| at >= range.end) {
            by_headers.push(line_start(at)..next_header(next_header(at)));
        }
    }
    Swallowed {
        by_brackets,
        by_headers,
    }
}

fn finding(text: &str, error: &Error) -> Finding {
    let span = error.span().unwrap_or(0..0);
    let word = text.get(span.clone()).unwrap_or_default();
    let (message, expected) = match error.message().split_once(", expected ") {
        Some((message, "nothing")) => (message, None),
        Some((message, expected)) => (message, Some(expected)),
        None => (error.message(), None),
    };
    match message {
        "string values must be quoted" if word.trim().is_empty() => {
            Finding::error(span, "no value after `=`").label("expected a value")
        }
        "string values must be quoted" => {
            Finding::error(span, format!("{} is not a value", quoted(word)))
                .label("expected a number, true or false, or text in quotes")
        }
        "duplicate key" => Finding::error(span, format!("{} is given twice", quoted(word)))
            .label("expected each key and each table once"),
        _ => Finding::error(span, message)
            .label(expected.map_or(String::new(), |what| format!("expected {what}"))),
    }
}

/// Where the lines end, to find the line of an offset.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    fn number(&self, offset: usize) -> usize {
        self.0.partition_point(|end| *end < offset)
    }
}
