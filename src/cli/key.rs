//! `lbproxy key generate`: a new key of the gossip peer set, on standard output or in a file of its own.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::secret;
use crate::gossip::keyring::SecretKey;

/// What is done with keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A new key on standard output.
    Generate {
        /// What the key is for.
        #[arg(long = "for", value_name = "USE", value_enum, default_value_t = Use::Gossip)]
        purpose: Use,
        /// Write it to this new file instead, which only its owner can read.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Use {
    /// Seals what members of the gossip peer set say to each other.
    Gossip,
}

/// Does it.
pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Generate {
            purpose: Use::Gossip,
            out,
        } => generate(out.as_deref()),
    }
}

fn generate(out: Option<&Path>) -> anyhow::Result<()> {
    let text = SecretKey::generate(&secret::random()?).to_text();
    secret::put(out, &text)
}
