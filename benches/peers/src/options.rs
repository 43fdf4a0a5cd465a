//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Measures lbproxy beside HAProxy, nginx, Pingora and a bare byte relay, each alone on one core.
#[derive(Parser, Clone)]
#[command(name = "peers")]
pub(crate) struct Options {
    /// A smoke test: 3 rounds of 1 s. Its figures are worth nothing.
    #[arg(long)]
    pub quick: bool,
    /// Length of a round, after a warm-up of a tenth of it [default: 10]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Rounds for each proxy and scenario; figures are medians [default: 5]
    #[arg(long, value_name = "COUNT")]
    rounds: Option<usize>,
    /// Only this scenario (may be repeated)
    #[arg(long, value_name = "SCENARIO")]
    pub only: Vec<String>,
    /// Names the scenarios, and measures nothing
    #[arg(long)]
    pub list: bool,
    /// The lbproxy to measure, instead of building it
    #[arg(long, value_name = "PATH")]
    pub lbproxy: Option<PathBuf>,
    /// The profile that lbproxy is built with
    #[arg(long, value_name = "NAME", default_value = "dist")]
    pub profile: String,
    /// The haproxy to measure, instead of the one in PATH
    #[arg(long, value_name = "PATH")]
    pub haproxy: Option<PathBuf>,
    /// The nginx to measure, instead of the one in PATH
    #[arg(long, value_name = "PATH")]
    pub nginx: Option<PathBuf>,
    /// Builds and measures the Pingora program too (minutes the first time; needs cmake)
    #[arg(long)]
    pub pingora: bool,
}

impl Options {
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 3 } else { 5 }).max(1)
    }

    /// The length of a round: between a tenth of a second and ten minutes.
    pub(crate) fn window(&self) -> Duration {
        let seconds = self.seconds.unwrap_or(if self.quick { 1.0 } else { 10.0 });
        Duration::from_secs_f64(if seconds.is_finite() {
            seconds.clamp(0.1, 600.0)
        } else {
            10.0
        })
    }

    pub(crate) fn warm_up(&self) -> Duration {
        (self.window() / 10).max(Duration::from_millis(300))
    }

    pub(crate) fn wants(&self, scenario: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == scenario)
    }
}
