//! Findings as the readers make them, with byte ranges only, and how they become [`Diagnostic`]s: cleaned, bounded,
//! sorted by place, with line and column found in one walk over the text.
//!
//! A configuration may be several texts. Then places count through all of them ([`Texts`]), so that readers and
//! relations need not know of it; only here they become a file, a line and a column again.

use std::collections::HashSet;
use std::ops::Range;

use super::{Diagnostic, Related, Severity, counted};
use crate::gossip::text::redacted;

/// Findings of one severity that are kept. The rest is counted, so that a hostile file cannot fill the memory.
const MAX_KEPT: usize = 1000;
/// Characters of a text that are kept.
const MAX_TEXT: usize = 400;
/// Characters of a value that are shown within a message.
const MAX_QUOTED: usize = 60;

/// An error or a warning whose line and column are not known yet.
#[derive(Debug, Clone)]
pub(in crate::config) struct Finding {
    pub severity: Severity,
    pub span: Range<usize>,
    pub message: String,
    label: String,
    help: Option<String>,
    related: Option<(usize, String)>,
}

impl Finding {
    /// A finding for which the file is not applied.
    pub(crate) fn error(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            span,
            message: message.into(),
            label: String::new(),
            help: None,
            related: None,
        }
    }

    /// A finding that is legal but surely a mistake.
    pub(crate) fn warning(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(span, message)
        }
    }

    /// Sets the text at the caret.
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Sets how to put it right, if that is known.
    pub(crate) fn help(mut self, help: impl Into<Option<String>>) -> Self {
        self.help = help.into();
        self
    }

    /// The finding `by` bytes later.
    pub(crate) fn moved(mut self, by: usize) -> Self {
        self.span = self.span.start + by..self.span.end + by;
        self
    }

    /// The finding `by` bytes earlier.
    pub(crate) fn moved_back(mut self, by: usize) -> Self {
        self.span = self.span.start - by..self.span.end.saturating_sub(by);
        self
    }

    /// Sets another place that is part of the problem.
    pub(crate) fn related(mut self, span: &Range<usize>, message: impl Into<String>) -> Self {
        self.related = Some((span.start, message.into()));
        self
    }
}

/// The texts of a configuration, joined: each begins one byte after the end of the previous one.
#[derive(Debug, Clone)]
pub(in crate::config) struct Texts<'t> {
    files: Vec<(usize, &'t str)>,
}

impl<'t> Texts<'t> {
    /// Joins texts in their order.
    pub(crate) fn of(texts: impl IntoIterator<Item = &'t str>) -> Self {
        let mut start = 0;
        let files = texts.into_iter().map(|text| {
            let file = (start, text);
            start += text.len() + 1;
            file
        });
        Self {
            files: files.collect(),
        }
    }

    /// Where the text of a file begins.
    pub(crate) fn start(&self, file: usize) -> usize {
        self.files.get(file).map_or(0, |(start, _)| *start)
    }

    /// The file in which `offset` lies, and where in it.
    pub(crate) fn locate(&self, offset: usize) -> (usize, usize) {
        let after = self.files.partition_point(|(start, _)| *start <= offset);
        let file = after.saturating_sub(1);
        (file, offset - self.start(file))
    }

    fn end(&self) -> usize {
        self.files
            .last()
            .map_or(0, |(start, text)| start + text.len())
    }

    /// File, line and column of sorted offsets.
    fn places(&self, offsets: &[usize]) -> Vec<(usize, usize, usize)> {
        let mut found = Vec::with_capacity(offsets.len());
        let mut rest = offsets;
        for (file, (start, text)) in self.files.iter().enumerate() {
            let end = self.files.get(file + 1).map_or(usize::MAX, |next| next.0);
            let (own, others) = rest.split_at(rest.partition_point(|offset| *offset < end));
            rest = others;
            let own: Vec<usize> = own.iter().map(|offset| offset - start).collect();
            let places = places(text, &own).into_iter();
            found.extend(places.map(|(line, column)| (file, line, column)));
        }
        found
    }
}

