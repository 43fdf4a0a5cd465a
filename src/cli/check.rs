//! `lbproxy check FILE…`: shows all errors and warnings of a configuration, of a proxy or an agent. Binds no socket and
//! changes nothing; the files that the configuration names are read as at startup.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::diagnostics::{self, Diagnostic, Severity, counted};
use crate::config::limits::MAX_FILE;
use crate::config::load::{is_agent, load_agent, load_sources};
use crate::config::schema::{AgentConfig, Config};
use crate::config::sources::{Sources, Unreadable};
use crate::control::{Absent, Machine, check_secrets};
use crate::files;
use crate::gossip::text::redacted;

/// Checks the configuration at the paths `named`: files and directories together, or only `-` for standard input.
/// Succeeds if it is valid, and with `strict` only if there are no warnings. Diagnostics are written to stderr, and the
/// result for a valid file to stdout; with `json`, one JSON object is written to stdout (a file that cannot be read has
/// one error at line 1, column 1).
pub fn run(named: &[PathBuf], json: bool, strict: bool) -> ExitCode {
    if named.len() > 1 && named.iter().any(|path| path == Path::new("-")) {
        eprintln!("error: `-` (standard input) cannot be combined with files");
        return ExitCode::from(2);
    }
    let how = ReportOptions {
        json,
        strict,
        colour: in_colour(),
    };
    let report = report(named, how);
    // If the reader has gone away, the result is the same.
    let _ = io::stderr().write_all(report.err.as_bytes());
    let _ = io::stdout().write_all(report.out.as_bytes());
    match report.valid {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// How to report.
#[derive(Debug, Clone, Copy, Default)]
struct ReportOptions {
    json: bool,
    strict: bool,
    colour: bool,
}

/// Whether to color diagnostics on stderr.
pub(super) fn in_colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// The output of the command.
struct CheckReport {
    /// What to write to stdout.
    out: String,
    /// What to write to stderr.
    err: String,
    valid: bool,
}

fn report(named: &[PathBuf], how: ReportOptions) -> CheckReport {
    let sources = match sources(named) {
        Ok(sources) => sources,
        Err(errors) => return unreadable(&errors, how),
    };
    let (contents, diagnostics) = check(&sources);
    let warned = diagnostics::count(&diagnostics, Severity::Warning) > 0;
    let valid = contents.is_some() && !(how.strict && warned);
    let files = sources.shown();
    let names: Vec<String> = files
        .iter()
        .map(|(name, _)| redacted(name).into_owned())
        .collect();
    if how.json {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut value = diagnostics::set_to_json(&names, &diagnostics);
        value["valid"] = valid.into();
        return CheckReport {
            out: format!("{value:#}\n"),
            err: String::new(),
            valid,
        };
    }
    let files: Vec<(&str, &str)> = names
        .iter()
        .zip(&files)
        .map(|(name, (_, text))| (name.as_str(), text.as_str()))
        .collect();
    let mut err = diagnostics::render_set(&files, &diagnostics, how.colour);
    let mut out = String::new();
    let numbers = summary(&diagnostics);
    let name = match &names[..] {
        [name] => name.clone(),
        all => counted(all.len(), "file"),
    };
    match contents {
        Some(contents) if valid => out = format!("{name}: valid, {contents}{numbers}\n"),
        Some(_) => err.push_str(&format!(
            "{name}: warnings, which --strict refuses{numbers}\n"
        )),
        None => err.push_str(&format!("{name}: not valid{numbers}\n")),
    }
    CheckReport { out, err, valid }
}

/// Reads the sources at the paths `named`.
fn sources(named: &[PathBuf]) -> Result<Sources, Vec<Unreadable>> {
    let machine = Machine::default();
    if named != [Path::new("-")] {
        return Sources::read(named, &machine);
    }
    let mut bytes = Vec::new();
    let read = io::stdin()
        .take(MAX_FILE as u64 + 1)
        .read_to_end(&mut bytes);
    let path = PathBuf::from("standard input");
    match read {
        Ok(_) => Ok(Sources::of_text(&path, bytes, &machine)),
        Err(source) => Err(vec![Unreadable { path, source }]),
    }
}

/// Checks a configuration and the files that it names; returns a summary of a valid one, and the diagnostics.
fn check(sources: &Sources) -> (Option<String>, Vec<Diagnostic>) {
    if let [file] = &sources.files[..]
        && is_agent(&file.bytes)
    {
        let loaded = check_secrets(&file.path, load_agent(&file.bytes), Absent::Warning);
        let contents =
            |config: &AgentConfig| format!("agent of {:?} at {}", config.cluster, config.backend);
        return (loaded.config.as_ref().map(contents), loaded.diagnostics);
    }
    let loaded = load_sources(sources, &Machine::default());
    let loaded = check_secrets(&sources.main, loaded, Absent::Warning);
    (loaded.config.as_ref().map(contents), loaded.diagnostics)
}

/// Reads a file in the same way as at startup.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    files::read_beginning(path, MAX_FILE + 1)
}

/// Reports files that cannot be read.
fn unreadable(errors: &[Unreadable], how: ReportOptions) -> CheckReport {
    let names: Vec<String> = errors
        .iter()
        .map(|error| redacted(&error.path.display().to_string()).into_owned())
        .collect();
    if !how.json {
        let lines = errors.iter().zip(&names).map(|(error, name)| {
            let why = &error.source;
            format!("error: {name}: cannot be read: {why}\n")
        });
        return CheckReport {
            out: String::new(),
            err: lines.collect(),
            valid: false,
        };
    }
    let diagnostics = errors.iter().enumerate().map(|(file, error)| Diagnostic {
        severity: Severity::Error,
        message: format!("the file cannot be read: {}", error.source),
        file,
        span: 0..0,
        line: 1,
        column: 1,
        label: String::new(),
        help: None,
        related: None,
    });
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let value = diagnostics::set_to_json(&names, &diagnostics.collect::<Vec<_>>());
    CheckReport {
        out: format!("{value:#}\n"),
        err: String::new(),
        valid: false,
    }
}

/// Summarizes a configuration: `1 listener, 2 routes, 1 cluster, 3 backends`.
fn contents(config: &Config) -> String {
    let backends = config.clusters.iter().map(|c| c.backends.len()).sum();
    [
        (config.listener_count(), "listener"),
        (config.routes.len(), "route"),
        (config.clusters.len(), "cluster"),
        (backends, "backend"),
    ]
    .map(|(number, noun)| counted(number, noun))
    .join(", ")
}

/// Counts diagnostics: `, 2 errors, 1 warning`; empty if there are none.
fn summary(diagnostics: &[Diagnostic]) -> String {
    [(Severity::Error, "error"), (Severity::Warning, "warning")]
        .map(|(severity, noun)| (diagnostics::count(diagnostics, severity), noun))
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, noun)| format!(", {}", counted(number, noun)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use serde_json::{Value, json};

    use super::*;
    use crate::gossip::keyring::SecretKey;

    fn reported(path: &Path, json: bool) -> CheckReport {
        let how = ReportOptions {
            json,
            ..ReportOptions::default()
        };
        report(&[path.to_owned()], how)
    }

    /// The report on a file `lb.toml` with this content.
    fn on(content: &[u8], json: bool) -> CheckReport {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lb.toml");
        std::fs::write(&path, content).unwrap();
        let mut report = reported(&path, json);
        let folder = format!("{}/", folder.path().display());
        report.out = report.out.replace(&folder, "");
        report.err = report.err.replace(&folder, "");
        report
    }

    const VALID: &str = "[[listener]]\naddress = \":0\"\ncluster = \"a\"\n[cluster.a]\nbackends = [\"a:1\", \"b:1\"]\n";

    #[test]
    fn a_valid_file_passes() {
        let report = on(VALID.as_bytes(), false);
        assert!(report.valid);
        assert_eq!(
            report.out,
            "lb.toml: valid, 1 listener, 0 routes, 1 cluster, 2 backends\n"
        );
        assert_eq!(report.err, "");
    }

    #[test]
    fn warnings_are_shown_but_do_not_fail() {
        let report = on(format!("{VALID}hash_seed = 1\n").as_bytes(), false);
        assert!(report.valid);
        assert_eq!(
            report.out,
            "lb.toml: valid, 1 listener, 0 routes, 1 cluster, 2 backends, 1 warning\n"
        );
        assert!(
            report.err.starts_with("warning: `hash_seed` without"),
            "{}",
            report.err
        );
    }

    #[test]
    fn the_file_of_an_agent_is_recognized() {
        let valid = "cluster = 'web'\nbackend = '10.0.0.7:80'\naddress = '127.0.0.1:7946'\n";
        let report = on(valid.as_bytes(), false);
        assert_eq!(
            (report.valid, report.out.as_str(), report.err.as_str()),
            (
                true,
                "lb.toml: valid, agent of \"web\" at 10.0.0.7:80\n",
                ""
            )
        );
        let bad = on(b"backend = 1\n", false);
        assert!(
            bad.err.contains("an agent's file has no `cluster`"),
            "{}",
            bad.err
        );
        // A stray `cluster` at the top of a proxy's file does not make it an agent's.
        let proxy = on(format!("cluster = 'web'\n{VALID}").as_bytes(), false);
        assert!(
            !proxy.valid && !proxy.err.contains("agent"),
            "{}",
            proxy.err
        );
    }

    #[test]
    fn a_file_with_errors_fails() {
        let report = on(b"workers = 0\nwatch = 1\n", false);
        assert!(!report.valid);
        assert_eq!(report.out, "");
        assert!(report.err.contains("--> lb.toml:2:9\n"), "{}", report.err);
        assert!(
            report.err.ends_with("\nlb.toml: not valid, 3 errors\n"),
            "{}",
            report.err
        );
    }

    #[test]
    fn a_file_that_is_not_text_fails() {
        let report = on(b"workers = 1\nx = \"\xff\"\n", false);
        assert!(
            !report.valid && report.err.contains("--> lb.toml:2:6\n"),
            "{}",
            report.err
        );
    }

    #[test]
    fn json_is_one_object() {
        let report = on(VALID.as_bytes(), true);
        let value: Value = serde_json::from_str(&report.out).unwrap();
        assert!(report.valid && report.err.is_empty());
        assert_eq!(
            value,
            json!({ "file": "lb.toml", "valid": true, "errors": [], "warnings": [] })
        );
        let report = on(b"workers = 0", true);
        let value: Value = serde_json::from_str(&report.out).unwrap();
        assert!(!report.valid && report.err.is_empty());
        assert_eq!(value["valid"], false);
        assert_eq!(value["errors"][1]["column"], 11);
    }

    #[test]
    fn a_key_in_place_of_its_path_is_not_shown() {
        let secret = "Jx7fZm9vYmFyJx7fZm9vYmFyJx7fZm9vYmFyJx7fZm9v";
        let key = format!("lbproxy-key-1.{secret}");
        for text in [
            format!("{VALID}[gossip]\naddress = '127.0.0.1:7946'\nkey_files = \"{key}\"\n"),
            format!("{VALID}[gossip]\nkey_file = \"{key}\"\n"),
            format!("{VALID}[gossip]\nlabel = \"{key}{key}\"\nseeds = ['{key}', 3]\n"),
            format!("{key}\n"),
            format!("cluster = 'web'\nbackend = '{key}'\nkey_files = {key}\n"),
            format!("cluster = 'web'\nbackend = 1\n\"{key}\" = 1\n"),
        ] {
            for json in [false, true] {
                let CheckReport { out, err, valid } = on(text.as_bytes(), json);
                assert!(!valid, "{text}");
                assert!(!(out.clone() + &err).contains(&secret[..8]), "{out}{err}");
                assert!(json || err.contains("lbproxy-key-1.…"), "{out}{err}");
            }
        }
        for json in [false, true] {
            let CheckReport { out, err, .. } = reported(Path::new(&key), json);
            let all = out + &err;
            assert!(
                all.contains("lbproxy-key-1.…") && !all.contains(secret),
                "{all}"
            );
        }
    }

    #[test]
    fn files_with_secrets_are_read_next_to_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let key = SecretKey::generate(&[7; 32]).to_text();
        let write = |name: &str, text: &str, mode| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        };
        write("good.key", &key, 0o600);
        write("cut.key", &key[..40], 0o600);
        write("open.key", &key, 0o644);
        let seen = |text: &str| {
            let path = folder.path().join("lb.toml");
            std::fs::write(&path, text).unwrap();
            let CheckReport { out, err, valid } = reported(&path, false);
            assert!(!(out.clone() + &err).contains(&key[14..20]), "{out}{err}");
            (
                valid,
                (out + &err).replace(&format!("{}/", folder.path().display()), ""),
            )
        };
        let proxy = |keys: &str| format!("{VALID}[gossip]\naddress = '127.0.0.1:7946'\n{keys}\n");
        let agent = |keys: &str| {
            format!(
                "cluster = 'web'\nbackend = '10.0.0.7:80'\naddress = '127.0.0.1:7946'\n{keys}\n"
            )
        };
        assert!(
            !seen(&proxy("key_files = ['good.key']"))
                .1
                .contains("has mode")
        );
        for text in [
            proxy("key_files = ['open.key']"),
            agent("key_file = 'open.key'"),
        ] {
            let (valid, all) = seen(&text);
            let said =
                "warning: open.key has mode 0644, so everybody on this machine can read it\n";
            assert!(valid && all.contains(said), "{all}");
            assert!(
                all.contains("= help: chmod 600 open.key, or 640 with a group"),
                "{all}"
            );
        }
        for text in [proxy("key_files = ['nokey']"), agent("key_file = 'nokey'")] {
            let (valid, all) = seen(&text);
            let said = "warning: cannot read nokey: No such file";
            assert!(valid && all.contains(said), "{all}");
            let help = "= help: startup and reload will fail without it";
            assert!(all.contains(help), "{all}");
        }
        for (text, said) in [
            (
                proxy("key_files = ['good.key', 'nokey', 'cut.key']"),
                &[
                    "cannot read nokey: No such file",
                    "lb.toml:8:26\n",
                    "lb.toml:8:35\n",
                ][..],
            ),
            (
                proxy("token_key = 'good.key'"),
                &[
                    "good.key: it does not begin with",
                    "lb.toml:8:13\n",
                    "of an operator's public key",
                ],
            ),
            // All at once.
            (
                format!("workers = 0\n{}", proxy("key_files = ['cut.key']")),
                &["cut.key: ", "lb.toml:1:11\n", "not valid, 2 errors"],
            ),
            (
                agent("key_file = 'nokey'\ntoken_file = 'good.key'"),
                &[
                    "cannot read nokey",
                    "lb.toml:4:12\n",
                    "good.key: it",
                    "lb.toml:5:14\n",
                ],
            ),
        ] {
            let (valid, all) = seen(&text);
            assert!(!valid, "{text}");
            for said in said {
                assert!(all.contains(said), "{said:?} is not in {all}");
            }
        }
    }

    #[test]
    fn files_that_cannot_be_read_fail() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("none.toml"), folder.path().to_owned()] {
            let text = reported(&path, false);
            assert!(
                !text.valid && text.err.contains("cannot be read"),
                "{}",
                text.err
            );
            let json = reported(&path, true);
            let value: Value = serde_json::from_str(&json.out).unwrap();
            assert_eq!(
                (json.valid, &value["errors"][0]["line"]),
                (false, &json!(1))
            );
        }
    }

    #[test]
    fn an_endless_device_is_refused() {
        let report = reported(Path::new("/dev/zero"), false);
        assert!(
            !report.valid && report.err.contains("it is a device, not a regular file"),
            "{}",
            report.err
        );
    }
}
