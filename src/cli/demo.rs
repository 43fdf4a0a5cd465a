//! `lbproxy demo`: three sample backends and the real proxy in front of them, in one process.
//!
//! The proxy runs with a temporary configuration file, so that a user can edit it and watch the reload. A line is
//! printed for every request that a backend answers, and for every change that is applied. A change that is rejected is
//! logged with its diagnostics.

use std::convert::Infallible;
use std::fmt::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use axum::Router;
use axum::http::Request;
use axum::response::IntoResponse;
use tokio::net::TcpListener;

use super::folder;
use crate::control::Changes;
use crate::logging::events::print_at_exit;
use crate::model::address::SocketAddress;
use crate::snapshot::Snapshot;

const NAMES: [&str; 3] = ["apple", "banana", "cherry"];

/// Runs the demonstration until a signal ends it.
pub fn run() -> ExitCode {
    match demonstrate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_at_exit(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn demonstrate() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("demo-backends")
        .enable_all()
        .build()
        .context("cannot start the sample backends")?;
    let backends = runtime.block_on(start_backends())?;
    let admin = free_address()?;
    let directory = folder::private("lbproxy-demo-")?;
    let file = directory.path().join("lb.toml");
    std::fs::write(&file, configuration(&backends, admin))
        .context("cannot write the sample configuration")?;
    let shown = file.clone();
    let on_ready = Box::new(move |snapshot: &Snapshot| {
        let Some(listener) = snapshot.listeners.first() else {
            return;
        };
        print!(
            "{}",
            welcome(&backends, listener.sockets.address(), admin, &shown)
        );
    });
    let on_applied = Box::new(|generation, changes: &Changes| {
        println!("configuration applied (generation {generation}): {changes}");
    });
    let result = crate::app::run_with(&[file], on_ready, Some(on_applied));
    runtime.shutdown_background();
    result
}

async fn start_backends() -> anyhow::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for name in NAMES {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("cannot start a sample backend")?;
        addresses.push(listener.local_addr()?);
        let answer = move |request: Request<axum::body::Body>| async move {
            if request.uri().path() != "/healthz" {
                println!("{name:>8} answers {} {}", request.method(), request.uri());
            }
            Ok::<_, Infallible>(
                ([("x-backend", name)], format!("hello from {name}\n")).into_response(),
            )
        };
        let service = Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, service).await });
    }
    Ok(addresses)
}

/// Finds an address that is free at the moment, since the admin address must be known before the proxy starts.
fn free_address() -> anyhow::Result<SocketAddr> {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(probe.local_addr()?)
}

fn configuration(backends: &[SocketAddr], admin: SocketAddr) -> String {
    let list = backends
        .iter()
        .map(|address| format!("\"{address}\""))
        .collect::<Vec<_>>()
        .join(", ");
    format!(
        "[admin]\naddress = \"{admin}\"\n\n[log]\nlevel = \"warn\"\n\n\
         [[listener]]\nname = \"demo\"\naddress = \"127.0.0.1:0\"\ncluster = \"fruit\"\n\n\
         # Change the policy or remove a backend, save, and watch.\n\
         [cluster.fruit]\npolicy = \"round_robin\"\nbackends = [{list}]\ncheck = {{ http = \"/healthz\" }}\n"
    )
}

fn welcome(
    backends: &[SocketAddr],
    proxy: &SocketAddress,
    admin: SocketAddr,
    file: &std::path::Path,
) -> String {
    let mut text = String::from("three backends\n");
    for (name, address) in NAMES.iter().zip(backends) {
        let _ = writeln!(text, "  {name:>8}  http://{address}");
    }
    let _ = write!(
        text,
        "one proxy in front of them\n     proxy  http://{proxy}\n   metrics  http://{admin}/metrics\n    \
         status  http://{admin}/api/v1/status\n    config  {}\n            edit and save it: the change is applied, or \
         rejected with the reason\n\ntry\n  curl http://{proxy}/\n\nPress Ctrl-C to stop\n\n",
        file.display()
    );
    text
}
