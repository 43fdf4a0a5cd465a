//! A folder for a file that a command makes: open to its user alone, under a name that nobody can know before, so that
//! nothing of another user can lie there; gone with the command.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use anyhow::Context;
use tempfile::TempDir;

/// Makes one in the directory for temporary files.
pub(super) fn private(prefix: &str) -> anyhow::Result<TempDir> {
    tempfile::Builder::new()
        .prefix(prefix)
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .context("no place for the configuration file")
}
