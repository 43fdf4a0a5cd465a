//! Prometheus text, in the two forms that are asked for: version 0.0.4 and OpenMetrics 1.0.
//!
//! One encoder writes both: that of prometheus-client, which only knows OpenMetrics. For what we expose the forms
//! differ in two places. OpenMetrics names the family of a counter without its `_total`, 0.0.4 with it, so there the
//! family is declared as `…_total` of type counter and its values go through the encoder's gauge form, which adds no
//! suffix. And OpenMetrics ends in `# EOF`, which is left out. Labels, escapes, numbers and histograms are the same.
//! (Rewriting the finished text would touch tens of megabytes on a large site; a second encoder would be ours to
//! keep right.)
//!
//! Who gathers the numbers is not known here: [`encode`] is given a function that writes one family after another.
//! Every family is declared even if it has no series, so that a reader knows its type from the first scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::counters::{BUCKETS, HistogramTotal, LATENCY_BOUNDS};

/// A form of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus text, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The form that an Accept field prefers; 0.0.4 unless OpenMetrics is named and no less wanted (RFC 9110
    /// 12.5.1, weights only).
    pub(crate) fn accepted(accept: Option<&str>) -> Self {
        let (mut open, mut text) = (0.0f32, 0.0f32);
        for range in accept.unwrap_or("").split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or("");
            let weight = parts
                .filter_map(|p| p.split_once('='))
                .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
                .map_or(1.0, |(_, q)| q.trim().parse().unwrap_or(0.0));
            if kind.eq_ignore_ascii_case("application/openmetrics-text") {
                open = open.max(weight);
            } else if kind.eq_ignore_ascii_case("text/plain") {
                text = text.max(weight);
            }
        }
        if open > 0.0 && open >= text {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// The Content-Type.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Labels of one series: names that are fixed, values that are escaped here.
pub(crate) type Labels<'a> = &'a [(&'static str, &'a str)];

/// The text of the families that `gather` writes. An error is one that `gather` made.
pub(crate) fn encode(
    format: Format,
    gather: impl Fn(&mut Families<'_>) -> fmt::Result + Send + Sync + 'static,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Gathering { format, gather }));
    let mut out = String::new();
    encode_registry(&mut out, &registry)?;
    if format == Format::OpenMetrics {
        encode_eof(&mut out)?;
    }
    Ok(out)
}

struct Gathering<G> {
    format: Format,
    gather: G,
}

impl<G> fmt::Debug for Gathering<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gathering").finish_non_exhaustive()
    }
}

impl<G> Collector for Gathering<G>
where
    G: Fn(&mut Families<'_>) -> fmt::Result + Send + Sync + 'static,
{
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.gather)(&mut Families {
            encoder,
            format: self.format,
        })
    }
}

/// Where families are written, each once.
#[derive(Debug)]
pub(crate) struct Families<'a> {
    encoder: DescriptorEncoder<'a>,
    format: Format,
}

impl Families<'_> {
    /// A counter; `name` bears no `_total`, which is added.
    pub(crate) fn counter(
        &mut self,
        name: &str,
        help: &str,
        each: impl FnOnce(&mut Series<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let total;
        let (name, form) = match self.format {
            Format::OpenMetrics => (name, Form::Counter),
            Format::Text => {
                total = format!("{name}_total");
                (total.as_str(), Form::Plain)
            }
        };
        let encoder = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        each(&mut Series { encoder, form })
    }

    /// A gauge.
    pub(crate) fn gauge(
        &mut self,
        name: &str,
        help: &str,
        each: impl FnOnce(&mut Series<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let encoder = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        each(&mut Series {
            encoder,
            form: Form::Plain,
        })
    }

    /// A histogram over [`LATENCY_BOUNDS`].
    pub(crate) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        each: impl FnOnce(&mut Histograms<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let kind = MetricType::Histogram;
        let encoder = self.encoder.encode_descriptor(name, help, None, kind)?;
        each(&mut Histograms { encoder })
    }
}

#[derive(Debug, Clone, Copy)]
enum Form {
    /// With the suffix of a counter.
    Counter,
    /// Under the name of the family.
    Plain,
}

/// The series of one counter or gauge; each set of labels comes once.
#[derive(Debug)]
pub(crate) struct Series<'a> {
    encoder: MetricEncoder<'a>,
    form: Form,
}

impl Series<'_> {
    /// A whole number.
    pub(crate) fn put(&mut self, labels: Labels<'_>, value: u64) -> fmt::Result {
        let form = self.form;
        with_labels(&mut self.encoder, labels, |e| match form {
            Form::Counter => e.encode_counter::<NoLabelSet, _, u64>(&value, None),
            Form::Plain => e.encode_gauge(&value),
        })
    }

    /// Any number.
    pub(crate) fn put_float(&mut self, labels: Labels<'_>, value: f64) -> fmt::Result {
        let form = self.form;
        with_labels(&mut self.encoder, labels, |e| match form {
            Form::Counter => e.encode_counter::<NoLabelSet, _, u64>(&value, None),
            Form::Plain => e.encode_gauge(&value),
        })
    }
}

/// The series of one histogram family.
#[derive(Debug)]
pub(crate) struct Histograms<'a> {
    encoder: MetricEncoder<'a>,
}

