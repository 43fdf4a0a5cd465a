//! Creates files for keys and tokens: readable by their owner only, and never in place of another file. They are read
//! by [`crate::discovery::gossip::secrets`].

use std::fs::{OpenOptions, remove_file};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;

use crate::discovery::gossip::secrets::shown;

/// Mode of a file that only its owner may read.
pub const PRIVATE: u32 = 0o600;
/// Mode of a file that anybody may read.
pub const PUBLIC: u32 = 0o644;

/// Returns 32 bytes from the system's random generator.
pub fn random() -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes)
        .ok()
        .context("the system has no random bytes")?;
    Ok(bytes)
}

/// Creates a file with one line. An existing file is an error and is not changed, and a file that cannot be written
/// completely is removed.
pub fn create(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    let mut file = file.with_context(|| format!("cannot create {}", shown(path)))?;
    let written = writeln!(file, "{text}").and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = remove_file(path);
    }
    written.with_context(|| format!("cannot write {}", shown(path)))
}

/// Writes a secret to a new file, or to standard output if there is none.
pub fn put(out: Option<&Path>, text: &str) -> anyhow::Result<()> {
    match out {
        Some(path) => create(path, PRIVATE, text),
        None => print(text),
    }
}

/// Prints a line to standard output.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
}
