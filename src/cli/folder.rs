//! A temporary folder for a file that a command creates. Only its user can open it, and its name is unpredictable, so
//! that no other user can put anything there. It is removed when the command ends.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use anyhow::Context;
use tempfile::TempDir;

/// Creates the folder in the directory for temporary files.
pub(super) fn private(prefix: &str) -> anyhow::Result<TempDir> {
    tempfile::Builder::new()
        .prefix(prefix)
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .context("cannot create a folder for the configuration file")
}
