//! The figures that a round shows, and the median of several.

use serde::Serialize;

/// What one round of one subject showed. Latencies are in µs, times of the core in the scenario's unit.
#[derive(Clone, Default, Serialize)]
pub(crate) struct Figures {
    /// What ratios are made of, from the busy time of the proxy's core where it is a time.
    pub cost: f64,
    /// The same from the proxy's own time.
    pub process_cost: f64,
    /// Requests, exchanges or (bulk) GB a second.
    pub rate: f64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    /// Shares of the time in which the cores were busy.
    pub proxy_busy: f64,
    pub others_busy: f64,
    pub stolen: f64,
    /// Time of other programs on all cores, as a share of one.
    pub foreign: f64,
    /// Resident memory after the load, in MiB; before it where memory is what is measured.
    pub resident: f64,
    /// Requests that were due and not begun at the end of an open loop.
    pub behind: usize,
}

/// The middle value, or the mean of the two in the middle; 0 if there are none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}
