//! The command line: one file a subcommand.

pub mod agent;
pub mod check;
pub mod demo;
pub mod key;
pub mod members;
pub mod run;
pub mod secret;
pub mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::gossip::text::secrets;

/// Letters of a secret that are nearly one: the shortest whole one has 43.
const WHOLE: usize = 32;

/// A Layer-4 and Layer-7 load-balancing proxy.
#[derive(Debug, Parser)]
#[command(
    name = "lbproxy",
    version,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true
)]
struct Arguments {
    #[command(flatten)]
    run: Named,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What a configuration is read from.
#[derive(Debug, clap::Args)]
struct Named {
    /// The configuration: files, which count together, or directories with *.toml files.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Likewise.
    #[arg(short, long, value_name = "FILE")]
    config: Vec<PathBuf>,
}

impl Named {
    fn all(self) -> Vec<PathBuf> {
        let mut all = self.config;
        all.extend(self.files);
        all
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy, as without a command.
    #[command(arg_required_else_help = true)]
    Run {
        #[command(flatten)]
        named: Named,
    },
    /// Say all errors and warnings of a configuration; bind and change nothing. `-` is standard input.
    #[command(arg_required_else_help = true)]
    Check {
        #[command(flatten)]
        named: Named,
        /// One JSON object on standard output.
        #[arg(long)]
        json: bool,
        /// Warnings are errors.
        #[arg(long)]
        strict: bool,
    },
    /// Start three sample backends and a proxy before them, in one process, to try things on.
    Demo,
    /// Stand beside a service: check it, announce it to the gossip peer set, perhaps run it.
    Agent(Box<agent::AgentArguments>),
    /// Make keys of the gossip peer set.
    Key {
        #[command(subcommand)]
        command: key::Command,
    },
    /// Show the peer set as the proxy that runs on this file sees it.
    Members {
        /// The file that the proxy runs on: it says where the proxy is asked.
        file: PathBuf,
        /// The answer as it comes, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make an operator's key pair and tokens, which say what an agent may announce.
    Token {
        #[command(subcommand)]
        command: token::Command,
    },
}

/// Runs the program: exit code 0 if it did what was asked, 1 if it could not, 2 if the arguments are wrong; with
/// `agent --once` that of the service.
pub fn main() -> ExitCode {
    // Before clap sees them, whose errors repeat what they are about.
    if std::env::args_os().any(|argument| gives_secret(&argument.to_string_lossy())) {
        eprintln!(
            "error: a key or token was given as an argument: every user of the machine can read it, and it must be \
             replaced; give the path of its file"
        );
        return ExitCode::from(2);
    }
    let arguments = Arguments::parse();
    match (arguments.command, arguments.run.all()) {
        (Some(Command::Run { named }), _) => run::run(&named.all()),
        (
            Some(Command::Check {
                named,
                json,
                strict,
            }),
            _,
        ) => check::run(&named.all(), json, strict),
        (Some(Command::Demo), _) => demo::run(),
        (Some(Command::Agent(arguments)), _) => agent::run(*arguments),
        (Some(Command::Key { command }), _) => ended(key::run(&command)),
        (Some(Command::Members { file, json }), _) => members::run(&file, json),
        (Some(Command::Token { command }), _) => ended(token::run(&command)),
        // clap shows the help when there is nothing.
        (None, named) => run::run(&named),
    }
}

/// Whether a key or token stands in an argument, and not only a path that is called like one.
fn gives_secret(argument: &str) -> bool {
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    secrets(argument)
        .map(|range| argument[range].bytes())
        .any(|bytes| bytes.take_while(letter).count() >= WHOLE)
}

/// The exit code; what went wrong goes to stderr.
fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_paths() {
        let secret = "Jx7fZm9vYmFy_x7fZm9vYmFy-x7fZm9vYmFyJx7fZm9";
        for (argument, gives) in [
            (format!("lbproxy-key-1.{secret}"), true),
            (
                format!("--seeds=a:1,lbproxy-token-1.{secret}{secret}"),
                true,
            ),
            (format!("lbproxy-operator-1.{}", &secret[..40]), true),
            (format!("lbproxy-operator-public-1.{secret}"), false),
            (format!("keys/lbproxy-key-1.d/{secret}"), false),
            ("lbproxy-key-1.txt".to_owned(), false),
            (secret.to_owned(), false),
        ] {
            assert_eq!(gives_secret(&argument), gives, "{argument}");
        }
    }
}
