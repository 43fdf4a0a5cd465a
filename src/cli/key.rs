//! `lbproxy key generate`: creates a key for the gossip peer set, on standard output or in a file of its own.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::secret;
use crate::gossip::keyring::SecretKey;

/// The subcommands of `lbproxy key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Create a key and print it.
    Generate {
        /// What the key is for.
        #[arg(long = "for", value_name = "USE", value_enum, default_value_t = Use::Gossip)]
        purpose: Use,
        /// Write the key to this new file instead, which only its owner can read.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Use {
    /// Encrypts the messages between members of the gossip peer set.
    Gossip,
}

/// Runs `lbproxy key`.
pub fn run(command: &KeyCommand) -> anyhow::Result<()> {
    match command {
        KeyCommand::Generate {
            purpose: Use::Gossip,
            out,
        } => generate(out.as_deref()),
    }
}

fn generate(out: Option<&Path>) -> anyhow::Result<()> {
    let text = SecretKey::generate(&secret::random()?).to_text();
    secret::put(out, &text)
}