/// All findings of a configuration.
#[derive(Debug, Default)]
pub(in crate::config) struct Findings {
    kept: Vec<Finding>,
    /// Starts and messages of the kept findings: a default is read once for each table that takes it.
    reported: HashSet<(usize, String)>,
    /// Starts of values of which nothing more is reported.
    silent: HashSet<usize>,
    errors: usize,
    warnings: usize,
}

impl Findings {
    /// Adds a finding, unless the same place has one with the same message.
    pub(crate) fn add(&mut self, finding: Finding) {
        let key = (finding.span.start, finding.message.clone());
        if self.reported.contains(&key) || self.silent.contains(&finding.span.start) {
            return;
        }
        let count = match finding.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= MAX_KEPT {
            self.reported.insert(key);
            self.kept.push(finding);
        }
    }

    /// Reports nothing more of the values that begin at `starts`.
    pub(crate) fn silence(&mut self, starts: &HashSet<usize>) {
        self.silent.extend(starts);
    }

    /// No findings yet, and silent where these are.
    pub(crate) fn quiet(&self) -> Self {
        Self {
            silent: self.silent.clone(),
            ..Self::default()
        }
    }

    /// The number of errors so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// The kept findings in the order in which they were found.
    pub(crate) fn into_kept(self) -> Vec<Finding> {
        self.kept
    }

    /// The diagnostics in the order of their places.
    pub(crate) fn into_diagnostics(mut self, texts: &Texts<'_>) -> Vec<Diagnostic> {
        self.count_omitted(texts.end());
        self.kept
            .sort_by_key(|finding| (finding.span.start, finding.severity));
        let mut offsets: Vec<usize> = self
            .kept
            .iter()
            .flat_map(|f| [Some(f.span.start), f.related.as_ref().map(|r| r.0)])
            .flatten()
            .collect();
        offsets.sort_unstable();
        offsets.dedup();
        let places = texts.places(&offsets);
        let place = |offset: usize| {
            let at = offsets.partition_point(|known| *known < offset);
            places.get(at).copied().unwrap_or((0, 1, 1))
        };
        self.kept
            .into_iter()
            .map(|finding| {
                let (file, line, column) = place(finding.span.start);
                let start = texts.start(file);
                Diagnostic {
                    severity: finding.severity,
                    message: clean(&finding.message),
                    file,
                    line,
                    column,
                    label: clean(&finding.label),
                    help: finding.help.as_deref().map(clean),
                    related: finding.related.map(|(offset, message)| {
                        let (file, line, column) = place(offset);
                        Related {
                            file,
                            line,
                            column,
                            message: clean(&message),
                        }
                    }),
                    span: finding.span.start - start..finding.span.end.saturating_sub(start),
                }
            })
            .collect()
    }

    fn count_omitted(&mut self, end: usize) {
        let end = end..end;
        if let Some(more) = self.errors.checked_sub(MAX_KEPT).filter(|n| *n > 0) {
            let message = format!("{} are not listed", counted(more, "more error"));
            self.kept.push(Finding::error(end.clone(), message));
        }
        if let Some(more) = self.warnings.checked_sub(MAX_KEPT).filter(|n| *n > 0) {
            let message = format!("{} are not listed", counted(more, "more warning"));
            self.kept.push(Finding::warning(end, message));
        }
    }
}

/// A value of the file within a message: in quotes, cut when it is long.
pub(in crate::config) fn quoted(value: &str) -> String {
    match value.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("\"{}…\"", &value[..end]),
        None => format!("\"{value}\""),
    }
}

/// Whether a character could do more to a terminal than show itself: control characters, and marks that change the
/// direction of text.
pub(super) fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The text bounded, harmless to a terminal, and without the secret part of a key or token, which may stand where the
/// path of its file belongs.
pub(in crate::config) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len().min(MAX_TEXT));
    for (count, c) in text.chars().enumerate() {
        if count == MAX_TEXT {
            cleaned.push('…');
            break;
        }
        if is_treacherous(c) {
            cleaned.extend(c.escape_unicode());
        } else {
            cleaned.push(c);
        }
    }
    redacted(&cleaned).into_owned()
}

