//! Diagnostics for people: message, place, the line with a caret, what was expected.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::findings::{clean, is_treacherous};
use super::{Diagnostic, Severity};
use crate::gossip::text::{REDACTED, secrets};

/// Diagnostics that are shown. The rest is counted.
const MAX_SHOWN: usize = 100;
/// Characters of the line, before and from the caret on, that the renderer chooses from.
const BEFORE: usize = 1000;
const FROM: usize = 1000;
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The diagnostics of `text`, which comes from `file_name`, plain or with colours for a terminal. Empty if there are
/// none. At most 100 are shown, errors before warnings, in the order of their places. No control byte of the text or
/// the name gets through, and no key or token that stands where the path of its file belongs.
pub fn render(file_name: &str, text: &str, diagnostics: &[Diagnostic], colour: bool) -> String {
    render_set(&[(file_name, text)], diagnostics, colour)
}

/// Like [`render()`], for a configuration of several texts, each with its name.
pub(crate) fn render_set(
    files: &[(&str, &str)],
    diagnostics: &[Diagnostic],
    colour: bool,
) -> String {
    let renderer = if colour {
        Renderer::styled().hyperlink(false)
    } else {
        Renderer::plain()
    };
    let names: Vec<String> = files.iter().map(|(name, _)| clean(name)).collect();
    let mut shown = String::new();
    let chosen = choose(diagnostics);
    for diagnostic in &chosen {
        let text = files.get(diagnostic.file).map_or("", |(_, text)| *text);
        let group = group(&names, text, diagnostic);
        shown.push_str(&renderer.render(&[group]));
        shown.push_str("\n\n");
    }
    if diagnostics.len() > chosen.len() {
        shown.push_str(&format!("and {} more\n", diagnostics.len() - chosen.len()));
    }
    shown
}

fn choose(diagnostics: &[Diagnostic]) -> Vec<&Diagnostic> {
    let mut order: Vec<usize> = (0..diagnostics.len()).collect();
    if order.len() > MAX_SHOWN {
        order.sort_by_key(|at| (diagnostics[*at].severity, *at));
        order.truncate(MAX_SHOWN);
        order.sort_unstable();
    }
    order.into_iter().map(|at| &diagnostics[at]).collect()
}

