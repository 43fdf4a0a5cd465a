//! Columns of text for a terminal. What is shown may have come from the network: control and other invisible
//! characters are written as escapes, and a long text is cut.

/// A text of at most `most` characters as a terminal may have it; `-` for an empty one.
pub(super) fn plain(text: &str, most: usize) -> String {
    let mut cell = String::new();
    for c in text.chars().take(most) {
        match c {
            '"' | '\'' | '\\' => cell.push(c),
            c => cell.extend(c.escape_debug()),
        }
    }
    if cell.is_empty() {
        cell.push('-');
    }
    cell
}

/// Rows of cells under each other, two spaces apart.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
