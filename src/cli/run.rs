//! `lbproxy FILE…`, `lbproxy run FILE…` and `lbproxy --config FILE`: runs the proxy.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::logging::events::print_at_exit;

/// Runs the proxy until a signal ends it. Fails if it cannot start or is not given the time to drain.
pub fn run(named: &[PathBuf]) -> ExitCode {
    match crate::app::run(named) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_at_exit(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
