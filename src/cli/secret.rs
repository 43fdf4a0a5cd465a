//! Files with a key in them: made for their owner alone and never over another, read within bounds.
//!
//! A key may be given by mistake where the path of its file belongs, and an error that repeated it would carry it into
//! a log: no error here shows a path that looks like one.

use std::fs::{File, OpenOptions, remove_file};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};

use crate::gossip::text::holds_secret;

/// Longest file that is read, bytes: much longer than any key or token.
const MAX_FILE: u64 = 4096;
/// Mode of a file that only its owner reads.
pub const PRIVATE: u32 = 0o600;
/// Mode of a file that anybody may read.
pub const PUBLIC: u32 = 0o644;

/// 32 bytes from the system's random generator.
pub fn random() -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes)
        .ok()
        .context("the system has no random bytes")?;
    Ok(bytes)
}

/// Makes a file with this line. What is there already stays as it is, and nothing is left of a file that cannot be
/// written whole.
pub fn create(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    let mut file = file.with_context(|| format!("cannot make {}", shown(path)))?;
    let written = writeln!(file, "{text}").and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = remove_file(path);
    }
    written.with_context(|| format!("cannot write {}", shown(path)))
}

/// The text of a file.
pub fn read(path: &Path) -> anyhow::Result<String> {
    let name = || format!("cannot read {}", shown(path));
    let file = File::open(path).with_context(name)?;
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .with_context(name)?;
    if text.len() as u64 > MAX_FILE {
        bail!("{} is too large for a key", shown(path));
    }
    Ok(text)
}

/// Prints a line on standard output, alone.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
}

/// The path as an error may show it.
pub fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    if holds_secret(&text) {
        return "that file (a key or token was given, not the path of its file)".to_owned();
    }
    text
}
