//! A reload of a large file under a client that asks on: how long it takes from SIGHUP until an answer comes from the new
//! configuration, and how long the longest answer was meanwhile, which a worker that stands still makes long. One route
//! answers with the number of the file. A reload is work for another core, so here the proxy may use all of them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::rounds::Figures;

/// The path of the route that answers with the number of the file.
pub const PATH: &str = "/number";
/// Digits of that number, so that every answer has one length.
pub const DIGITS: usize = 5;
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

/// `file` has `route(0)`. The cost is the median time of a reload in ms, `p999` the longest answer in µs, and `p99` the
/// longest of the same time without a reload.
pub fn measure(
    to: SocketAddr,
    process: u32,
    file: &Path,
    request: &[u8],
    resident: f64,
) -> io::Result<Figures> {
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
    let begin = Instant::now();
    let mut times = Vec::new();
    for number in 1..=RELOADS {
        std::fs::write(file, text.replace(&route(0), &route(number)))?;
        let begin = Instant::now();
        kill_process(process, Signal::HUP)?;
        while asking.ask()? != number {
            if begin.elapsed() > PATIENCE {
                return Err(io::Error::other("it was not reloaded"));
            }
        }
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        let end = Instant::now();
        while end.elapsed() < AFTER {
            asking.ask()?;
        }
    }
    let longest = std::mem::take(&mut asking.longest);
    let quiet = asking.watch(begin.elapsed())?;
    times.sort_by(f64::total_cmp);
    Ok(Figures {
        cost: times[RELOADS / 2],
        p99: quiet.as_secs_f64() * 1e6,
        p999: longest.as_secs_f64() * 1e6,
        resident,
        ..Figures::default()
    })
}
