//! The proxies: where each is found, its configuration, and how it is started.
//!
//! All get the same task: one thread, round robin over the same backends, connections to backends kept, no access log;
//! `templates/` has the files as they are written, with `{…}` filled in. What is not said there is each proxy's own
//! default. lbproxy alone also checks its backends, counts, and adds its fields to each request, since it does so by
//! default. Pingora has no configuration file; `pingora/src/main.rs` is its counterpart, for HTTP only.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::launch::{Child, Cores, read_ports};
use crate::load::{Load, Work};
use crate::reload;

/// Which proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Proxy {
    Floor,
    Lbproxy,
    Haproxy,
    Nginx,
    Pingora,
}

impl Proxy {
    pub(crate) const ALL: [Self; 5] = [
        Self::Floor,
        Self::Lbproxy,
        Self::Haproxy,
        Self::Nginx,
        Self::Pingora,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Lbproxy => "lbproxy",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Pingora => "pingora",
        }
    }
}

/// What a proxy has to do.
#[derive(Clone)]
pub(crate) struct Task {
    pub http: bool,
    pub backends: Vec<SocketAddr>,
    /// What follows is lbproxy's only, unless it says otherwise.
    pub workers: usize,
    /// Routes `/r0/*`, `/r1/*`, … to the one cluster, if any.
    pub routes: usize,
    /// Choose the backend by the field `x-key`, and check no backend.
    pub by_key: bool,
    /// Pipes of 1 MiB, not what HAProxy takes by default: HAProxy only.
    pub large_pipes: bool,
    /// One more route says which file this is, no backend is checked, and all cores may be used.
    pub numbered: bool,
}

/// A proxy that answers.
pub(crate) struct Running {
    pub child: Child,
    pub address: SocketAddr,
}

/// The programs that were found, and why others were not.
pub(crate) struct Programs {
    pub lbproxy: Option<PathBuf>,
    pub haproxy: Option<PathBuf>,
    pub nginx: Option<PathBuf>,
    pub pingora: Option<PathBuf>,
    /// The line that loads nginx's stream module, or why there is no stream.
    pub nginx_stream: Result<String, String>,
    pub directory: PathBuf,
    pub descriptors: u64,
}

impl Programs {
    fn program(&self, proxy: Proxy) -> Result<PathBuf, String> {
        match proxy {
            Proxy::Floor => std::env::current_exe().map_err(|error| error.to_string()),
            Proxy::Lbproxy => self.lbproxy.clone().ok_or_else(|| "it could not be built (see above)".to_owned()),
            Proxy::Haproxy => self.haproxy.clone().ok_or_else(|| "not found; `--haproxy PATH` names it".to_owned()),
            Proxy::Nginx => self.nginx.clone().ok_or_else(|| "not found; `--nginx PATH` names it".to_owned()),
            Proxy::Pingora => self.pingora.clone().ok_or_else(|| {
                "left out: it takes minutes to build, needs cmake and is no dependency; `--pingora` builds it".to_owned()
            }),
        }
    }

    /// Why a proxy cannot do a task, if it cannot.
    pub(crate) fn obstacle(&self, proxy: Proxy, task: &Task) -> Option<String> {
        if let Err(reason) = self.program(proxy) {
            return Some(reason);
        }
        match proxy {
            Proxy::Pingora if !task.http => {
                Some("the program beside this bench is for HTTP".to_owned())
            }
            Proxy::Nginx if !task.http => self.nginx_stream.clone().err(),
            _ => None,
        }
    }

    /// Starts a proxy and waits until `work` is answered through it.
    pub(crate) fn start(
        &self,
        proxy: Proxy,
        task: &Task,
        cores: &Cores,
        work: &Work,
    ) -> io::Result<Running> {
        let program = self.program(proxy).map_err(io::Error::other)?;
        let mut core = vec![cores.proxy];
        if task.numbered {
            core.extend_from_slice(&cores.others);
        }
        let log = self.directory.join(format!("{}.log", proxy.name()));
        let (mut child, address) = if proxy == Proxy::Floor {
            let pool = if task.http { "pool" } else { "pairs" };
            let mut words = vec!["floor".to_owned(), pool.to_owned()];
            words.extend(task.backends.iter().map(SocketAddr::to_string));
            let (child, mut out) = Child::role(&core, &words, &log)?;
            let ports = read_ports(&mut out, "listening")?;
            let port = ports
                .first()
                .ok_or_else(|| io::Error::other("the floor has no port"))?;
            (child, SocketAddr::from((Ipv4Addr::LOCALHOST, *port)))
        } else {
            let address = free_address()?;
            let words = self.arguments(proxy, task, address)?;
            (Child::start(&core, &program, &words, &log, false)?, address)
        };
        child.wait_until(Duration::from_secs(20), || Load::once(address, work))?;
        // Once more for each backend, so that checks, pools and rotations are past their beginning.
        for _ in 1..task.backends.len().min(8) {
            Load::once(address, work)?;
        }
        Ok(Running { child, address })
    }

