//! `lbproxy proxy --from ADDRESS --to ADDRESS…`: runs a proxy without a file. The equivalent file is created, printed
//! and used, so that a user who needs more than the arguments has a file to start from.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Args;
use clap::builder::PossibleValuesParser;

use super::{Failure, exit_code, folder};
use crate::config::addresses;
use crate::config::diagnostics::render;
use crate::config::load::load;
use crate::config::sections::words::distinct;
use crate::model::address::{BackendAddress, BindAddress};
use crate::model::settings::{Policy, Protocol};

/// Arguments of `lbproxy proxy`.
#[derive(Debug, Args)]
pub struct ProxyArguments {
    /// Where clients connect: ":8080", "127.0.0.1:8080", "[::1]:8080" or "unix:/run/lb.sock".
    #[arg(long, value_name = "ADDRESS", value_parser = listen)]
    from: BindAddress,
    /// A backend: "127.0.0.1:3000", "web.internal:3000" or "unix:/run/app.sock"; once for each, or several with commas.
    #[arg(
        long,
        value_name = "ADDRESS",
        required = true,
        value_delimiter = ',',
        value_parser = addresses::backend
    )]
    to: Vec<BackendAddress>,
    /// The protocol of the listener.
    #[arg(
        long,
        default_value = Protocol::Http.as_str(),
        value_parser = PossibleValuesParser::new(distinct::<Protocol>())
    )]
    protocol: String,
    /// How backends are chosen; round_robin by default.
    #[arg(long, value_parser = PossibleValuesParser::new(distinct::<Policy>()))]
    policy: Option<String>,
    /// Check the health of backends: a path such as "/healthz" that must answer 2xx, or "tcp" for a connection.
    #[arg(long, value_name = "PATH|tcp")]
    check: Option<String>,
    /// Serve metrics and status here: "127.0.0.1:9900" or "unix:/run/lbproxy/admin.sock".
    #[arg(long, value_name = "ADDRESS", value_parser = admin)]
    admin: Option<String>,
}

fn listen(text: &str) -> Result<BindAddress, String> {
    addresses::listen(text, 8080)
}

fn admin(text: &str) -> Result<String, String> {
    addresses::admin(text).map(|_| text.to_owned())
}

/// Prints the file, and runs the proxy with it until a signal ends it.
pub fn run(arguments: &ProxyArguments) -> ExitCode {
    exit_code(start(arguments))
}

fn start(arguments: &ProxyArguments) -> Result<(), Failure> {
    let text = file(arguments);
    let loaded = load(&text);
    if loaded.config.is_none() {
        let shown = render(
            "arguments",
            &text,
            &loaded.diagnostics,
            super::check::in_colour(),
        );
        return Err(Failure::Arguments(anyhow!("{}", shown.trim_end())));
    }
    let folder = folder::private("lbproxy-proxy-")?;
    let path = folder.path().join("lb.toml");
    std::fs::write(&path, &text).context("cannot write the configuration")?;
    let mut out = io::stdout().lock();
    // It does not matter if nobody reads it.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    drop(out);
    Ok(crate::app::run(&[path])?)
}

/// The file that is equivalent to the arguments.
fn file(arguments: &ProxyArguments) -> String {
    let mut text =
        String::from("# Made by lbproxy proxy. Saved as lb.toml, it runs with: lbproxy lb.toml\n");
    let mut section = |head: &str, entries: &[Option<(&str, String)>]| {
        text.push_str(&format!("\n{head}\n"));
        for (key, value) in entries.iter().flatten() {
            text.push_str(&format!("{key} = {value}\n"));
        }
    };
    if let Some(address) = &arguments.admin {
        section("[admin]", &[Some(("address", quoted(address)))]);
    }
    let is_default = arguments.protocol == Protocol::default().as_str();
    section(
        "[[listener]]",
        &[
            Some(("address", quoted(&arguments.from.to_string()))),
            (!is_default).then(|| ("protocol", quoted(&arguments.protocol))),
            Some(("cluster", quoted("backends"))),
        ],
    );
    let backends: Vec<String> = arguments
        .to
        .iter()
        .map(|address| quoted(&address.to_string()))
        .collect();
    let policy = arguments.policy.as_deref();
    let check = arguments.check.as_deref().map(|check| match check {
        "tcp" => "{ tcp = true }".to_owned(),
        path => format!("{{ http = {} }}", quoted(path)),
    });
    section(
        "[cluster.backends]",
        &[
            policy.map(|policy| ("policy", quoted(policy))),
            Some(("backends", format!("[{}]", backends.join(", ")))),
            check.map(|check| ("check", check)),
        ],
    );
    text
}

