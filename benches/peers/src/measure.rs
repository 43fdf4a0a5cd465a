//! What a proxy costs while it runs, from /proc.
//!
//! - Busy time of its core (`/proc/stat`): all that is not idle, so what the kernel does for it outside its own time
//!   counts too. It counts in ticks of 10 ms and contains whatever else runs on that core. This is the cost that ratios
//!   are made of.
//! - Its own time (`/proc/PID/task/*/schedstat`, ns): exact, without interrupts that hit the core while it slept. If
//!   the two differ much, something else used the core.
//! - What ran on all these cores and was neither the proxy nor the bench: other programs, and the kernel's threads.
//!   Where that is much, the figures are worth little.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use crate::launch::Cores;

/// Ticks of /proc/stat in a second, on every Linux of today.
const TICKS: f64 = 100.0;

/// Ticks of some cores since the system began.
#[derive(Clone, Copy, Default)]
struct Ticks {
    busy: u64,
    idle: u64,
    stolen: u64,
}

/// A look at the cores and at one process.
pub(crate) struct Sample {
    at: Instant,
    proxy: Ticks,
    others: Ticks,
    process: Duration,
    /// The time of the proxy and of the bench itself.
    bench: Duration,
}

/// What lies between two looks.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    /// Busy time of the proxy's core.
    pub core: Duration,
    /// Time of the proxy's own threads.
    pub process: Duration,
    /// Shares of the time in which the cores were busy, 0 to 1.
    pub proxy_busy: f64,
    pub others_busy: f64,
    /// Share that the machine's host took from the proxy's core.
    pub stolen: f64,
    /// Time of other programs and of the kernel's threads, as a share of one core.
    pub foreign: f64,
}

impl Sample {
    /// `process` is the proxy's, `bench` the one of load and backends.
    pub(crate) fn take(cores: &Cores, process: u32, bench: u32) -> io::Result<Self> {
        let own = process_time(process)?;
        let stat = fs::read_to_string("/proc/stat")?;
        Ok(Self {
            at: Instant::now(),
            proxy: ticks(&stat, &[cores.proxy])?,
            others: ticks(&stat, &cores.others)?,
            process: own,
            bench: own + process_time(bench)?,
        })
    }

    pub(crate) fn until(&self, later: &Self) -> Usage {
        let window = later.at - self.at;
        let share = |from: Ticks, to: Ticks| {
            let (busy, idle) = (to.busy - from.busy, to.idle.saturating_sub(from.idle));
            busy as f64 / ((busy + idle) as f64).max(1.0)
        };
        let stolen = (later.proxy.stolen - self.proxy.stolen) as f64 / TICKS / window.as_secs_f64();
        let ticks = |sample: &Self| (sample.proxy.busy + sample.others.busy) as f64 / TICKS;
        let bench = later.bench.saturating_sub(self.bench).as_secs_f64();
        let foreign = (ticks(later) - ticks(self) - bench) / window.as_secs_f64();
        let proxy_busy = share(self.proxy, later.proxy);
        Usage {
            core: window.mul_f64(proxy_busy),
            process: later.process.saturating_sub(self.process),
            proxy_busy,
            others_busy: share(self.others, later.others),
            stolen,
            foreign: foreign.max(0.0),
        }
    }
}

fn ticks(stat: &str, cores: &[usize]) -> io::Result<Ticks> {
    let mut sum = Ticks::default();
    for core in cores {
        let name = format!("cpu{core} ");
        let line = stat.lines().find_map(|line| line.strip_prefix(&name));
        let numbers: Vec<u64> = line
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect();
        let [user, nice, system, idle, waiting, irq, softirq, stolen, ..] = numbers[..] else {
            return Err(io::Error::other(format!("no cpu{core} in /proc/stat")));
        };
        sum.busy += user + nice + system + irq + softirq;
        sum.idle += idle + waiting;
        sum.stolen += stolen;
    }
    Ok(sum)
}

fn process_time(process: u32) -> io::Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end between the two looks.
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        nanos += text
            .split_whitespace()
            .next()
            .and_then(|first| first.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

/// Resident memory of a process in KiB.
pub(crate) fn resident(process: u32) -> io::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| io::Error::other("no VmRSS"))
}
