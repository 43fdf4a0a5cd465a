//! A reload of a large file under a client that asks on: how long it takes from SIGHUP until an answer comes from the new
//! configuration, and how long the longest answer was meanwhile, which a worker that stands still makes long. One route
//! answers with the number of the file. A reload is work for another core, so here the proxy may use all of them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::launch::Cores;
use crate::measure::resident;
use crate::report::median;
use crate::rounds::Figures;

/// The path of the route that answers with the number of the file.
pub const PATH: &str = "/number";
/// Digits of that number, so that every answer has one length.
pub const DIGITS: usize = 5;
/// The port of backends that nobody asks.
pub const PORT: u16 = 9;
/// Reloads of one round.
const RELOADS: usize = 10;
/// How long answers are watched behind each reload: the configuration before is let go of there.
const AFTER: Duration = Duration::from_millis(200);
/// Far longer than a reload should take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The line of the file that has its number.
pub fn route(number: usize) -> String {
    format!("[[route]]\npath = \"{PATH}\"\nrespond = {{ body = \"{number:0DIGITS$}\" }}\n")
}

struct Asking {
    stream: TcpStream,
    request: Vec<u8>,
    longest: Duration,
}

impl Asking {
    /// The number that the proxy answers with.
    fn ask(&mut self) -> io::Result<usize> {
        let begin = Instant::now();
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
        self.longest = self.longest.max(begin.elapsed());
        std::str::from_utf8(body)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| io::Error::other("the answer is no number"))
    }

    /// Asks for so long; the longest answer.
    fn watch(&mut self, time: Duration) -> io::Result<Duration> {
        let begin = Instant::now();
        while begin.elapsed() < time {
            self.ask()?;
        }
        Ok(std::mem::take(&mut self.longest))
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

/// Gives the proxy's workers its core for themselves and the rest of it the others, and this program, which shares those,
/// the right to be first there: else an answer waits for whoever reads the new file, and tells nothing of the worker.
fn place(process: u32, cores: &Cores) -> io::Result<()> {
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
        } else {
            cores.others.iter().for_each(|core| set.set(*core));
        }
        sched_setaffinity(Some(id), &set)?;
    }
    // Only root may, and only where util-linux is: the figure is worse without.
    let _ = Command::new("chrt")
        .args(["--reset-on-fork", "--fifo", "--pid", "1"])
        .arg(std::process::id().to_string())
        .stderr(Stdio::null())
        .status();
    Ok(())
}

/// `file` has `route(0)`. The cost is the time of a reload in ms, `p999` the longest answer of a reload and of a while
/// behind it in µs, and `p99` that of as long a time without one, which tells what the machine does on its own; each a
/// median, since a pause that a reload makes comes with each of them.
pub fn measure(
    to: SocketAddr,
    process: u32,
    file: &Path,
    request: &[u8],
    cores: &Cores,
) -> io::Result<Figures> {
    place(process, cores)?;
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
        longest: Duration::ZERO,
    };
    asking.watch(AFTER)?;
    let (mut times, mut longest, mut quiet) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=RELOADS {
        std::fs::write(file, changed(&text, number))?;
        let begin = Instant::now();
        kill_process(process, Signal::HUP)?;
        while asking.ask()? != number {
            if begin.elapsed() > PATIENCE {
                return Err(io::Error::other("it was not reloaded"));
            }
        }
        let time = begin.elapsed();
        times.push(time.as_secs_f64() * 1e3);
        longest.push(asking.watch(AFTER)?.as_secs_f64() * 1e6);
        quiet.push(asking.watch(time + AFTER)?.as_secs_f64() * 1e6);
    }
    Ok(Figures {
        cost: median(times),
        p99: median(quiet),
        p999: median(longest),
        resident,
        ..Figures::default()
    })
}
