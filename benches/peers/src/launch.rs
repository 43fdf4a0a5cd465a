//! Child processes: each is started pinned to its cores and is ended by its own id. Nothing outlives the bench.
//!
//! A child is started through this program itself (`--role launch`), which pins itself, raises the limit of
//! descriptors, asks the kernel to be ended when the bench ends, and then becomes the wanted program. So a proxy needs
//! no wrapper and no `taskset`, and all of them start under the same conditions.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::CpuSet;

use crate::poll;

/// What runs where: the proxy alone on the last core that this process may use, everything else on the others.
#[derive(Clone)]
pub(crate) struct Cores {
    pub proxy: usize,
    pub others: Vec<usize>,
}

impl Cores {
    /// `None` if there are fewer than two.
    pub(crate) fn find() -> io::Result<Option<Self>> {
        let set = rustix::thread::sched_getaffinity(None)?;
        let mut others: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|core| set.is_set(*core))
            .collect();
        let proxy = others.pop();
        Ok(proxy
            .filter(|_| !others.is_empty())
            .map(|proxy| Self { proxy, others }))
    }
}

/// Pins this process.
pub(crate) fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// As many descriptors as are allowed.
pub(crate) fn raise_descriptors() -> io::Result<u64> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    rustix::process::setrlimit(Resource::Nofile, raised)?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Role `launch`: PARENT CORES PROGRAM ARGUMENT…; returns only on an error.
pub(crate) fn become_program(words: &[String]) -> io::Result<()> {
    let [parent, cores, program, arguments @ ..] = words else {
        return Err(io::Error::other("launch: too few words"));
    };
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let now = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if now.to_string() != *parent {
        return Err(io::Error::other("the bench has ended meanwhile"));
    }
    let cores: Result<Vec<usize>, _> = cores.split(',').map(str::parse).collect();
    pin(&cores.map_err(io::Error::other)?)?;
    raise_descriptors()?;
    Err(Command::new(program).args(arguments).exec())
}

/// A running child; dropping it ends it.
pub(crate) struct Child {
    child: std::process::Child,
    log: PathBuf,
}

impl Child {
    /// Starts a program; what it says goes to the file `log`, its standard output too unless `listen` asks for it.
    pub(crate) fn start(
        cores: &[usize],
        program: &Path,
        arguments: &[String],
        log: &Path,
        listen: bool,
    ) -> io::Result<Self> {
        let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
        let file = File::create(log)?;
        let out = if listen {
            Stdio::piped()
        } else {
            file.try_clone()?.into()
        };
        let child = Command::new(std::env::current_exe()?)
            .args([
                "--role",
                "launch",
                &std::process::id().to_string(),
                &cores.join(","),
            ])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(file)
            .spawn()?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// Starts this program itself in another role.
    pub(crate) fn role(
        cores: &[usize],
        arguments: &[String],
        log: &Path,
    ) -> io::Result<(Self, BufReader<ChildStdout>)> {
        let mut words = vec!["--role".to_owned()];
        words.extend_from_slice(arguments);
        let mut child = Self::start(cores, &std::env::current_exe()?, &words, log, true)?;
        let out = child.child.stdout.take().expect("it was asked for");
        Ok((child, BufReader::new(out)))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tries something until it works, at most so long, and not for a program that has ended.
    pub(crate) fn wait_until(
        &mut self,
        time: Duration,
        mut ready: impl FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let end = Instant::now() + time;
        loop {
            let Err(error) = ready() else {
                return Ok(());
            };
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!(
                    "it ended ({status}): {}",
                    self.last_words()
                )));
            }
            if Instant::now() > end {
                return Err(io::Error::other(format!(
                    "not ready after {time:?} ({error}): {}",
                    self.last_words()
                )));
            }
            poll::pause(Duration::from_millis(20))?;
        }
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(3)..].join(" | ")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing of it is left after the wait.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line of the form `word number number …`.
pub(crate) fn read_ports(from: &mut impl BufRead, word: &str) -> io::Result<Vec<u16>> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    if words.next() != Some(word) {
        return Err(io::Error::other(format!(
            "expected ports of {word}, read {line:?}"
        )));
    }
    words
        .map(|word| word.parse().map_err(io::Error::other))
        .collect()
}
