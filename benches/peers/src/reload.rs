//! A reload of a large file: how long it takes from SIGHUP until an answer comes from the new configuration, and what it
//! takes of the worker that answers meanwhile. One route answers with the number of the file.
//!
//! A worker that stands still for a reload does something, since it waits for no lock: so the time that its thread runs
//! more than it does for the same answers without a reload is a bound of every pause. That is exact where answers are
//! late for many reasons of the machine's own. A reload is work for another core, so here the proxy may use all of them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::figures::{Figures, median};
use crate::launch::Cores;
use crate::measure::resident;
use crate::poll;

/// The path of the route that answers with the number of the file.
pub(crate) const PATH: &str = "/number";
/// Digits of that number, so that every answer has one length.
pub(crate) const DIGITS: usize = 5;
/// The port of backends that nobody asks.
pub(crate) const PORT: u16 = 9;
/// Reloads of one round.
const RELOADS: usize = 10;
/// How long answers go on behind each reload: the configuration before is let go of there.
const AFTER: Duration = Duration::from_millis(200);
/// Between two requests: few enough that their own time hardly varies.
const PACE: Duration = Duration::from_millis(2);
/// Far longer than a reload should take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The line of the file that has its number.
pub(crate) fn route(number: usize) -> String {
    format!("[[route]]\npath = \"{PATH}\"\nrespond = {{ body = \"{number:0DIGITS$}\" }}\n")
}

struct Asking {
    stream: TcpStream,
    request: Vec<u8>,
    asked: u32,
}

impl Asking {
    /// The number that the proxy answers with.
    fn ask(&mut self) -> io::Result<usize> {
        poll::pause(PACE)?;
        self.asked += 1;
        self.stream.write_all(&self.request)?;
        let mut buffer = [0; 1024];
        let mut end = 0;
        let body = loop {
            if let Some(head) = memchr::memmem::find(&buffer[..end], b"\r\n\r\n")
                && end == head + 4 + DIGITS
            {
                break &buffer[head + 4..end];
            }
            let read = self.stream.read(&mut buffer[end..])?;
            if read == 0 {
                return Err(io::Error::other("the connection ended"));
            }
            end += read;
        };
        std::str::from_utf8(body)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| io::Error::other("the answer is no number"))
    }

    /// Asks for so long.
    fn ask_for(&mut self, time: Duration) -> io::Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < time {
            self.ask()?;
        }
        Ok(())
    }
}

/// The file with another number and, where there are many backends, another one in the last place: a cluster that is the
/// same would be taken over.
fn changed(text: &str, number: usize) -> String {
    let mut text = text.replace(&route(0), &route(number));
    let last = format!(":{PORT}\"");
    if let Some(at) = text.rfind(&last) {
        let other = format!(":{}\"", PORT + 1 + number as u16 % 2);
        text.replace_range(at..at + last.len(), &other);
    }
    text
}

/// Gives the proxy's worker its core for itself and the rest of the proxy the others. Where the worker's time is told.
fn place(process: u32, cores: &Cores) -> io::Result<PathBuf> {
    let mut worker_time = None;
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let path = task?.path();
        let is_worker = std::fs::read_to_string(path.join("comm"))?.starts_with("worker");
        let id = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok())
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("a task without a number"))?;
        let mut set = CpuSet::new();
        if is_worker {
            set.set(cores.proxy);
            worker_time = Some(path.join("schedstat"));
        } else {
            cores.others.iter().for_each(|core| set.set(*core));
        }
        sched_setaffinity(Some(id), &set)?;
    }
    worker_time.ok_or_else(|| io::Error::other("it has no thread that is called worker"))
}

/// How long a thread has run, in µs.
fn ran(schedstat: &Path) -> io::Result<f64> {
    let text = std::fs::read_to_string(schedstat)?;
    let nanos = text.split_whitespace().next();
    nanos
        .and_then(|nanos| nanos.parse::<f64>().ok())
        .map(|nanos| nanos / 1e3)
        .ok_or_else(|| io::Error::other("no time of the worker"))
}

/// `file` has `route(0)`. The cost is the time of a reload in ms, `p999` the µs that the worker runs for it, and `p99`
/// those that it runs for the answers alone; each a median.
pub(crate) fn measure(
    to: SocketAddr,
    process: u32,
    file: &Path,
    request: &[u8],
    cores: &Cores,
) -> io::Result<Figures> {
    let worker = place(process, cores)?;
    let resident = resident(process)? / 1024.0;
    let text = std::fs::read_to_string(file)?;
    let process = i32::try_from(process)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other("no process"))?;
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut asking = Asking {
        stream,
        request: request.to_vec(),
        asked: 0,
    };
    asking.ask_for(AFTER)?;
    let (mut times, mut busy, mut quiet) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=RELOADS {
        std::fs::write(file, changed(&text, number))?;
        let before = ran(&worker)?;
        asking.asked = 0;
        let begin = Instant::now();
        kill_process(process, Signal::HUP)?;
        while asking.ask()? != number {
            if begin.elapsed() > PATIENCE {
                return Err(io::Error::other("it was not reloaded"));
            }
        }
        let time = begin.elapsed();
        asking.ask_for(AFTER)?;
        let (between, answers) = (ran(&worker)?, std::mem::take(&mut asking.asked));
        asking.ask_for(time + AFTER)?;
        let each = (ran(&worker)? - between) / f64::from(asking.asked);
        times.push(time.as_secs_f64() * 1e3);
        quiet.push(each * f64::from(answers));
        busy.push(between - before - each * f64::from(answers));
    }
    Ok(Figures {
        cost: median(times),
        p99: median(quiet),
        p999: median(busy),
        resident,
        ..Figures::default()
    })
}
