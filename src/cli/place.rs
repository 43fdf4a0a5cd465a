//! Where a running proxy is asked. All commands that ask one find it the same way: `--admin ADDRESS`, the `[admin]` of
//! the file that `-c FILE` names, `LBPROXY_ADMIN`, and without any of them the socket [`DEFAULT`]. What is given
//! with the command goes before the environment.

use std::env::VarError;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;

use super::Failure;
use super::ask::AdminTarget;
use super::check;
use crate::config::load::is_agent;
use crate::control::read_alone;

/// Where a proxy is asked if nothing says where.
const DEFAULT: &str = "unix:/run/lbproxy/admin.sock";
/// The variable that says where a proxy is asked.
const VARIABLE: &str = "LBPROXY_ADMIN";

/// The arguments that say which proxy is meant.
#[derive(Debug, Default, Args)]
pub(super) struct Place {
    /// Ask the proxy at this admin address: "127.0.0.1:9900", "lb1.internal:9900" or "unix:/run/lbproxy/admin.sock".
    #[arg(
        long,
        value_name = "ADDRESS",
        conflicts_with = "config",
        help_heading = HEADING
    )]
    admin: Option<AdminTarget>,
    /// Ask the proxy that runs on this file, at the address of its [admin].
    ///
    /// Without --admin and --config the environment variable LBPROXY_ADMIN says where the proxy is, and without that it
    /// is asked at unix:/run/lbproxy/admin.sock.
    #[arg(short, long, value_name = "FILE", help_heading = HEADING)]
    config: Option<PathBuf>,
}

const HEADING: &str = "Which proxy";

impl Place {
    /// The proxy that runs on this file.
    pub(super) fn of_file(file: PathBuf) -> Self {
        Self {
            admin: None,
            config: Some(file),
        }
    }

    /// The address to ask.
    ///
    /// # Errors
    /// What is wrong with the address, the variable or the file.
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
        let wrong = |why: String| Failure::Arguments(anyhow!("{VARIABLE}: {why}"));
        match variable() {
            Ok(text) if !text.is_empty() => text.parse().map_err(wrong),
            Err(VarError::NotUnicode(_)) => Err(wrong("it is not UTF-8 text".to_owned())),
            _ => DEFAULT.parse().map_err(wrong),
        }
    }
}

/// The admin address of the file.
fn of_file(file: &Path) -> Result<AdminTarget, Failure> {
    match read_alone(file) {
        Ok(config) => match config.admin {
            Some(admin) => Ok(AdminTarget::Admin(admin)),
            None => Err(Failure::Failed(anyhow!(
                "{} has no [admin]: the proxy has no address where it could be asked",
                file.display()
            ))),
        },
        Err(_) if check::read(file).is_ok_and(|text| is_agent(&text)) => {
            Err(Failure::Failed(anyhow!(
                "{} is the file of an agent; give that of a proxy, which can be asked",
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
    fn the_order_of_the_places() {
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
    fn places_that_are_none() {
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
        assert!(
            of(without).ends_with(
                "lb.toml has no [admin]: the proxy has no address where it could be asked"
            )
        );
        assert!(
            of("cluster = 'a'\nbackend = '10.0.0.1:1'\naddress = '127.0.0.1:1'\n")
                .contains("is the file of an agent")
        );
        assert!(of("workers = 0").contains("`workers` is 0"));
        let absent = found(place(None, Some("/nowhere/lb.toml".into())), "").unwrap_err();
        assert!(absent.to_string().contains("cannot be read"), "{absent}");
    }
}
