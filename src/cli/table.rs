//! Columns of text for a terminal. The text may come from the network, so control and other invisible characters are
//! escaped, and long texts are truncated.

/// Makes a text safe for a terminal, with at most `limit` characters of it; `-` if it is empty.
pub(super) fn plain(text: &str, limit: usize) -> String {
    let mut cell = String::new();
    for c in text.chars().take(limit) {
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

/// Aligns rows of cells in columns, two spaces apart.
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
