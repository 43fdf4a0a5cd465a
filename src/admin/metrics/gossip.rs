//! The families of the peer set. Without one they are declared, as every family is, and have no series.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::admin::members::{by_state, first_expiry, is_sealed};
use crate::gossip::counters::Dropped;
use crate::gossip::view::Report;
use crate::telemetry::exposition::{Families, Series};
use crate::telemetry::metrics::PeerSetMetrics;

use super::put_counted;

/// Writes them; O(members).
pub(super) fn write(
    report: Option<&Report>,
    used: &PeerSetMetrics,
    f: &mut Families<'_>,
) -> fmt::Result {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    write_at(now.map_or(0.0, |now| now.as_secs_f64()), report, used, f)
}

/// Writes them at `now`, unix seconds.
fn write_at(
    now: f64,
    report: Option<&Report>,
    used: &PeerSetMetrics,
    f: &mut Families<'_>,
) -> fmt::Result {
    let help = "Members of the peer set, this one included, by state.";
    let members = shown(report, |s, r| {
        let mut states = by_state(r).into_iter();
        states.try_for_each(|(state, count)| s.put(&[("state", state)], count))
    });
    f.gauge("lbproxy_gossip_members", help, members)?;
    let help = "Services that members announce, those of members that are down included.";
    let records = shown(report, |s, r| {
        let count: usize = r.set.members.iter().map(|m| m.records.len()).sum();
        s.put(&[], count as u64)
    });
    f.gauge("lbproxy_gossip_records", help, records)?;
    let help = "Until the first token of an announced service expires, negative once one has; none without tokens.";
    let expiry = shown(report, |s, r| match first_expiry(r) {
        Some(expires) => s.put_float(&[], expires as f64 - now),
        None => Ok(()),
    });
    f.gauge("lbproxy_gossip_token_expiry_seconds", help, expiry)?;

    let help = "Datagrams that came, dropped ones included (in), and that were sent (out).";
    let packets = shown(report, |s, r| {
        s.put(&[("direction", "in")], r.counters.packets_in)?;
        s.put(&[("direction", "out")], r.counters.packets_out)
    });
    f.counter("lbproxy_gossip_packets", help, packets)?;
    let bytes = shown(report, |s, r| {
        s.put(&[("direction", "in")], r.counters.bytes_in)?;
        s.put(&[("direction", "out")], r.counters.bytes_out)
    });
    f.counter("lbproxy_gossip_bytes", "Bytes of these datagrams.", bytes)?;
    let help = "What came from the network and was not believed.";
    let dropped = shown(report, |s, r| {
        Dropped::all().try_for_each(|why| {
            put_counted(s, &[("reason", why.as_str())], r.counters.dropped(why))
        })
    });
    f.counter("lbproxy_gossip_dropped", help, dropped)?;
    let help = "Comparisons of the whole state with another member.";
    let exchanges = shown(report, |s, r| {
        s.put(&[("result", "ok")], r.counters.push_pulls)?;
        s.put(&[("result", "failed")], r.counters.push_pulls_failed)
    });
    f.counter("lbproxy_gossip_exchanges", help, exchanges)?;

    let help = "Announced services that are not used, each time that one is newly refused.";
    let refused = shown(report, |s, _| {
        let mut refused = used.refused().into_iter();
        refused.try_for_each(|(reason, count)| put_counted(s, &[("reason", reason)], count))
    });
    f.counter("lbproxy_gossip_refused", help, refused)?;
    let help = "1 while the last good set, from disk, stands in for the real one, else 0.";
    let stale = shown(report, |s, _| {
        s.put(&[], u64::from(used.stale.load(Ordering::Relaxed)))
    });
    f.gauge("lbproxy_gossip_stale", help, stale)?;

    type Number = fn(&Report) -> u64;
    let counters: [(_, _, Number); 5] = [
        (
            "lbproxy_gossip_challenges",
            "Challenges sent to runs that were not known.",
            |r| r.counters.challenges,
        ),
        (
            "lbproxy_gossip_suspicions",
            "Members that became suspect here.",
            |r| r.counters.suspicions,
        ),
        (
            "lbproxy_gossip_refutations",
            "Suspects that contradicted.",
            |r| r.counters.refutations,
        ),
        (
            "lbproxy_gossip_rejoins",
            "Times that this member was thought down and came back.",
            |r| r.counters.rejoins,
        ),
        (
            "lbproxy_gossip_records_received",
            "Announcements that were news when they came.",
            |r| r.counters.news,
        ),
    ];
    for (name, help, value) in counters {
        f.counter(name, help, shown(report, |s, r| s.put(&[], value(r))))?;
    }
    let help = "Sum of the ages of the news when it came: over their number, how far this member lags behind.";
    let age = shown(report, |s, r| {
        s.put_float(&[], r.counters.news_age.as_secs_f64())
    });
    f.counter("lbproxy_gossip_record_age_seconds", help, age)?;

    let help = "The greatest lateness of a timer in the last second.";
    let lag = shown(report, |s, r| s.put_float(&[], r.lag.as_secs_f64()));
    f.gauge("lbproxy_gossip_timer_lag_seconds", help, lag)?;
    let gauges: [(_, _, Number); 4] = [
        (
            "lbproxy_gossip_patience",
            "How many times longer than usual suspicions last, since timers were late: 1 to 8.",
            |r| u64::from(r.health_multiplier),
        ),
        (
            "lbproxy_gossip_joined",
            "1 once the state was compared with another member, else 0.",
            |r| u64::from(r.joined),
        ),
        (
            "lbproxy_gossip_conflict",
            "1 while somebody else uses the address of this member, else 0.",
            |r| u64::from(r.conflict),
        ),
        (
            "lbproxy_gossip_sealed",
            "1 if packets are sealed, else 0.",
            |r| u64::from(is_sealed(r)),
        ),
    ];
    for (name, help, value) in gauges {
        f.gauge(name, help, shown(report, |s, r| s.put(&[], value(r))))?;
    }
    Ok(())
}

