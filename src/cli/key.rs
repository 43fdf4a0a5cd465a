//! `lbproxy key generate`: a new key of the gossip peer set, on standard output or in a file of its own.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::secret;
use crate::gossip::keyring::SecretKey;

/// What is done with keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A new gossip key on standard output.
    Generate {
        /// Write it to this new file instead, which only its owner can read.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Does it.
pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Generate { out } => generate(out.as_deref()),
    }
}

fn generate(out: Option<&Path>) -> anyhow::Result<()> {
    let text = SecretKey::generate(&secret::random()?).to_text();
    secret::put(out, &text)
}
