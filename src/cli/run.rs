//! `lbproxy --config FILE`: runs the proxy.

use std::path::Path;
use std::process::ExitCode;

use crate::logging::events::last_words;

/// Runs the proxy until it is told to stop; failure if it cannot start or was not given the time to drain.
pub fn run(config: &Path) -> ExitCode {
    match crate::app::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            last_words(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