impl Histograms<'_> {
    /// One histogram: buckets, count and sum. The count is that of the buckets, so they agree at all times.
    pub(crate) fn put(&mut self, labels: Labels<'_>, total: &HistogramTotal) -> fmt::Result {
        let bounds = LATENCY_BOUNDS.into_iter().chain([f64::INFINITY]);
        let mut buckets = [(0.0, 0); BUCKETS];
        for (bucket, filled) in buckets.iter_mut().zip(bounds.zip(total.buckets)) {
            *bucket = filled;
        }
        let count = total.buckets.iter().sum();
        with_labels(&mut self.encoder, labels, |e| {
            e.encode_histogram::<NoLabelSet>(total.sum_seconds, count, &buckets, None)
        })
    }
}

fn with_labels(
    encoder: &mut MetricEncoder<'_>,
    labels: Labels<'_>,
    write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    if labels.is_empty() {
        write(encoder)
    } else {
        write(&mut encoder.encode_family(&labels)?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::counters::Histogram;

    fn sample(families: &mut Families<'_>) -> fmt::Result {
        families.counter("a_requests", "Requests.", |s| {
            s.put(&[("listener", "web"), ("code", "200")], 7)?;
            s.put(&[("listener", "q\"b\\s\nn"), ("code", "404")], u64::MAX)
        })?;
        families.counter("a_cpu_seconds", "Time.", |s| s.put_float(&[], 1.25))?;
        families.counter("a_errors", "None yet.", |_| Ok(()))?;
        families.gauge("a_up", "Up.", |s| s.put(&[("backend", "[::1]:80")], 1))
    }

    #[test]
    fn version_0_0_4() {
        assert_eq!(
            encode(Format::Text, sample).unwrap(),
            "# HELP a_requests_total Requests.\n\
             # TYPE a_requests_total counter\n\
             a_requests_total{listener=\"web\",code=\"200\"} 7\n\
             a_requests_total{listener=\"q\\\"b\\\\s\\nn\",code=\"404\"} 18446744073709551615\n\
             # HELP a_cpu_seconds_total Time.\n\
             # TYPE a_cpu_seconds_total counter\n\
             a_cpu_seconds_total 1.25\n\
             # HELP a_errors_total None yet.\n\
             # TYPE a_errors_total counter\n\
             # HELP a_up Up.\n\
             # TYPE a_up gauge\n\
             a_up{backend=\"[::1]:80\"} 1\n"
        );
    }

    #[test]
    fn open_metrics() {
        assert_eq!(
            encode(Format::OpenMetrics, sample).unwrap(),
            "# HELP a_requests Requests.\n\
             # TYPE a_requests counter\n\
             a_requests_total{listener=\"web\",code=\"200\"} 7\n\
             a_requests_total{listener=\"q\\\"b\\\\s\\nn\",code=\"404\"} 18446744073709551615\n\
             # HELP a_cpu_seconds Time.\n\
             # TYPE a_cpu_seconds counter\n\
             a_cpu_seconds_total 1.25\n\
             # HELP a_errors None yet.\n\
             # TYPE a_errors counter\n\
             # HELP a_up Up.\n\
             # TYPE a_up gauge\n\
             a_up{backend=\"[::1]:80\"} 1\n\
             # EOF\n"
        );
    }

    #[test]
    fn a_histogram_is_cumulative() {
        let histogram = Histogram::default();
        for millis in [0, 1, 1, 30_000, 70_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut total = HistogramTotal::default();
        histogram.add_to(&mut total);
        let text = encode(Format::Text, move |f| {
            f.histogram("h_seconds", "Time.", |h| h.put(&[("l", "x")], &total))
        })
        .unwrap();
        for line in [
            "# TYPE h_seconds histogram",
            "h_seconds_sum{l=\"x\"} 100.002",
            "h_seconds_count{l=\"x\"} 5",
            "h_seconds_bucket{le=\"0.0005\",l=\"x\"} 1",
            "h_seconds_bucket{le=\"0.00075\",l=\"x\"} 1",
            "h_seconds_bucket{le=\"0.001\",l=\"x\"} 3",
            "h_seconds_bucket{le=\"24.576\",l=\"x\"} 3",
            "h_seconds_bucket{le=\"32.768\",l=\"x\"} 4",
            "h_seconds_bucket{le=\"60.0\",l=\"x\"} 4",
            "h_seconds_bucket{le=\"+Inf\",l=\"x\"} 5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }

    #[test]
    fn what_is_asked_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (None, Format::Text),
            (Some(""), Format::Text),
            (Some("*/*"), Format::Text),
            (Some("text/html,text/plain;q=0.9,*/*;q=0.8"), Format::Text),
            (Some(prometheus), Format::OpenMetrics),
            (Some("Application/OpenMetrics-Text"), Format::OpenMetrics),
            (Some("application/openmetrics-text; q=0"), Format::Text),
            (Some("application/openmetrics-text; q=x, */*"), Format::Text),
            (
                Some("application/openmetrics-text;q=0.1, text/plain"),
                Format::Text,
            ),
        ] {
            assert_eq!(Format::accepted(accept), expected, "{accept:?}");
        }
    }
}
