//! The report as a chart: a panel for each scenario, a bar for each subject, lbproxy's in its own colour. Bars of one
//! panel share a scale that begins at zero; panels do not.

use std::fmt::Write;

use super::{Report, Result};
use crate::proxies::Proxy;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 130.0;
const BAR: f64 = 18.0;
const TITLE: f64 = 44.0;

pub(super) fn draw(report: &Report) -> String {
    let panels: Vec<&Result> = report
        .results
        .iter()
        .filter(|result| !result.rows.is_empty())
        .collect();
    let height: f64 = 60.0
        + panels
            .iter()
            .map(|panel| TITLE + BAR * panel.rows.len() as f64)
            .sum::<f64>();
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">"#
    );
    let _ = writeln!(
        svg,
        r##"<rect width="100%" height="100%" fill="#ffffff"/>"##
    );
    text(
        &mut svg,
        16.0,
        24.0,
        "start",
        "bold",
        "What a proxy costs on one core: shorter is better",
    );
    let medians = format!(
        "medians of {} rounds of {} s",
        report.rounds, report.seconds
    );
    text(&mut svg, 16.0, 42.0, "start", "normal", &medians);
    let mut y = 54.0;
    for panel in panels {
        draw_panel(&mut svg, panel, &mut y);
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_panel(svg: &mut String, panel: &Result, y: &mut f64) {
    let title = format!("{} ({})", panel.title, panel.unit);
    text(svg, 16.0, *y + 28.0, "start", "bold", &title);
    *y += TITLE - 8.0;
    let most = panel
        .rows
        .iter()
        .map(|row| row.median.cost)
        .fold(f64::MIN_POSITIVE, f64::max);
    for row in &panel.rows {
        let length = (WIDTH - LEFT - RIGHT) * (row.median.cost / most).max(0.0);
        let colour = match row.proxy {
            Proxy::Lbproxy => "#1b6ca8",
            Proxy::Floor => "#c9c9c9",
            _ => "#8d99ae",
        };
        text(svg, LEFT - 8.0, *y + 13.0, "end", "normal", &row.label);
        let _ = writeln!(
            svg,
            r#"<rect x="{LEFT}" y="{:.1}" width="{length:.1}" height="{:.1}" fill="{colour}"/>"#,
            *y + 2.0,
            BAR - 4.0
        );
        let figure = format!("{:.2}", row.median.cost);
        text(
            svg,
            LEFT + length + 6.0,
            *y + 13.0,
            "start",
            "normal",
            &figure,
        );
        *y += BAR;
    }
    *y += 8.0;
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, weight: &str, words: &str) {
    let words = words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let _ = writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-weight="{weight}">{words}</text>"#
    );
}
