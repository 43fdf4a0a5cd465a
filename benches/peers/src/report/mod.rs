//! What came of a run: medians, ratios, goals met or not, and what could not be measured. `text` prints it, `json` and
//! `svg` are files.

mod goals;
mod json;
mod svg;
mod text;

use std::io;
use std::path::Path;

use serde::Serialize;

use self::goals::Verdict;
use crate::figures::{Figures, median};
use crate::proxies::Proxy;
use crate::rounds::Series;
use crate::scenarios::{Scenario, Unit};

/// A subject in one scenario.
#[derive(Serialize)]
pub(crate) struct Row {
    pub label: String,
    #[serde(skip)]
    pub proxy: Proxy,
    pub median: Figures,
    /// Cost ÷ cost of each other subject, see [`Row::ratio`].
    pub ratios: Vec<(String, f64)>,
    /// The lowest and the highest cost of a round.
    pub range: (f64, f64),
    pub rounds: Vec<Figures>,
    pub failures: Vec<String>,
}

#[derive(Serialize)]
pub(crate) struct Result {
    pub name: &'static str,
    pub title: &'static str,
    pub unit: &'static str,
    /// Requests a second of an open loop.
    pub offered: Option<f64>,
    pub rows: Vec<Row>,
    pub goals: Vec<Verdict>,
    /// What a reader must know before believing the figures.
    pub warnings: Vec<String>,
}

/// A whole run.
#[derive(Serialize)]
pub(crate) struct Report {
    pub seconds: f64,
    pub rounds: usize,
    pub proxy_core: usize,
    pub other_cores: Vec<usize>,
    pub versions: Vec<(&'static str, String)>,
    pub results: Vec<Result>,
    pub not_measured: Vec<String>,
}

impl Row {
    /// Its cost ÷ that of another: the median of what each round shows, since the two of one round ran within a minute,
    /// and a machine that is slower in one round than in the next is so for both. Of the medians where a round failed.
    pub(crate) fn ratio(&self, other: &Self, cost: fn(&Figures) -> f64) -> f64 {
        if self.rounds.len() != other.rounds.len() {
            return cost(&self.median) / cost(&other.median);
        }
        let pairs = self.rounds.iter().zip(&other.rounds);
        median(pairs.map(|(own, other)| cost(own) / cost(other)).collect())
    }
}

impl Report {
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        json::write(self, &directory.join("report.json"))?;
        std::fs::write(directory.join("report.svg"), svg::draw(self))?;
        Ok(())
    }

    pub(crate) fn print(&self) {
        text::print(self);
    }
}

impl Result {
    pub(crate) fn new(scenario: &Scenario, series: Vec<Series>, offered: Option<f64>) -> Self {
        let mut rows: Vec<Row> = series
            .into_iter()
            .filter(|series| !series.rounds.is_empty())
            .map(row)
            .collect();
        let ratios = rows.iter().map(|row| {
            let others = rows
                .iter()
                .filter(|other| other.label != row.label && other.median.cost > 0.0);
            others
                .map(|other| (other.label.clone(), row.ratio(other, |round| round.cost)))
                .collect()
        });
        let ratios: Vec<_> = ratios.collect();
        for (row, ratios) in rows.iter_mut().zip(ratios) {
            row.ratios = ratios;
        }
        Self {
            name: scenario.name,
            title: scenario.title,
            unit: scenario.unit.text(),
            offered,
            goals: scenario
                .goals
                .iter()
                .map(|goal| goals::verdict(goal, scenario.unit, &rows))
                .collect(),
            warnings: warnings(scenario.unit, offered, &rows),
            rows,
        }
    }
}

fn row(series: Series) -> Row {
    let of = |field: fn(&Figures) -> f64| median(series.rounds.iter().map(field).collect());
    let costs = || series.rounds.iter().map(|round| round.cost);
    Row {
        median: Figures {
            cost: of(|round| round.cost),
            process_cost: of(|round| round.process_cost),
            rate: of(|round| round.rate),
            p50: of(|round| round.p50),
            p99: of(|round| round.p99),
            p999: of(|round| round.p999),
            proxy_busy: of(|round| round.proxy_busy),
            others_busy: of(|round| round.others_busy),
            stolen: of(|round| round.stolen),
            foreign: of(|round| round.foreign),
            resident: of(|round| round.resident),
            behind: of(|round| round.behind as f64) as usize,
        },
        range: (
            costs().fold(f64::INFINITY, f64::min),
            costs().fold(0.0, f64::max),
        ),
        ratios: Vec::new(),
        label: series.label,
        proxy: series.proxy,
        rounds: series.rounds,
        failures: series.failures,
    }
}

/// What the shares say about the figures.
fn warnings(unit: Unit, offered: Option<f64>, rows: &[Row]) -> Vec<String> {
    let mut warnings = Vec::new();
    if matches!(unit, Unit::KibPerConnection | Unit::MillisPerReload) {
        return warnings;
    }
    for row in rows {
        let Figures {
            proxy_busy,
            others_busy,
            stolen,
            foreign,
            behind,
            ..
        } = row.median;
        let label = &row.label;
        if offered.is_some() && behind > 100 {
            warnings.push(format!(
                "{label} did not keep the rate: {behind} requests had not begun at the end"
            ));
        }
        if offered.is_none() && proxy_busy < 0.95 {
            warnings.push(format!(
                "{label}: not saturated (its core was busy {:.0} % of the time, the load's {:.0} %); its rate is no peak",
                proxy_busy * 100.0,
                others_busy * 100.0
            ));
        }
        if foreign > 0.05 {
            warnings.push(format!(
                "{label}: other programs, or kernel threads, used {:.0} % of a core meanwhile",
                foreign * 100.0
            ));
        }
        if stolen > 0.02 {
            warnings.push(format!(
                "{label}: the machine's host took {:.0} % of its core's time",
                stolen * 100.0
            ));
        }
        let (least, most) = row.range;
        if most > 1.15 * least && offered.is_none() {
            warnings.push(format!(
                "{label}: rounds differ by {:.0} %",
                (most / least - 1.0) * 100.0
            ));
        }
    }
    warnings
}