    fn arguments(&self, proxy: Proxy, task: &Task, listen: SocketAddr) -> io::Result<Vec<String>> {
        let protocol = if task.http { "http" } else { "tcp" };
        let (template, name) = match (proxy, task.http) {
            (Proxy::Lbproxy, _) => (include_str!("templates/lbproxy.toml"), "lbproxy.toml"),
            (Proxy::Haproxy, true) => (include_str!("templates/haproxy-http.cfg"), "haproxy.cfg"),
            (Proxy::Haproxy, false) => (include_str!("templates/haproxy-tcp.cfg"), "haproxy.cfg"),
            (Proxy::Nginx, true) => (include_str!("templates/nginx-http.conf"), "nginx.conf"),
            (Proxy::Nginx, false) => (include_str!("templates/nginx-tcp.conf"), "nginx.conf"),
            (Proxy::Pingora | Proxy::Floor, _) => {
                let words = std::iter::once(listen).chain(task.backends.iter().copied());
                return Ok(words.map(|word| word.to_string()).collect());
            }
        };
        let servers: Vec<String> = (0..)
            .zip(&task.backends)
            .map(|(number, backend)| match proxy {
                Proxy::Haproxy => format!("    server s{number} {backend}"),
                Proxy::Nginx => format!("        server {backend};"),
                _ => format!("    \"{backend}\","),
            })
            .collect();
        let mut routes: String = (0..task.routes)
            .map(|number| format!("\n[[route]]\npath = \"/r{number}/*\"\ncluster = \"bench\"\n"))
            .collect();
        if task.numbered {
            routes += &reload::route(0);
        }
        let policy = if task.by_key {
            "policy = \"consistent_hash\"\nhash_key = { header = \"x-key\" }\n"
        } else {
            ""
        };
        let check = match task.http {
            _ if task.by_key || task.numbered => "",
            true => "check = { http = \"/128\" }",
            false => "check = { tcp = true }",
        };
        let text = template
            .replace("{listen}", &listen.to_string())
            .replace("{servers}", &servers.join("\n"))
            .replace("{dir}", &self.directory.display().to_string())
            .replace("{descriptors}", &self.descriptors.to_string())
            .replace(
                "{connections}",
                &(self.descriptors / 3).min(12_000).to_string(),
            )
            .replace("{module}", self.nginx_stream.as_deref().unwrap_or_default())
            .replace("{workers}", &task.workers.to_string())
            .replace("{protocol}", protocol)
            .replace("{routes}", &routes)
            .replace("{policy}", policy)
            .replace("{check}", check)
            .replace(
                "{pipes}",
                if task.large_pipes {
                    "    tune.pipesize 1048576\n"
                } else {
                    ""
                },
            );
        let file = self.directory.join(name);
        fs::write(&file, text)?;
        let file = file.display().to_string();
        Ok(match proxy {
            Proxy::Haproxy => vec!["-db".into(), "-f".into(), file],
            Proxy::Nginx => {
                let prefix = self.directory.display().to_string();
                vec![
                    "-p".into(),
                    prefix,
                    "-e".into(),
                    "stderr".into(),
                    "-c".into(),
                    file,
                ]
            }
            _ => vec!["--config".into(), file],
        })
    }
}

/// An address that was free a moment ago.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Looks for a program in PATH, then where Debian keeps those of administrators.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// How nginx gets its stream module: built in, loaded, or not at all.
pub(crate) fn nginx_stream(nginx: &Path) -> Result<String, String> {
    let output = std::process::Command::new(nginx)
        .arg("-V")
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if text.split_whitespace().any(|word| word == "--with-stream") {
        return Ok(String::new());
    }
    let folder = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix("--modules-path="));
    let module = Path::new(folder.unwrap_or("/usr/lib/nginx/modules")).join("ngx_stream_module.so");
    if module.is_file() {
        Ok(format!("load_module {};", module.display()))
    } else {
        Err("nginx has no stream module (Debian: libnginx-mod-stream)".to_owned())
    }
}
