//! What is demanded of a set of a given size, and the table that shows figures beside the demands.

use std::fmt::Write;

use super::life::Life;

/// What is demanded at one size, with 1 % loss; times are in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Demands {
    /// Number of nodes.
    pub nodes: usize,
    /// Time from a kill to Down: median and 99th percentile.
    pub detection: (f64, f64),
    /// Time from a leave or drain until all proxies know it, 99th percentile.
    pub drain: f64,
    /// Time from a change of a record until all proxies have it, 99th percentile. None may be missed after 35 s.
    pub change: f64,
    /// Time until a newcomer has all members and records, 99th percentile.
    pub join: f64,
    /// Bytes that a node sends per second when nothing happens, push-pulls included.
    pub idle: f64,
    /// Time until all agree after a partition of 60 s.
    pub heal: f64,
}

/// How often healthy nodes may be thought down in 100 node-hours, with up to 5 % loss.
pub const FALSE_DOWNS: f64 = 2.0;

/// The demands by size. With 10 nodes suspicion lasts 6 s, so that a node that was frozen for 5 s is not declared down:
/// hence 8 s and 12 s, where 6 s and 10 s would be possible otherwise.
pub const DEMANDS: [Demands; 4] = [
    Demands {
        nodes: 10,
        detection: (8.0, 12.0),
        drain: 0.6,
        change: 0.6,
        join: 1.0,
        idle: 500.0,
        heal: 30.0,
    },
    Demands {
        nodes: 100,
        detection: (10.5, 13.0),
        drain: 1.0,
        change: 1.0,
        join: 1.0,
        idle: 600.0,
        heal: 30.0,
    },
    Demands {
        nodes: 1_000,
        detection: (15.0, 17.0),
        drain: 1.5,
        change: 1.5,
        join: 2.0,
        idle: 2_000.0,
        heal: 75.0,
    },
    Demands {
        nodes: 10_000,
        detection: (20.0, 24.0),
        drain: 3.0,
        change: 3.0,
        join: 5.0,
        idle: 10_000.0,
        heal: 120.0,
    },
];

/// The demands of the largest size that is not above `nodes`, or of the smallest.
pub fn demands_for(nodes: usize) -> &'static Demands {
    let fits = |demands: &&Demands| demands.nodes <= nodes;
    DEMANDS.iter().rev().find(fits).unwrap_or(&DEMANDS[0])
}

/// The quantile of the samples: the value below which this share of them lies; 0 without samples.
pub fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let place = (share * sorted.len() as f64).ceil() as usize;
    sorted
        .get(place.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// One figure, and what is demanded.
#[derive(Debug, Clone)]
pub struct Row {
    /// Name of the figure.
    pub what: &'static str,
    /// What was measured; `None` if it never happened.
    pub measured: Option<f64>,
    /// Largest value that is allowed; `None` if the figure is only shown.
    pub demanded: Option<f64>,
    /// Digits after the decimal point.
    pub digits: usize,
}

impl Row {
    /// A figure with a limit.
    pub fn new(what: &'static str, measured: f64, demanded: f64) -> Self {
        Self {
            what,
            measured: Some(measured),
            demanded: Some(demanded),
            digits: if demanded >= 100.0 { 0 } else { 2 },
        }
    }

    /// A figure that is only shown.
    pub fn shown(what: &'static str, measured: f64) -> Self {
        Self {
            what,
            measured: Some(measured),
            demanded: None,
            digits: if measured >= 100.0 { 0 } else { 2 },
        }
    }

    /// A time that may never have been reached.
    pub fn timed(what: &'static str, measured: Option<f64>, demanded: Option<f64>) -> Self {
        Self {
            what,
            measured,
            demanded,
            digits: 1,
        }
    }

    /// Whether it meets the demand.
    pub fn is_met(&self) -> bool {
        match (self.measured, self.demanded) {
            (Some(measured), Some(demanded)) => measured <= demanded,
            (None, Some(_)) => false,
            (_, None) => true,
        }
    }
}

/// The figures of lives, with the demands.
pub fn rows(life: &Life, demands: &Demands) -> Vec<Row> {
    let (median, most) = demands.detection;
    vec![
        Row::new(
            "kill to Down, median, s",
            quantile(&life.detection, 0.5),
            median,
        ),
        Row::new(
            "kill to Down, 99 %, s",
            quantile(&life.detection, 0.99),
            most,
        ),
        Row::shown("kill to Down, slowest, s", quantile(&life.detection, 1.0)),
        Row::new(
            "leave or drain to all proxies, 99 %, s",
            quantile(&life.drain, 0.99),
            demands.drain,
        ),
        Row::shown(
            "leave or drain to all proxies, slowest, s",
            quantile(&life.drain, 1.0),
        ),
        Row::new(
            "changed record to all proxies, 99 %, s",
            quantile(&life.change, 0.99),
            demands.change,
        ),
        Row::shown(
            "changed record to all proxies, slowest, s",
            quantile(&life.change, 1.0),
        ),
        Row::new("missed after 35 s", life.missed as f64, 0.0),
        Row::new(
            "newcomer has all, 99 %, s",
            quantile(&life.join, 0.99),
            demands.join,
        ),
        Row::shown(
            "newcomer known by all, 99 %, s",
            quantile(&life.known, 0.99),
        ),
        Row::new(
            "false downs in 100 node-hours",
            life.false_downs as f64 / life.node_hours * 100.0,
            FALSE_DOWNS,
        ),
        Row::shown("node-hours of that", life.node_hours),
        Row::shown(
            "sent by a node just after the start, bytes/s",
            quantile(&life.rest, 1.0),
        ),
    ]
}

/// The table of these figures.
pub fn table(title: &str, rows: &[Row]) -> String {
    let mut out = format!("{title:<50} {:>10} {:>10}\n", "measured", "demanded");
    for row in rows {
        let digits = row.digits;
        let text = |value: Option<f64>, none: &str| {
            value.map_or(none.to_owned(), |value| format!("{value:.digits$}"))
        };
        let measured = text(row.measured, "never");
        let demanded = text(row.demanded, "");
        let verdict = if row.is_met() { "" } else { "  MISSED" };
        let what = row.what;
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{what:<50} {measured:>10} {demanded:>10}{verdict}");
    }
    out
}
