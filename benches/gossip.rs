//! Figures of a simulated peer set, with the demands on a set of its size.
//!
//! `cargo bench --bench gossip -- --nodes 10000 [--seeds 1] [--loss 0.01]` runs the shipped state machine in virtual
//! time, see ../tests/support/simulator. Memory grows with the square of the number of nodes and time even faster: a
//! node searches its whole list of members for each one that it learns of. Above 3,000 nodes the scenarios in which
//! every node learns of every other (a partition that heals, all start at once) take hours, and run only with `--long`.
//! The same goes for rest after the first contacts; there what a node sends just after the start is its upper bound.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "some of it is for the tests alone"
)]
#[path = "../tests/support/simulator/mod.rs"]
mod simulator;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use simulator::scenarios::faults::partition;
use simulator::scenarios::life::{Life, idle, life};
use simulator::scenarios::report::{Row, demands_for, quantile, rows, table};
use simulator::scenarios::starts::mass_join;

/// Number of nodes up to which every scenario runs.
const QUICK: usize = 3_000;

/// Simulates a gossip peer set and prints what is measured and what is demanded.
#[derive(Parser)]
struct Options {
    /// Number of members.
    #[arg(long, default_value_t = 1_000)]
    nodes: usize,
    /// Number of lives, with seeds 0, 1, …; the other scenarios run once.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Fraction of datagrams that are lost.
    #[arg(long, default_value_t = 0.01)]
    loss: f64,
    /// Seconds for which a set rests in a life.
    #[arg(long, default_value_t = 20)]
    rest: u64,
    /// Run every scenario, whatever the number of nodes.
    #[arg(long)]
    long: bool,
    /// Passed by cargo; ignored.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    run(&Options::parse())
}

fn run(options: &Options) -> ExitCode {
    let &Options { nodes, loss, .. } = options;
    if nodes < 5 || !(0.0..1.0).contains(&loss) {
        eprintln!("gossip: expected at least 5 nodes, and a loss from 0 to below 1");
        return ExitCode::FAILURE;
    }
    let start = Instant::now();
    let demands = demands_for(nodes);
    let mut whole = Life::default();
    for seed in 0..options.seeds {
        whole.merge(life(nodes, seed, Duration::from_secs(options.rest), loss));
        progress(&format!("life {seed}"), start);
    }
    let mut rows = rows(&whole, demands);
    let minute = Duration::from_secs(60);
    if nodes <= QUICK || options.long {
        let rest = idle(nodes, 0, minute, true);
        progress("rest", start);
        rows.push(Row::new(
            "sent by a node at rest, bytes/s",
            rest,
            demands.idle,
        ));
        let heal = partition(nodes, 0, minute).healed;
        progress("partition", start);
        rows.push(Row::timed(
            "all agree after a partition of 60 s, s",
            heal,
            Some(demands.heal),
        ));
        let join = mass_join(nodes, 0);
        progress("mass join", start);
        rows.push(Row::timed(
            "all start at once: proxies have all, s",
            join.proxies,
            None,
        ));
        rows.push(Row::timed(
            "all start at once: all agree, s",
            join.all,
            None,
        ));
    } else {
        let bound = quantile(&whole.rest, 1.0);
        rows.push(Row::new(
            "the same as an upper bound at rest, bytes/s",
            bound,
            demands.idle,
        ));
    }
    println!(
        "{}",
        table(&format!("{nodes} nodes, {} % loss", loss * 100.0), &rows)
    );
    println!(
        "{:.0} s, at most {} MB",
        start.elapsed().as_secs_f64(),
        peak_memory()
    );
    if rows.iter().all(Row::is_met) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn progress(what: &str, start: Instant) {
    eprintln!(
        "{what}: {:.0} s, {} MB",
        start.elapsed().as_secs_f64(),
        peak_memory()
    );
}

/// Peak memory of this process, MB; 0 if the kernel does not report it.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes
        .and_then(|text| text.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}
