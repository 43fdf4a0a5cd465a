//! The command line: one file for each subcommand.

pub mod agent;
mod ask;
pub mod check;
pub mod demo;
mod folder;
pub mod key;
pub mod members;
mod place;
pub mod proxy;
pub mod run;
pub mod secret;
pub mod status;
mod table;
pub mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::gossip::text::secrets;

/// Characters from which on an argument counts as a secret; the shortest complete one has 43.
const SECRET_LENGTH: usize = 32;

/// Load balancer for TCP and HTTP.
#[derive(Debug, Parser)]
#[command(
    name = "lbproxy",
    version,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true,
    after_help = AFTER
)]
struct Arguments {
    #[command(flatten)]
    run: ConfigPaths,
    #[command(subcommand)]
    command: Option<Command>,
}

/// The files and directories of a configuration.
#[derive(Debug, Args)]
struct ConfigPaths {
    /// Configuration: files, which are combined, or directories of *.toml files.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The same as FILE.
    #[arg(short, long, value_name = "FILE")]
    config: Vec<PathBuf>,
}

impl ConfigPaths {
    fn all(self) -> Vec<PathBuf> {
        let mut all = self.config;
        all.extend(self.files);
        all
    }
}

const AFTER: &str = "\
Start with:
  lbproxy demo                                        a demonstration, without a file
  lbproxy proxy --from :8080 --to 127.0.0.1:3000      a proxy without a file
  lbproxy check lb.toml && lbproxy lb.toml            check a configuration and run it

Signals: SIGHUP reloads the configuration, SIGUSR1 reopens log files, SIGTERM, SIGINT and SIGQUIT drain and exit.
Exit codes: 0 success, 1 failure, 2 invalid arguments, 3 the requested state does not exist.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy with a configuration; the same as without a command.
    #[command(arg_required_else_help = true)]
    Run(ConfigPaths),
    /// Run a proxy from arguments alone, and print the equivalent file.
    Proxy(proxy::ProxyArguments),
    /// Run a demonstration: three sample backends and a proxy in front of them.
    Demo,
    /// Check a configuration and show all errors and warnings. Binds and changes nothing. `-` is standard input.
    #[command(arg_required_else_help = true)]
    Check {
        #[command(flatten)]
        named: ConfigPaths,
        /// Print one JSON object to standard output.
        #[arg(long)]
        json: bool,
        /// Treat warnings as errors.
        #[arg(long)]
        strict: bool,
    },
    /// Show the listeners and backends of a running proxy.
    Status(status::StatusArguments),
    /// Show the gossip peer set as a running proxy sees it.
    Members(members::MembersArguments),
    /// Run next to a service: check it, announce it to the gossip peer set, and optionally supervise it.
    Agent(Box<agent::AgentArguments>),
    /// Create keys for the gossip peer set.
    Key {
        #[command(subcommand)]
        command: key::KeyCommand,
    },
    /// Create an operator's key pair, and tokens that limit what an agent may announce.
    Token {
        #[command(subcommand)]
        command: token::TokenCommand,
    },
    /// Print completions for a shell: bash, zsh or fish.
    ///
    /// For bash: lbproxy completions bash > ~/.local/share/bash-completion/completions/lbproxy
    ///
    /// For zsh, a file called _lbproxy in a folder of $fpath; for fish, ~/.config/fish/completions/lbproxy.fish.
    Completions {
        /// The shell to complete for.
        shell: Shell,
    },
    /// Print the version.
    Version,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It failed: exit code 1.
    #[error("{0:#}")]
    Failed(anyhow::Error),
    /// It failed, with a text that is already formatted: exit code 1.
    #[error("{0}")]
    Said(String),
    /// The arguments are invalid: exit code 2.
    #[error("{0:#}")]
    Arguments(anyhow::Error),
    /// The requested state does not exist: exit code 3.
    #[error("{0:#}")]
    NotThere(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Runs the program. The exit code is 0 on success, 1 on failure, 2 if the arguments are invalid, and 3 if the
/// requested state does not exist; with `agent --once` it is that of the service.
pub fn main() -> ExitCode {
    // Before clap parses them, because its errors repeat arguments.
    if std::env::args_os().any(|argument| contains_secret(&argument.to_string_lossy())) {
        eprintln!(
            "error: a key or token was given as an argument, where every user of this machine can read it: replace it, \
             and give the path of its file instead"
        );
        return ExitCode::from(2);
    }
    let arguments = Arguments::parse();
    let Some(command) = arguments.command else {
        // clap shows the help if there are no arguments.
        return run::run(&arguments.run.all());
    };
    match command {
        Command::Run(named) => run::run(&named.all()),
        Command::Check {
            named,
            json,
            strict,
        } => check::run(&named.all(), json, strict),
        Command::Proxy(arguments) => proxy::run(&arguments),
        Command::Demo => demo::run(),
        Command::Status(arguments) => status::run(arguments),
        Command::Members(arguments) => members::run(arguments),
        Command::Agent(arguments) => agent::run(*arguments),
        Command::Key { command } => exit_code(key::run(&command)),
        Command::Token { command } => exit_code(token::run(&command)),
        Command::Completions { shell } => exit_code(ask::print(&completions(shell))),
        Command::Version => exit_code(ask::print(VERSION.as_bytes())),
    }
}

const VERSION: &str = concat!("lbproxy ", env!("CARGO_PKG_VERSION"), "\n");

fn completions(shell: Shell) -> Vec<u8> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "lbproxy", &mut script);
    script
}

/// Whether an argument contains a key or token, and not only a path with a similar name.
fn contains_secret(argument: &str) -> bool {
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    secrets(argument)
        .map(|range| argument[range].bytes())
        .any(|bytes| bytes.take_while(letter).count() >= SECRET_LENGTH)
}

/// Returns the exit code of a result, and writes an error to stderr.
fn exit_code<E: Into<Failure>>(result: Result<(), E>) -> ExitCode {
    let failure = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(error) => error.into(),
    };
    match &failure {
        Failure::Said(text) => eprint!("{text}"),
        failure => eprintln!("{}", as_error(&failure.to_string())),
    }
    ExitCode::from(match failure {
        Failure::Failed(_) | Failure::Said(_) => 1,
        Failure::Arguments(_) => 2,
        Failure::NotThere(_) => 3,
    })
}

/// Adds `error:` before the text, unless it begins with that.
fn as_error(text: &str) -> String {
    match text.trim_start_matches("\u{1b}[1m").starts_with("error") {
        true => text.to_owned(),
        false => format!("error: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn completions_name_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(completions(shell)).unwrap();
            for command in Arguments::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell:?}: {command}");
            }
            assert!(
                script.contains("--admin") || script.contains("-l admin"),
                "{shell:?}"
            );
        }
    }

    #[test]
    fn keys_are_distinguished_from_paths() {
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
            assert_eq!(contains_secret(&argument), gives, "{argument}");
        }
    }
}
