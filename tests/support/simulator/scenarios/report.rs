//! What is demanded of a set by its size, and the table in which figures stand beside it.

use std::fmt::Write;

use super::life::Life;

/// What is demanded at one size, at 1 % loss; times in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Demands {
    /// The size.
    pub nodes: usize,
    /// From a kill to Down: median and 99 of 100.
    pub detection: (f64, f64),
    /// From an order to leave or drain to all proxies, 99 of 100.
    pub drain: f64,
    /// From a change of a record to all proxies, 99 of 100. None is missed after 35 s.
    pub change: f64,
    /// Until a newcomer has all members and records, 99 of 100.
    pub join: f64,
    /// Bytes that a node sends in a second when nothing happens, push-pull included.
    pub idle: f64,
    /// Until all agree after two halves were parted for 60 s.
    pub heal: f64,
}

/// Times that healthy nodes may be thought down in 100 hours of a node, up to 5 % loss.
pub const FALSE_DOWNS: f64 = 2.0;

/// By size. Detection at 10 nodes has a floor of 6 s of suspicion, so that a node that was frozen for 5 s is not
/// declared down: hence 8 s and 12 s where 6 s and 10 s would do without.
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

/// The demands on the largest of the sizes that is not above `nodes`, or on the smallest.
pub fn demands_for(nodes: usize) -> &'static Demands {
    let fits = |demands: &&Demands| demands.nodes <= nodes;
    DEMANDS.iter().rev().find(fits).unwrap_or(&DEMANDS[0])
}

/// The value under which a share of the samples lies; 0 without samples.
pub fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let place = (share * sorted.len() as f64).ceil() as usize;
    sorted
        .get(place.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// One figure beside what is demanded of it.
#[derive(Debug, Clone)]
pub struct Row {
    /// What it is.
    pub what: &'static str,
    /// What was measured; `None`: it did not come to it.
    pub measured: Option<f64>,
    /// The most that it may be; `None`: for information.
    pub demanded: Option<f64>,
    /// Digits behind the point.
    pub digits: usize,
}

impl Row {
    /// A figure that is bounded.
    pub fn new(what: &'static str, measured: f64, demanded: f64) -> Self {
        Self {
            what,
            measured: Some(measured),
            demanded: Some(demanded),
            digits: if demanded >= 100.0 { 0 } else { 2 },
        }
    }

    /// A figure that is only told.
    pub fn told(what: &'static str, measured: f64) -> Self {
        Self {
            what,
            measured: Some(measured),
            demanded: None,
            digits: if measured >= 100.0 { 0 } else { 2 },
        }
    }

    /// A time that may not have come to an end.
    pub fn timed(what: &'static str, measured: Option<f64>, demanded: Option<f64>) -> Self {
        Self {
            what,
            measured,
            demanded,
            digits: 1,
        }
    }

    /// Whether it is as demanded.
    pub fn is_met(&self) -> bool {
        match (self.measured, self.demanded) {
            (Some(measured), Some(demanded)) => measured <= demanded,
            (None, Some(_)) => false,
            (_, None) => true,
        }
    }
}

/// The figures of lives beside the demands.
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
        Row::told("kill to Down, slowest, s", quantile(&life.detection, 1.0)),
        Row::new(
            "leave or drain to all proxies, 99 %, s",
            quantile(&life.drain, 0.99),
            demands.drain,
        ),
        Row::told(
            "leave or drain to all proxies, slowest, s",
            quantile(&life.drain, 1.0),
        ),
        Row::new(
            "changed record to all proxies, 99 %, s",
            quantile(&life.change, 0.99),
            demands.change,
        ),
        Row::told(
            "changed record to all proxies, slowest, s",
            quantile(&life.change, 1.0),
        ),
        Row::new("missed after 35 s", life.missed as f64, 0.0),
        Row::new(
            "newcomer has all, 99 %, s",
            quantile(&life.join, 0.99),
            demands.join,
        ),
        Row::told(
            "newcomer known by all, 99 %, s",
            quantile(&life.known, 0.99),
        ),
        Row::new(
            "false downs in 100 node-hours",
            life.false_downs as f64 / life.node_hours * 100.0,
            FALSE_DOWNS,
        ),
        Row::told("node-hours of that", life.node_hours),
        Row::told(
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
        // Writing to a string does not fail.
        let _ = writeln!(out, "{what:<50} {measured:>10} {demanded:>10}{verdict}");
    }
    out
}