/// Lines and columns (in characters, both from 1) of sorted byte offsets, in one walk: O(text + offsets).
fn places(text: &str, offsets: &[usize]) -> Vec<(usize, usize)> {
    let mut places = Vec::with_capacity(offsets.len());
    let (mut line, mut column, mut at) = (1, 1, 0);
    for &offset in offsets {
        let end = text.floor_char_boundary(offset);
        for c in text.get(at..end).unwrap_or_default().chars() {
            if c == '\n' {
                line += 1;
                column = 1;
            } else if c != '\u{feff}' || (line, column) != (1, 1) {
                column += 1;
            }
        }
        at = at.max(end);
        places.push((line, column));
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns() {
        let text = "ab\nécd\n\nx";
        let at = |needle: &str| text.find(needle).unwrap();
        let offsets = [
            0,
            at("b"),
            at("é"),
            at("c"),
            at("x"),
            text.len(),
            text.len() + 9,
        ];
        assert_eq!(
            places(text, &offsets),
            [(1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (4, 2), (4, 2)]
        );
        assert_eq!(
            places("\u{feff}a", &[3]),
            [(1, 1)],
            "a byte order mark has no column"
        );
    }

    #[test]
    fn places_count_through_all_texts() {
        let texts = Texts::of(["ab\nc", "", "d\nef"]);
        assert_eq!(
            texts.places(&[0, 3, 4, 5, 6, 8, 10]),
            [
                (0, 1, 1),
                (0, 2, 1),
                (0, 2, 2),
                (1, 1, 1),
                (2, 1, 1),
                (2, 2, 1),
                (2, 2, 3)
            ]
        );
        assert_eq!(
            [3, 5, 9].map(|at| texts.locate(at)),
            [(0, 3), (1, 0), (2, 3)]
        );
    }

    #[test]
    fn the_same_is_reported_once() {
        let mut findings = Findings::default();
        for _ in 0..3 {
            findings.add(Finding::error(0..1, "bad"));
        }
        findings.add(Finding::error(0..1, "worse"));
        assert_eq!(findings.errors(), 2);
    }

    #[test]
    fn an_offset_inside_a_character_is_that_character() {
        assert_eq!(places("éa", &[1, 2]), [(1, 1), (1, 2)]);
    }

    #[test]
    fn texts_are_cleaned_and_cut() {
        assert_eq!(
            clean("a\u{1b}[31m\u{9b}\u{202e}"),
            "a\\u{1b}[31m\\u{9b}\\u{202e}"
        );
        assert_eq!(clean(&"é".repeat(1000)).chars().count(), MAX_TEXT + 1);
        let key = format!("lbproxy-key-1.{}", "A".repeat(80));
        assert_eq!(clean(&quoted(&key)), "\"lbproxy-key-1.…\"");
        assert_eq!(quoted(&"é".repeat(1000)).chars().count(), MAX_QUOTED + 3);
    }

    #[test]
    fn what_is_not_kept_is_counted() {
        let mut findings = Findings::default();
        for i in 0..MAX_KEPT + 2 {
            findings.add(Finding::error(i..i, "bad"));
            findings.add(Finding::warning(i..i, "odd"));
        }
        let text = "x".repeat(2 * MAX_KEPT);
        let diagnostics = findings.into_diagnostics(&Texts::of([text.as_str()]));
        assert_eq!(diagnostics.len(), 2 * MAX_KEPT + 2);
        let last: Vec<&str> = diagnostics[2 * MAX_KEPT..]
            .iter()
            .map(|d| d.message.as_str())
            .collect();
        assert_eq!(
            last,
            [
                "2 more errors are not listed",
                "2 more warnings are not listed"
            ]
        );
    }
}
