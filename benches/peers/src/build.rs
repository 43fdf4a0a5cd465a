//! Finds or builds the programs that are measured, and says which versions they are.
//!
//! lbproxy is built with the profile of the packages, `dist`, because its peers come from packages too. Pingora is built
//! only if that is asked for.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::options::Options;
use crate::proxies::{self, Programs, Proxy};

/// The top of the tree.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Finds and builds; what cannot be had is left out with a word why.
pub(crate) fn programs(options: &Options, directory: PathBuf, descriptors: u64) -> Programs {
    let lbproxy = options.lbproxy.clone().or_else(|| {
        println!("building lbproxy (profile {}) …", options.profile);
        let words = ["--profile", &options.profile, "--bin", "lbproxy"];
        built(&Path::new(ROOT).join("Cargo.toml"), &words, None)
    });
    let pingora = if options.pingora {
        println!("building the Pingora program (it takes minutes the first time) …");
        let target = target_directory().join("pingora");
        built(
            &Path::new(ROOT).join("benches/peers/pingora/Cargo.toml"),
            &["--release"],
            Some(&target),
        )
    } else {
        None
    };
    let nginx = options.nginx.clone().or_else(|| proxies::find("nginx"));
    Programs {
        lbproxy,
        haproxy: options.haproxy.clone().or_else(|| proxies::find("haproxy")),
        nginx_stream: nginx
            .as_deref()
            .map_or(Err("no nginx".to_owned()), proxies::nginx_stream),
        nginx,
        pingora,
        directory,
        descriptors,
    }
}

/// Where reports go, and what is built beside the project: `target/peers`.
pub(crate) fn target_directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target
        .unwrap_or_else(|| Path::new(ROOT).join("target"))
        .join("peers")
}

/// Builds with cargo and returns the program's path as cargo tells it.
fn built(manifest: &Path, words: &[&str], target: Option<&Path>) -> Option<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "build",
        "--message-format=json-render-diagnostics",
        "--manifest-path",
    ]);
    cargo.arg(manifest).args(words).stderr(Stdio::inherit());
    if let Some(target) = target {
        cargo.arg("--target-dir").arg(target);
    }
    let output = match cargo.output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            println!("cargo build ended with {}", output.status);
            return None;
        }
        Err(error) => {
            println!("cargo could not be started: {error}");
            return None;
        }
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
}

/// What a proxy says of its version.
pub(crate) fn version(programs: &Programs, proxy: Proxy) -> io::Result<String> {
    let (program, word) = match proxy {
        Proxy::Lbproxy => (&programs.lbproxy, "--version"),
        Proxy::Haproxy => (&programs.haproxy, "-v"),
        Proxy::Nginx => (&programs.nginx, "-v"),
        Proxy::Pingora if programs.pingora.is_none() => return Ok("not built".to_owned()),
        Proxy::Pingora => return Ok("0.9.1, see benches/peers/pingora/Cargo.lock".to_owned()),
        Proxy::Floor => return Ok("a byte relay on epoll".to_owned()),
    };
    let Some(program) = program else {
        return Ok("not found".to_owned());
    };
    let output = Command::new(program).arg(word).output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}