fn group<'a>(names: &'a [String], text: &str, diagnostic: &'a Diagnostic) -> Group<'a> {
    let name = |file: usize| names.get(file).map_or("", String::as_str);
    let file_name = name(diagnostic.file);
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let Window { line, span, cut } = window(text, &diagnostic.span);
    let label = Some(diagnostic.label.as_str()).filter(|label| !label.is_empty());
    let snippet = Snippet::source(line)
        .line_start(diagnostic.line)
        .annotation(AnnotationKind::Primary.span(span).label(label));
    let title = level.primary_title(diagnostic.message.as_str());
    // The renderer counts columns in the text that it gets, so it needs the real column if the beginning was cut off.
    let mut group = if cut {
        let origin = Origin::path(file_name)
            .line(diagnostic.line)
            .char_column(diagnostic.column);
        title.element(origin).element(snippet)
    } else {
        title.element(snippet.path(file_name))
    };
    if let Some(related) = &diagnostic.related {
        let (line, column) = (related.line, related.column);
        let place = format!("{}:{line}:{column}", name(related.file));
        group = group.element(Level::NOTE.message(format!("{} at {place}", related.message)));
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    group
}

/// The part of a line that is shown.
struct Window {
    line: String,
    /// The span of the diagnostic in it.
    span: Range<usize>,
    /// Whether its beginning is missing.
    cut: bool,
}

/// The part of the line around `span`, with every treacherous character replaced by a visible one. The cost is the
/// length of the part, however long the line is.
fn window(text: &str, span: &Range<usize>) -> Window {
    let start = text.floor_char_boundary(span.start);
    let end = text.ceil_char_boundary(span.end).max(start);
    let mut head: Vec<char> = text[..start]
        .chars()
        .rev()
        .take_while(|c| *c != '\n')
        .take(BEFORE + 1)
        .filter(|c| *c != BYTE_ORDER_MARK)
        .map(visible)
        .collect();
    let cut = head.len() > BEFORE;
    if cut {
        head.pop();
        head.push('…');
    }
    let mut line: String = head.into_iter().rev().collect();
    let mut span = line.len()..line.len();
    let mut at = start;
    for (count, c) in text[start..].chars().take_while(|c| *c != '\n').enumerate() {
        if count == FROM {
            line.push('…');
            break;
        }
        if c == '\r' && text[at..].starts_with("\r\n") {
            break;
        }
        line.push(visible(c));
        at += c.len_utf8();
        if at <= end {
            span.end = line.len();
        }
    }
    redact(Window { line, span, cut })
}

/// Without the secret parts of keys and tokens. A span that touches one points at what is shown for it.
fn redact(window: Window) -> Window {
    let Window {
        line: text,
        span: Range { mut start, mut end },
        cut,
    } = window;
    let mut line = String::with_capacity(text.len());
    let mut at = 0;
    let (old_start, old_end) = (start, end);
    for secret in secrets(&text) {
        line.push_str(&text[at..secret.start]);
        let (from, to) = (line.len(), line.len() + REDACTED.len_utf8());
        line.push(REDACTED);
        let moved = |offset: usize, within| match offset {
            _ if offset <= secret.start => None,
            _ if offset < secret.end => Some(within),
            _ => Some(to + (offset - secret.end)),
        };
        start = moved(old_start, from).unwrap_or(start);
        end = moved(old_end, to).unwrap_or(end);
        at = secret.end;
    }
    line.push_str(&text[at..]);
    Window {
        line,
        span: start..end,
        cut,
    }
}

fn visible(c: char) -> char {
    match c {
        '\t' => ' ',
        c if is_treacherous(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic(span: Range<usize>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            message: "unknown key `adress` in [[listener]]".to_owned(),
            file: 0,
            span,
            line: 2,
            column: 1,
            label: "not a key of it".to_owned(),
            help: Some("did you mean `address`?".to_owned()),
            related: None,
        }
    }

    #[test]
    fn a_rendered_diagnostic() {
        let text = "[[listener]]\nadress = \":8080\"\n";
        let shown = render("lb.toml", text, &[diagnostic(13..19)], false);
        assert_eq!(
            shown,
            "error: unknown key `adress` in [[listener]]\n \
             --> lb.toml:2:1\n  \
             |\n\
             2 | adress = \":8080\"\n  \
             | ^^^^^^ not a key of it\n  \
             |\n  \
             = help: did you mean `address`?\n\n"
        );
    }

    #[test]
    fn no_control_byte_gets_through() {
        let text = "a = \"\u{1b}[2J\u{9b}1m\u{202e}\u{0}\"\r\n";
        for span in [0..1, 4..text.len(), text.len()..text.len() + 3, 5..6] {
            let shown = render("lb\u{1b}.toml", text, &[diagnostic(span)], false);
            assert!(
                !shown.chars().any(|c| is_treacherous(c) && c != '\n'),
                "{shown:?}"
            );
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let text = format!("x = [{}]", "\"é\", ".repeat(300_000));
        let window = window(&text, &(700_000..700_004));
        assert!(window.cut);
        assert!(window.line.chars().count() <= BEFORE + FROM + 2);
        assert!(window.line.starts_with('…') && window.line.ends_with('…'));
        assert_eq!(window.line[window.span], text[700_000..700_004]);
        let far = Diagnostic {
            column: 583_336,
            ..diagnostic(700_000..700_004)
        };
        let shown = render("lb.toml", &text, &[far], false);
        assert!(shown.contains("lb.toml:2:583336"), "{shown}");
        assert!(
            shown.lines().all(|line| line.chars().count() < 200),
            "{shown}"
        );
    }

    #[test]
    fn a_span_over_lines_ends_with_its_first() {
        let shown = |text, span| {
            let window = window(text, &span);
            (window.line, window.span)
        };
        assert_eq!(shown("a = {\n b = 1 }", 4..14), ("a = {".to_owned(), 4..5));
        assert_eq!(shown("a =\r\n", 3..3), ("a =".to_owned(), 3..3));
        assert_eq!(shown("\u{feff}a = 1", 3..4), ("a = 1".to_owned(), 0..1));
    }

    #[test]
    fn of_a_key_only_its_kind_is_shown() {
        let key = "lbproxy-key-1.Jx7f";
        let text = format!("k = \"{key}\" # {key} !");
        let at = |needle: &str| text.find(needle).unwrap();
        let shown = |span: Range<usize>| {
            let Window { line, span, .. } = window(&text, &span);
            assert_eq!(line, "k = \"lbproxy-key-1.…\" # lbproxy-key-1.… !");
            line[span].to_owned()
        };
        for (span, expected) in [
            (0..1, "k"),
            (4..at(" #"), "\"lbproxy-key-1.…\""),
            (5..at("\" #"), "lbproxy-key-1.…"),
            (at("Jx")..at("Jx") + 2, "…"),
            (at("x7")..at("x7") + 2, "…"),
            (at("#")..at("#") + 1, "#"),
            (at("!")..at("!") + 1, "!"),
            (0..text.len(), "k = \"lbproxy-key-1.…\" # lbproxy-key-1.… !"),
        ] {
            assert_eq!(shown(span.clone()), expected, "{span:?}");
        }
    }

    #[test]
    fn many_are_counted_and_errors_come_before_warnings() {
        let mut all = vec![
            Diagnostic {
                severity: Severity::Warning,
                ..diagnostic(0..1)
            };
            150
        ];
        all.push(diagnostic(0..1));
        let shown = render("lb.toml", "x", &all, false);
        assert_eq!(shown.matches("error:").count(), 1);
        assert_eq!(shown.matches("warning:").count(), MAX_SHOWN - 1);
        assert!(shown.ends_with("and 51 more\n"), "{shown}");
    }

    #[test]
    fn colours_when_asked() {
        assert!(render("lb.toml", "x", &[diagnostic(0..1)], true).contains("\u{1b}["));
    }
}