/// The series of a report, and none without one.
fn shown(
    report: Option<&Report>,
    put: impl FnOnce(&mut Series<'_>, &Report) -> fmt::Result,
) -> impl FnOnce(&mut Series<'_>) -> fmt::Result {
    move |s| report.map_or(Ok(()), |report| put(s, report))
}

#[cfg(test)]
mod tests {
    use crate::admin::members::tests::{report, with_tokens};
    use crate::telemetry::exposition::{Format, encode};
    use crate::telemetry::metrics::PeerSetMetrics;

    /// The text without its help.
    fn text(report: Option<super::Report>) -> String {
        let used = PeerSetMetrics::default();
        used.set_refused([("loopback", 2)]);
        let text = encode(Format::Text, move |f| {
            super::write_at(1_000.0, report.as_ref(), &used, f)
        })
        .unwrap();
        text.split_inclusive('\n')
            .filter(|line| !line.starts_with("# HELP "))
            .collect()
    }

    const GOLDEN: &str = r#"# TYPE lbproxy_gossip_members gauge
lbproxy_gossip_members{state="alive"} 1
lbproxy_gossip_members{state="suspect"} 1
lbproxy_gossip_members{state="down"} 1
lbproxy_gossip_members{state="left"} 1
# TYPE lbproxy_gossip_records gauge
lbproxy_gossip_records 3
# TYPE lbproxy_gossip_token_expiry_seconds gauge
# TYPE lbproxy_gossip_packets_total counter
lbproxy_gossip_packets_total{direction="in"} 20
lbproxy_gossip_packets_total{direction="out"} 10
# TYPE lbproxy_gossip_bytes_total counter
lbproxy_gossip_bytes_total{direction="in"} 2000
lbproxy_gossip_bytes_total{direction="out"} 1000
# TYPE lbproxy_gossip_dropped_total counter
lbproxy_gossip_dropped_total{reason="forged"} 1
lbproxy_gossip_dropped_total{reason="replayed"} 1
# TYPE lbproxy_gossip_exchanges_total counter
lbproxy_gossip_exchanges_total{result="ok"} 9
lbproxy_gossip_exchanges_total{result="failed"} 1
# TYPE lbproxy_gossip_refused_total counter
lbproxy_gossip_refused_total{reason="loopback"} 2
# TYPE lbproxy_gossip_stale gauge
lbproxy_gossip_stale 0
# TYPE lbproxy_gossip_challenges_total counter
lbproxy_gossip_challenges_total 5
# TYPE lbproxy_gossip_suspicions_total counter
lbproxy_gossip_suspicions_total 6
# TYPE lbproxy_gossip_refutations_total counter
lbproxy_gossip_refutations_total 7
# TYPE lbproxy_gossip_rejoins_total counter
lbproxy_gossip_rejoins_total 8
# TYPE lbproxy_gossip_records_received_total counter
lbproxy_gossip_records_received_total 4
# TYPE lbproxy_gossip_record_age_seconds_total counter
lbproxy_gossip_record_age_seconds_total 1.25
# TYPE lbproxy_gossip_timer_lag_seconds gauge
lbproxy_gossip_timer_lag_seconds 0.003
# TYPE lbproxy_gossip_patience gauge
lbproxy_gossip_patience 2
# TYPE lbproxy_gossip_joined gauge
lbproxy_gossip_joined 1
# TYPE lbproxy_gossip_conflict gauge
lbproxy_gossip_conflict 0
# TYPE lbproxy_gossip_sealed gauge
lbproxy_gossip_sealed 1
"#;

    #[test]
    fn golden() {
        assert_eq!(text(Some(report())), GOLDEN);
    }

    #[test]
    fn the_first_token_to_expire_counts() {
        for (expires, left) in [([1_060, 1_100, 1], "60.0"), ([2_000, 970, 1], "-30.0")] {
            let text = text(Some(with_tokens(expires)));
            let line = format!("\nlbproxy_gossip_token_expiry_seconds {left}\n");
            assert!(text.contains(&line), "{text}");
        }
    }

    #[test]
    fn without_a_peer_set_there_are_no_series() {
        let declared: String = GOLDEN
            .split_inclusive('\n')
            .filter(|line| line.starts_with('#'))
            .collect();
        assert_eq!(text(None), declared);
    }
}
