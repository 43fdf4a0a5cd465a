//! The report as tables on the terminal.

use super::{Report, Result, Row};
use crate::scenarios::Unit;

pub(super) fn print(report: &Report) {
    println!(
        "\n{} rounds of {} s; proxy on core {}, load and backends on {:?}; medians",
        report.rounds, report.seconds, report.proxy_core, report.other_cores
    );
    for (name, version) in &report.versions {
        println!("  {name}: {version}");
    }
    report.results.iter().for_each(print_result);
    println!("\nnot measured:");
    for line in &report.not_measured {
        println!("  {line}");
    }
}

fn print_result(result: &Result) {
    println!("\n{}: {}", result.name, result.title);
    if let Some(offered) = result.offered {
        println!("  {offered:.0} requests a second; latency counts from when each was due");
    }
    if result.rows.is_empty() {
        println!("  nobody could be measured");
        return;
    }
    if result.unit == Unit::KibPerConnection.text() {
        println!("  {:<16}{:>10}{:>12}", "", result.unit, "MiB before");
        for row in &result.rows {
            println!(
                "  {:<16}{:>10.2}{:>12.1}",
                row.label, row.median.cost, row.median.resident
            );
        }
    } else if result.unit == Unit::MillisPerReload.text() {
        let (pause, quiet) = ("worker µs for it", "and for answers");
        println!("  {:<16}{:>10}{pause:>20}{quiet:>18}", "", result.unit);
        for row in &result.rows {
            let figures = &row.median;
            println!(
                "  {:<16}{:>10.1}{:>20.0}{:>18.0}",
                row.label, figures.cost, figures.p999, figures.p99
            );
        }
    } else {
        print_load(result);
    }
    for verdict in &result.goals {
        let (figure, word) = match (verdict.figure, verdict.met) {
            (Some(figure), Some(true)) => (format!("{figure:.2}"), "met"),
            (Some(figure), Some(false)) => (format!("{figure:.2}"), "NOT MET"),
            (Some(figure), None) => (format!("{figure:.2}"), "disturbed"),
            _ => ("-".to_owned(), "not measured"),
        };
        let own = verdict
            .own_figure
            .map_or(String::new(), |own| format!("  (by own time {own:.2})"));
        println!("  goal: {:<58}{figure:>8}  {word}{own}", verdict.goal);
    }
    for warning in &result.warnings {
        println!("  note: {warning}");
    }
    for row in &result.rows {
        row.failures
            .iter()
            .for_each(|failure| println!("  note: {} failed in {failure}", row.label));
    }
}

fn print_load(result: &Result) {
    let bulk = result.unit == Unit::MillisPerGigabyte.text();
    let (rate, own) = if bulk {
        ("GB/s", "own ms")
    } else {
        ("req/s", "own µs")
    };
    let cost = if result.offered.is_some() {
        "cost"
    } else {
        result.unit
    };
    print!(
        "  {:<16}{cost:>9}{own:>9}{rate:>10}{:>9}{:>9}{:>9}{:>7}{:>7}{:>7}",
        "", "p50", "p99", "p99.9", "core%", "load%", "MiB"
    );
    // How many times the cost of each other subject.
    let others: Vec<&str> = result.rows.iter().map(|row| row.label.as_str()).collect();
    for other in &others {
        print!("{:>width$}", format!("÷{other}"), width = column(other));
    }
    println!();
    for row in &result.rows {
        print_row(result, row, bulk, &others);
    }
}

fn print_row(result: &Result, row: &Row, bulk: bool, others: &[&str]) {
    let figures = &row.median;
    // In an open loop the compared cost is the latency; what the core spent stands in the next column.
    let cost = if result.offered.is_some() {
        figures.p99
    } else {
        figures.cost
    };
    print!(
        "  {:<16}{cost:>9.2}{:>9.2}",
        row.label, figures.process_cost
    );
    if bulk {
        print!("{:>10.2}{:>9}{:>9}{:>9}", figures.rate, "-", "-", "-");
    } else {
        print!(
            "{:>10.0}{:>9.0}{:>9.0}{:>9.0}",
            figures.rate, figures.p50, figures.p99, figures.p999
        );
    }
    let (proxy, others_busy) = (figures.proxy_busy * 100.0, figures.others_busy * 100.0);
    print!("{proxy:>7.0}{others_busy:>7.0}{:>7.1}", figures.resident);
    for other in others {
        let ratio = row.ratios.iter().find(|(label, _)| label == other);
        let text = ratio.map_or("-".to_owned(), |(_, ratio)| format!("{ratio:.2}"));
        print!("{text:>width$}", width = column(other));
    }
    println!();
}

fn column(label: &str) -> usize {
    label.chars().count() + 3
}