/// Writes a basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use proptest::prelude::*;

    use super::*;
    use crate::config::schema::Config;
    use crate::model::settings::CheckKind;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: ProxyArguments,
    }

    fn made(arguments: &[&str]) -> Result<(String, Config), String> {
        let line = Line::try_parse_from([&["proxy"], arguments].concat());
        let text = file(&line.map_err(|error| error.to_string())?.arguments);
        let loaded = load(&text);
        let config = loaded
            .config
            .ok_or_else(|| format!("{:?}", loaded.diagnostics))?;
        assert_eq!(loaded.diagnostics, [], "{text}");
        Ok((text, config))
    }

    #[test]
    fn arguments_make_a_file() {
        let (text, _) = made(&["--from", ":8080", "--to", "127.0.0.1:3000"]).unwrap();
        let expected = "\
# Made by lbproxy proxy. Saved as lb.toml, it runs with: lbproxy lb.toml

[[listener]]
address = \":8080\"
cluster = \"backends\"

[cluster.backends]
backends = [\"127.0.0.1:3000\"]
";
        assert_eq!(text, expected);
        let all = "--from [::1]:8080 --to a:1,b:2 --to [::1]:3 --policy power_of_two --protocol tcp --check tcp --admin unix:/a.sock";
        let (text, config) = made(&all.split(' ').collect::<Vec<_>>()).unwrap();
        assert_eq!(config.clusters[0].backends.len(), 3, "{text}");
        assert_eq!(config.clusters[0].settings.policy, Policy::PowerOfTwo);
        assert_eq!(config.listeners[0].protocol, Protocol::Tcp);
        assert!(config.admin.is_some() && config.clusters[0].settings.check.is_some());
        let (_, config) = made(&["--from", ":1", "--to", "a:1", "--check", "/a?b=\"c\\"]).unwrap();
        let check = config.clusters[0].settings.check.as_ref().unwrap();
        let path = "/a?b=\"c\\";
        assert!(matches!(&check.kind, CheckKind::Http { path: p, .. } if p == path));
    }

    #[test]
    fn invalid_arguments_are_refused() {
        for (arguments, expected) in [
            ("--to a:1", "--from"),
            ("--from :1", "--to"),
            ("--from 8080 --to a:1", "write \":8080\" for all addresses"),
            ("--from :1 --to http://a:1", "write \"a:1\""),
            ("--from :1 --to :3000", "as in \"10.0.0.1:3000\""),
            ("--from :1 --to a:1 --admin 9900", "write \":9900\""),
            ("--from :1 --to a:1,a:1", "given twice"),
            ("--from :1 --to a:1 --check healthz", "healthz"),
            ("--from :1 --to a:1 --policy least", "least_connections"),
        ] {
            let error = made(&arguments.split(' ').collect::<Vec<_>>()).unwrap_err();
            assert!(error.contains(expected), "{arguments}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_becomes_a_string_of_toml(text in "\\PC*|[\\x00-\\x7f]*") {
            let line = format!("a = {}", quoted(&text));
            let table = toml::de::DeTable::parse(&line).unwrap();
            prop_assert_eq!(table.get_ref()["a"].get_ref().as_str(), Some(text.as_str()));
        }
    }
}
