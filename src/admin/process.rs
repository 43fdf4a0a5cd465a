//! What the kernel knows about this process: `/proc/self`, where it exists.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// Clock ticks of `/proc/self/stat`: USER_HZ, which is 100 on every architecture that we run on (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// What could be read; the rest is left out of the metrics.
#[derive(Debug, Default)]
pub(super) struct ProcSelf {
    pub(super) resident_bytes: Option<u64>,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
}

impl ProcSelf {
    pub(super) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        Self {
            resident_bytes: resident_bytes(&status),
            cpu_seconds: cpu_seconds(&stat),
            open_fds: open_fds(),
            max_fds: getrlimit(Resource::Nofile).current,
        }
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// User and system time of all threads: fields 14 and 15, counted after the name, which may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

fn open_fds() -> Option<u64> {
    // Since Linux 6.2 the size of the directory is the number of descriptors; on older kernels they must be listed.
    let known = fs::metadata("/proc/self/fd").ok()?.len();
    if known > 0 {
        return Some(known);
    }
    let listed = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // One of them is the listing itself.
    Some(listed.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc() {
        let status = "Name:\tlbproxy\nVmHWM:\t  9 kB\nVmRSS:\t    1234 kB\n";
        assert_eq!(resident_bytes(status), Some(1234 * 1024));
        assert_eq!(resident_bytes(""), None);
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 3 4 20 0 1 0 100 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("7 (x"), None);
        assert_eq!(cpu_seconds("7 (x) S 1"), None);
    }

    #[test]
    fn this_process() {
        let process = ProcSelf::read();
        assert!(process.resident_bytes.unwrap() > 100_000);
        assert!(process.cpu_seconds.is_some());
        assert!(process.open_fds.unwrap() >= 3);
        assert!(
            process
                .max_fds
                .is_none_or(|max| max >= process.open_fds.unwrap())
        );
    }
}
