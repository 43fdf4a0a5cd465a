//! The command line: one file a subcommand.

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

/// Letters of a secret that are nearly one: the shortest whole one has 43.
const WHOLE: usize = 32;

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
    run: Named,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What a configuration is read from.
#[derive(Debug, Args)]
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

const AFTER: &str = "\
Begin with:
  lbproxy demo                                        something to try, without a file
  lbproxy proxy --from :8080 --to 127.0.0.1:3000      a proxy without a file
  lbproxy check lb.toml && lbproxy lb.toml            the real thing

Signals: SIGHUP reads the file again, SIGUSR1 opens log files again, SIGTERM, SIGINT and SIGQUIT drain and exit.
Exit codes: 0 done, 1 failed, 2 wrong arguments, 3 what was asked for is not there.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy on a configuration, as without a command.
    #[command(arg_required_else_help = true)]
    Run(Named),
    /// Run a proxy from arguments alone, and print the file that they stand for.
    Proxy(proxy::ProxyArguments),
    /// Run three sample backends and a proxy before them, to try things on.
    Demo,
    /// Check a configuration: all errors and warnings, nothing is bound or changed. `-` is standard input.
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
    /// Show the listeners and backends of a running proxy.
    Status(status::StatusArguments),
    /// Show the gossip peer set as a running proxy sees it.
    Members(members::MembersArguments),
    /// Stand beside a service: check it, announce it to the gossip peer set, perhaps run it.
    Agent(Box<agent::AgentArguments>),
    /// Make keys of the gossip peer set.
    Key {
        #[command(subcommand)]
        command: key::Command,
    },
    /// Make an operator's key pair, and tokens that say what an agent may announce.
    Token {
        #[command(subcommand)]
        command: token::Command,
    },
    /// Print the completions of a shell: bash, zsh or fish.
    ///
    /// For bash: lbproxy completions bash > ~/.local/share/bash-completion/completions/lbproxy
    ///
    /// For zsh, a file called _lbproxy in a folder of $fpath; for fish, ~/.config/fish/completions/lbproxy.fish.
    Completions {
        /// The shell.
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

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It could not: exit code 1.
    #[error("{0:#}")]
    Failed(anyhow::Error),
    /// The same, in words that are whole already.
    #[error("{0}")]
    Said(String),
    /// Wrong arguments: exit code 2.
    #[error("{0:#}")]
    Arguments(anyhow::Error),
    /// The state that was asked for is not there: exit code 3.
    #[error("{0:#}")]
    NotThere(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Runs the program: exit code 0 if it did what was asked, 1 if it could not, 2 if the arguments are wrong, 3 if what
/// was asked for is not there; with `agent --once` that of the service.
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
    let Some(command) = arguments.command else {
        // clap shows the help when there is nothing.
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
        Command::Key { command } => ended(key::run(&command)),
        Command::Token { command } => ended(token::run(&command)),
        Command::Completions { shell } => ended(ask::print(&completions(shell))),
        Command::Version => ended(ask::print(VERSION.as_bytes())),
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

/// Whether a key or token stands in an argument, and not only a path that is called like one.
fn gives_secret(argument: &str) -> bool {
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    secrets(argument)
        .map(|range| argument[range].bytes())
        .any(|bytes| bytes.take_while(letter).count() >= WHOLE)
}

/// The exit code; what went wrong goes to stderr.
fn ended<E: Into<Failure>>(result: Result<(), E>) -> ExitCode {
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

/// With `error:` before it, unless it begins so.
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
    fn the_arguments_agree_with_each_other() {
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
