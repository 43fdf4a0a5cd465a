//! Finds the admin address of a running proxy. All commands that need it look in the same places, in this order:
//! `--admin ADDRESS`, `[admin]` in the file of `-c FILE`, `LBPROXY_ADMIN`, and the socket [`DEFAULT`].

use std::env::VarError;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;

use super::Failure;
use super::ask::AdminTarget;
use super::check;
use crate::config::load::is_agent;
use crate::control::read_alone;

/// The address to use if none is given.
const DEFAULT: &str = "unix:/run/lbproxy/admin.sock";
/// The environment variable with the address.
const VARIABLE: &str = "LBPROXY_ADMIN";

/// The arguments that select the proxy.
#[derive(Debug, Default, Args)]
pub(super) struct Place {
    /// Admin address of the proxy: "127.0.0.1:9900", "lb1.internal:9900" or "unix:/run/lbproxy/admin.sock".
    #[arg(
        long,
        value_name = "ADDRESS",
        conflicts_with = "config",
        help_heading = HEADING
    )]
    admin: Option<AdminTarget>,
    /// File that the proxy runs with; its [admin] has the address.
    ///
    /// Without --admin and --config, the address is that of the environment variable LBPROXY_ADMIN, or
    /// unix:/run/lbproxy/admin.sock.
    #[arg(short, long, value_name = "FILE", help_heading = HEADING)]
    config: Option<PathBuf>,
}

const HEADING: &str = "Which proxy";

impl Place {
    /// Selects the proxy that runs with this file.
    pub(super) fn of_file(file: PathBuf) -> Self {
        Self {
            admin: None,
            config: Some(file),
        }
    }

    /// Finds the admin address.
    ///
    /// # Errors
    /// The address, the variable or the file is invalid.
    pub(super) fn find(self) -> Result<AdminTarget, Failure> {
        self.find_with(|| std::env::var(VARIABLE))
    }

    fn find_with(
        self,
        variable: impl FnOnce() -> Result<String, VarError>,
    ) -> Result<AdminTarget, Failure> {
        if let Some(target) = self.admin {
            return Ok(target);
        }
        if let Some(file) = self.config {
            return of_file(&file);
        }
        let invalid = |why: String| Failure::Arguments(anyhow!("{VARIABLE}: {why}"));
        match variable() {
            Ok(text) if !text.is_empty() => text.parse().map_err(invalid),
            Err(VarError::NotUnicode(_)) => Err(invalid("it is not UTF-8 text".to_owned())),
            _ => DEFAULT.parse().map_err(invalid),
        }
    }
}

/// Reads the admin address from a file.
fn of_file(file: &Path) -> Result<AdminTarget, Failure> {
    match read_alone(file) {
        Ok(config) => match config.admin {
            Some(admin) => Ok(AdminTarget::Admin(admin)),
            None => Err(Failure::Failed(anyhow!(
                "{} has no [admin], so the proxy has no admin address",
                file.display()
            ))),
        },
        Err(_) if check::read(file).is_ok_and(|text| is_agent(&text)) => {
            Err(Failure::Failed(anyhow!(
                "{} is the file of an agent; give the file of a proxy",
                file.display()
            )))
        }
        Err(error) => Err(Failure::Said(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(admin: Option<&str>, config: Option<PathBuf>) -> Place {
        Place {
            admin: admin.map(|text| text.parse().unwrap()),
            config,
        }
    }

    fn found(place: Place, variable: &str) -> Result<String, Failure> {
        let variable = match variable {
            "" => Err(VarError::NotPresent),
            text => Ok(text.trim().to_owned()),
        };
        place
            .find_with(|| variable)
            .map(|target| target.to_string())
    }

    #[test]
    fn arguments_come_before_the_environment_and_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lb.toml");
        let text = "admin.address = '127.0.0.1:9901'\n[[listener]]\naddress = ':1'\ncluster = 'a'\n[cluster.a]\nbackends = ['a:1']\n";
        std::fs::write(&file, text).unwrap();
        for (place, variable, expected) in [
            (place(Some("lb1:9902"), None), "127.0.0.1:9903", "lb1:9902"),
            (
                place(None, Some(file.clone())),
                "127.0.0.1:9903",
                "127.0.0.1:9901",
            ),
            (place(None, None), "unix:/a.sock", "unix:/a.sock"),
            (place(None, None), "", DEFAULT),
            (place(None, None), " ", DEFAULT),
        ] {
            assert_eq!(found(place, variable).unwrap(), expected);
        }
    }

    #[test]
    fn invalid_addresses_and_files_are_errors() {
        let wrong = found(place(None, None), "9900").unwrap_err();
        assert!(matches!(wrong, Failure::Arguments(_)), "{wrong:?}");
        assert!(
            wrong
                .to_string()
                .starts_with("LBPROXY_ADMIN: expected an address before the port"),
            "{wrong}"
        );

        let folder = tempfile::tempdir().unwrap();
        let of = |text: &str| {
            let file = folder.path().join("lb.toml");
            std::fs::write(&file, text).unwrap();
            found(place(None, Some(file)), "127.0.0.1:1")
                .unwrap_err()
                .to_string()
        };
        let without =
            "[[listener]]\naddress = ':1'\ncluster = 'a'\n[cluster.a]\nbackends = ['a:1']\n";
        assert!(of(without).ends_with("lb.toml has no [admin], so the proxy has no admin address"));
        assert!(
            of("cluster = 'a'\nbackend = '10.0.0.1:1'\naddress = '127.0.0.1:1'\n")
                .contains("is the file of an agent")
        );
        assert!(of("workers = 0").contains("`workers` is 0"));
        let absent = found(place(None, Some("/nowhere/lb.toml".into())), "").unwrap_err();
        assert!(absent.to_string().contains("cannot be read"), "{absent}");
    }
}
