//! The peer set in the simulator: the figures that are demanded of it, and every kind of failure, each with several
//! seeds. A seed that fails is printed, and fails again; the scenarios describe what they do.
//!
//! 10 nodes with 1,000 seeds, 100 with 100 and 1,000 with 10 live for 20 to 40 s each, which is about the same number
//! of node-hours for each size; two threads share them. `cargo bench --bench gossip -- --nodes 10000` simulates 10,000
//! nodes.
//!
//! All demands are met at these sizes. From a kill to Down at 10 nodes 8 s and 12 s are demanded, not 6 s and 10 s:
//! suspicion lasts 6 s there, since a node that was frozen for 5 s must be able to refute in time. A newcomer is
//! accepted only while there is room: beside a member that invents others until the set is full it waits for minutes,
//! until enough of these are found to be down.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue stops")]

#[allow(
    dead_code,
    unreachable_pub,
    reason = "some of it is for the benchmark alone"
)]
#[path = "support/simulator/mod.rs"]
mod simulator;

use std::fmt::Debug;
use std::sync::Mutex;
use std::time::Duration;

use simulator::scenarios::faults::{self, frozen, one_way, partition, seed_loss};
use simulator::scenarios::hostile::{invented, junk, replay, streams, usurped};
use simulator::scenarios::life::{Life, idle, life};
use simulator::scenarios::report::{Demands, FALSE_DOWNS, Row, demands_for, quantile, rows, table};
use simulator::scenarios::runs::{clocks, conflict, restarts};
use simulator::scenarios::starts::{
    Deploy, deploy, mass_join, mass_restart, proxies_only, proxy_last, rotation, two_sets,
};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Runs a scenario for each size with some seeds, on two threads; returns the results with size and seed, in order.
fn all<T: Send>(
    sizes: &[(usize, u64)],
    scenario: impl Fn(usize, u64) -> T + Sync,
) -> Vec<(usize, u64, T)> {
    let jobs = sizes
        .iter()
        .flat_map(|&(nodes, seeds)| (0..seeds).map(move |seed| (nodes, seed)));
    let jobs = Mutex::new(jobs);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = jobs.lock().unwrap().next();
                    let Some((nodes, seed)) = next else { break };
                    let result = scenario(nodes, seed);
                    done.lock().unwrap().push((nodes, seed, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|&(nodes, seed, _)| (nodes, seed));
    done
}

/// Fails with the results that are not right.
fn check<T: Debug>(what: &str, results: &[(usize, u64, T)], is_right: impl Fn(usize, &T) -> bool) {
    let mut wrong = Vec::new();
    for (nodes, seed, result) in results {
        if !is_right(*nodes, result) {
            wrong.push(format!("{nodes} nodes, seed {seed}: {result:?}"));
        }
    }
    assert!(wrong.is_empty(), "{what}: {wrong:#?}");
}

fn within(time: Option<f64>, most: f64) -> bool {
    time.is_some_and(|time| time <= most)
}

#[test]
fn lives_are_as_demanded() {
    // The longest come first, so that both threads end at about the same time.
    let lives = all(&[(1_000, 10), (100, 100), (10, 1_000)], |nodes, seed| {
        let rest = if nodes < 1_000 { 20 } else { 5 };
        life(nodes, seed, seconds(rest), 0.01)
    });
    let mut failed = Vec::new();
    for nodes in [10, 100, 1_000] {
        let demands = demands_for(nodes);
        let mut whole = Life::default();
        let mut worst: Vec<(f64, u64)> = Vec::new();
        for (_, seed, life) in lives.iter().filter(|(size, ..)| *size == nodes) {
            worst.push((excess(life, demands), *seed));
            whole.merge(life.clone());
        }
        worst.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut rows = rows(&whole, demands);
        rows.push(idle_row(nodes, demands));
        println!(
            "{}",
            table(
                &format!("{nodes} nodes, 1 % loss, {} seeds", worst.len()),
                &rows
            )
        );
        failed.extend(rows.into_iter().filter(|row| !row.is_met()).map(|row| {
            let worst = &worst[..worst.len().min(3)];
            format!("{nodes} nodes: {row:?}; worst seeds: {worst:?}")
        }));
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// The worst figure of a life as a multiple of the demand.
fn excess(life: &Life, demands: &Demands) -> f64 {
    let slowest = |samples: &[f64], most: f64| quantile(samples, 1.0) / most;
    let figures = [
        slowest(&life.detection, demands.detection.1),
        slowest(&life.drain, demands.drain),
        slowest(&life.change, demands.change),
        slowest(&life.join, demands.join),
        life.missed as f64 * 100.0,
        life.false_downs as f64 * 100.0,
    ];
    figures.into_iter().fold(0.0, f64::max)
}

/// What a node sends at rest, once all have heard each other.
fn idle_row(nodes: usize, demands: &Demands) -> Row {
    let time = if nodes < 1_000 { 120 } else { 30 };
    let bytes = idle(nodes, 1, seconds(time), true);
    Row::new("sent by a node at rest, bytes/s", bytes, demands.idle)
}

#[test]
fn healthy_nodes_are_not_thought_down_at_five_percent_of_loss() {
    let runs = all(&[(100, 6), (10, 60)], |nodes, seed| {
        faults::loss(nodes, seed, 0.05, seconds(600))
    });
    let hours: f64 = runs.iter().map(|(_, _, run)| run.node_hours).sum();
    let downs: u64 = runs.iter().map(|(_, _, run)| run.false_downs).sum();
    println!("5 % loss: {downs} false downs in {hours:.0} node-hours");
    assert!(downs as f64 / hours * 100.0 <= FALSE_DOWNS, "{runs:#?}");
    check("5 % loss", &runs, |_, run| within(run.healed, 30.0));
}

#[test]
fn loss_of_a_fifth_does_no_lasting_harm() {
    let runs = all(&[(100, 3), (10, 10)], |nodes, seed| {
        faults::loss(nodes, seed, 0.2, seconds(120))
    });
    check("20 % loss", &runs, |nodes, run| {
        within(run.healed, demands_for(nodes).heal)
    });
}

#[test]
fn a_partitioned_set_heals() {
    let runs = all(&[(100, 6), (10, 40)], |nodes, seed| {
        partition(nodes, seed, seconds(60))
    });
    check("partition", &runs, |nodes, run| {
        within(run.healed, demands_for(nodes).heal)
    });
}

#[test]
fn a_one_way_link_does_no_lasting_harm() {
    let runs = all(&[(100, 3), (10, 20)], |nodes, seed| {
        one_way(nodes, seed, seconds(120))
    });
    check("one-way link", &runs, |_, run| within(run.agreed, 30.0));
}

#[test]
fn frozen_nodes_accuse_nobody_and_refute_when_they_wake() {
    let runs = all(&[(100, 4), (10, 20)], |nodes, seed| {
        frozen(nodes, seed, 10, seconds(5))
    });
    let refuted: Vec<f64> = runs
        .iter()
        .flat_map(|(_, _, run)| run.refuted.clone())
        .collect();
    let hours: f64 = runs.iter().map(|(_, _, run)| run.node_hours).sum();
    println!(
        "frozen: {} suspected in {hours:.1} node-hours, refuted: median {:.2}, 99 % {:.2}, slowest {:.2} s",
        refuted.len(),
        quantile(&refuted, 0.5),
        quantile(&refuted, 0.99),
        quantile(&refuted, 1.0)
    );
    check("frozen", &runs, |_, run| {
        run.healthy_downs == 0
            && run.downs == 0
            && run.missed == 0
            && run.refuted.iter().all(|&time| time <= 1.0)
    });
}

#[test]
fn seeds_matter_only_to_nodes_that_join() {
    let runs = all(&[(100, 2), (10, 10)], seed_loss);
    check("seed loss", &runs, |nodes, run| {
        let most = demands_for(nodes).detection.1;
        run.rejoins == 0
            && within(run.agreed, most + 10.0)
            && within(run.newcomer, 10.0)
            && run.stays
    });
}

#[test]
fn after_a_deployment_to_new_addresses_seeds_are_asked_no_more_than_at_rest() {
    for in_order in [true, false] {
        let runs = all(&[(20, 4), (10, 4)], |nodes, seed| {
            deploy(nodes, seed, in_order)
        });
        let sum = |of: fn(&Deploy) -> f64| -> f64 { runs.iter().map(|(_, _, run)| of(run)).sum() };
        let (rest, after) = (sum(|run| run.rest), sum(|run| run.after));
        println!(
            "push-pulls with the seeds per minute, in order {in_order}: {rest} at rest, {after} after"
        );
        // Seeds are asked at random: each sum has about 600 draws.
        assert!(after <= 1.2 * rest, "in order: {in_order}: {runs:#?}");
        check("deploy", &runs, |nodes, run| {
            // A node that misses an orderly leave finds the other down, and remembers it for a day.
            let most = if in_order { nodes / 10 } else { 2 * nodes };
            run.remembered <= most
        });
    }
}

#[test]
fn a_thousand_restarts_leave_no_ghost() {
    let pause = (Duration::from_millis(100), seconds(1));
    let runs = all(&[(100, 1), (10, 4)], |nodes, seed| {
        restarts(nodes, seed, 1_000, pause)
    });
    check("restarts", &runs, |nodes, run| {
        run.members <= nodes && run.records <= nodes && run.rejoins == 0 && within(run.agreed, 5.0)
    });
}

#[test]
fn a_flapping_member_disturbs_nobody() {
    let runs = all(&[(100, 2), (10, 10)], |nodes, seed| {
        restarts(nodes, seed, 20, (seconds(2), seconds(12)))
    });
    check("flapping", &runs, |nodes, run| {
        run.members <= nodes && run.records <= nodes && run.rejoins == 0 && within(run.agreed, 5.0)
    });
}

#[test]
fn of_two_nodes_at_one_address_the_younger_gives_way() {
    let runs = all(&[(100, 2), (10, 40)], conflict);
    check("one address", &runs, |_, run| {
        run.settled.is_some() && run.younger && run.known && run.rejoins == 0
    });
}

#[test]
fn wrong_clocks_do_not_matter() {
    let runs = all(&[(100, 3), (10, 20)], clocks);
    check("clocks", &runs, |_, run| {
        run.false_downs == 0 && run.agreed && within(run.taken_over, 2.0) && within(run.ahead, 2.0)
    });
}

#[test]
fn junk_is_dropped() {
    let runs = all(&[(100, 1), (10, 3)], junk);
    check("junk", &runs, |_, run| {
        run.dropped == run.injected && run.downs == 0 && run.answered == 0 && run.agreed
    });
}

#[test]
fn replayed_datagrams_change_nothing() {
    for restarted in [false, true] {
        let runs = all(&[(100, 2), (10, 20)], |nodes, seed| {
            replay(nodes, seed, restarted)
        });
        let what = if restarted {
            "replay to one that restarted"
        } else {
            "replay"
        };
        check(what, &runs, |_, run| {
            run.resurrected == 0 && run.downs == 0 && run.agreed && (restarted || run.ups == 0)
        });
    }
}

#[test]
fn invented_members_are_bounded() {
    let runs = all(&[(10, 2)], invented);
    check("invented", &runs, |_, run| {
        run.members <= run.limit
            && run.records <= run.limit
            && run.rejoins == 0
            && run.lost == 0
            && within(run.change, 3.0)
            // With one probe per second and node it takes this long to find 450 invented members down.
            && within(run.newcomer, 300.0)
    });
}

#[test]
fn a_member_with_a_token_speaks_for_nobody_else_and_silences_nobody() {
    let runs = all(&[(30, 2), (10, 10)], usurped);
    check("usurped", &runs, |nodes, run| {
        let proxies = (nodes / 10).clamp(2, 20);
        run.believed == 0
            && run.reported == proxies
            && run.moved == 0
            && within(run.restarted, 3.0)
            && run.agreed
    });
}

#[test]
fn peers_that_break_off_do_no_harm() {
    let runs = all(&[(100, 1), (10, 5)], streams);
    check("streams", &runs, |_, run| {
        run.taken == 0 && run.rejoins == 0 && within(run.newcomer, 10.0)
    });
}

#[test]
fn sets_start_in_any_order() {
    let joins = all(&[(1_000, 1), (100, 3), (10, 20)], mass_join);
    check("mass join", &joins, |_, run| {
        within(run.proxies, 10.0) && within(run.all, 15.0)
    });
    let restarts = all(&[(100, 3), (10, 20)], mass_restart);
    check("mass restart", &restarts, |_, run| {
        within(run.proxies, 10.0) && within(run.all, 30.0)
    });
    let proxies = all(&[(100, 1), (10, 10)], proxies_only);
    check("proxies only", &proxies, |_, run| within(run.all, 30.0));
    let last = all(&[(100, 3), (10, 20)], proxy_last);
    check("proxy last", &last, |_, run| {
        within(run.proxies, 10.0) && within(run.all, 30.0)
    });
}

#[test]
fn keys_rotate_while_nodes_run() {
    let runs = all(&[(100, 1), (10, 10)], rotation);
    check("rotation", &runs, |_, run| {
        run.downs == 0 && run.unopened == 0 && run.failed == 0 && run.agreed
    });
}

#[test]
fn two_sets_do_not_mix() {
    for other_key in [true, false] {
        let runs = all(&[(10, 10)], |nodes, seed| two_sets(nodes, seed, other_key));
        check("two sets", &runs, |_, run| run.apart && run.refused > 0);
    }
}

#[test]
fn quantiles_are_samples() {
    let samples = [5.0, 1.0, 4.0, 2.0, 3.0];
    for (share, value) in [(0.5, 3.0), (0.99, 5.0), (1.0, 5.0), (0.2, 1.0), (0.0, 1.0)] {
        assert_eq!(quantile(&samples, share), value, "{share}");
    }
    assert_eq!(quantile(&[], 0.5), 0.0);
}

#[test]
fn a_table_shows_what_is_missed() {
    let never = Row::timed("c", None, Some(100.0));
    let rows = [
        Row::new("a", 1.0, 1.0),
        Row::new("b", 1.01, 1.0),
        never,
        Row::shown("d", 7.0),
    ];
    assert_eq!(rows.each_ref().map(Row::is_met), [true, false, false, true]);
    let text = table("t", &rows);
    assert_eq!(text.matches("MISSED").count(), 2, "{text}");
    assert!(text.contains("never"), "{text}");
}

#[test]
fn demands_by_size() {
    for (nodes, size) in [
        (3, 10),
        (10, 10),
        (99, 10),
        (5_000, 1_000),
        (20_000, 10_000),
    ] {
        assert_eq!(demands_for(nodes).nodes, size, "{nodes}");
    }
}
