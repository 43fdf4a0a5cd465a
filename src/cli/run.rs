//! `lbproxy --config FILE`: runs the proxy.

use std::path::Path;
use std::process::ExitCode;

/// Runs the proxy until it is told to stop; failure if it cannot start or was not given the time to drain.
pub fn run(config: &Path) -> ExitCode {
    match crate::app::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", format!("{error:#}").trim_end());
            ExitCode::FAILURE
        }
    }
}
