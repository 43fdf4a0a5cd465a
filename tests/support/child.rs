//! A sample backend in a process of its own, so that it can be killed as a crash kills.
//!
//! The test program runs itself again with the one test of this module, which finds its orders in the environment and
//! becomes a backend. The parent holds the port, so that nobody takes it between two lives.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use rustix::process::{Pid, Signal, kill_process};

use super::backend::Backend;
use super::port::Port;

const ORDERS: &str = "LBPROXY_TEST_CHILD";

/// In a child: serves until the parent goes away. Elsewhere: nothing.
#[test]
fn entry() {
    let Ok(orders) = std::env::var(ORDERS) else {
        return;
    };
    let (addr, id) = orders.split_once(' ').unwrap();
    super::raise_descriptor_limit();
    let _backend = Backend::start_at(addr.parse().unwrap(), id);
    println!("\nlistening");
    // The parent holds the other end of this pipe; its death ends us.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// A backend process.
pub struct ChildBackend {
    /// Where it listens.
    pub addr: SocketAddr,
    id: String,
    _port: Port,
    child: Mutex<Option<Child>>,
}

impl ChildBackend {
    /// Starts it and waits until it listens.
    pub fn start(id: &str) -> Self {
        let port = Port::reserve("127.0.0.1");
        let backend = Self {
            addr: port.addr,
            id: id.to_owned(),
            _port: port,
            child: Mutex::new(None),
        };
        backend.up();
        backend
    }

    /// Starts it again after a [`Self::kill`].
    pub fn up(&self) {
        let (_, module) = module_path!().split_once("::").unwrap();
        let entry = format!("{module}::entry");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &entry, "--nocapture"])
            .env(ORDERS, format!("{} {}", self.addr, self.id))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listening = lines.any(|line| line.is_ok_and(|l| l == "listening"));
        assert!(listening, "the child backend did not start");
        // The test runner in the child says after a minute that its test still runs, and would die of a closed pipe.
        std::thread::spawn(move || lines.for_each(drop));
        *self.child.lock().unwrap() = Some(child);
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap().take().unwrap();
        kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
        child.wait().unwrap();
    }
}

impl Drop for ChildBackend {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.lock().unwrap_or_else(|e| e.into_inner()).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
