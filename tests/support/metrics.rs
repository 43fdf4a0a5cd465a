//! A strict reader of Prometheus text 0.0.4 and of OpenMetrics text 1.0.
//!
//! Written from the two format documents of the Prometheus project; whatever they do not allow is an error:
//! samples without a TYPE, split groups, duplicates, bad names and escapes, histograms whose buckets shrink.

use std::collections::{BTreeMap, BTreeSet};

/// Which of the two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`
    Text,
    /// `application/openmetrics-text; version=1.0.0`
    OpenMetrics,
}

type Labels = BTreeMap<String, String>;

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name with its suffix.
    pub name: String,
    /// Labels.
    pub labels: Labels,
    /// Value.
    pub value: f64,
}

/// All samples of one scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
    types: BTreeMap<String, String>,
}

impl Metrics {
    /// Reads and checks a whole scrape.
    pub fn parse(text: &str, format: Format) -> Result<Self, String> {
        let mut reader = Reader::new(format);
        if !text.ends_with('\n') {
            return Err("no line feed at the end".to_owned());
        }
        for (i, line) in text.split_terminator('\n').enumerate() {
            reader
                .line(line)
                .map_err(|e| format!("line {}: {e}: {line:?}", i + 1))?;
        }
        reader.finish()
    }

    /// Sum of the samples with this name and at least these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|s| s.value).sum()
    }

    /// The same as a whole number, as counters are.
    #[track_caller]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let sum = self.sum(name, labels);
        assert!(sum >= 0.0 && sum.fract() == 0.0, "{name} is {sum}");
        sum as u64
    }

    /// Whether there is such a series.
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    /// TYPE of a family.
    pub fn kind(&self, family: &str) -> Option<&str> {
        self.types.get(family).map(String::as_str)
    }

    /// Names of all families.
    pub fn families(&self) -> impl Iterator<Item = &str> {
        self.types.keys().map(String::as_str)
    }

    /// Every sample.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |s| {
            s.name == name
                && labels
                    .iter()
                    .all(|(k, v)| s.labels.get(*k).is_some_and(|have| have == v))
        })
    }
}

struct Reader {
    format: Format,
    metrics: Metrics,
    helps: BTreeSet<String>,
    /// The family whose group is open, and those that are closed.
    family: String,
    closed: BTreeSet<String>,
    seen: BTreeSet<(String, Labels)>,
    ended: bool,
}

impl Reader {
    fn new(format: Format) -> Self {
        Self {
            format,
            metrics: Metrics::default(),
            helps: BTreeSet::new(),
            family: String::new(),
            closed: BTreeSet::new(),
            seen: BTreeSet::new(),
            ended: false,
        }
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        if self.ended {
            return Err("something after # EOF".to_owned());
        }
        if line == "# EOF" && self.format == Format::OpenMetrics {
            self.ended = true;
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
            self.open(name)?;
            unescape(text, self.format == Format::OpenMetrics)?;
            return match self.helps.insert(name.to_owned()) {
                true => Ok(()),
                false => Err("a second HELP".to_owned()),
            };
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or("TYPE without a type")?;
            return self.declare(name, kind);
        }
        if line.starts_with('#') {
            // Other comments are allowed in 0.0.4 only, UNIT in OpenMetrics only; we write neither.
            return Err("an unknown comment".to_owned());
        }
        let sample = parse_sample(line)?;
        self.sample(sample)
    }

    /// Opens the group of a family, which must not have been closed.
    fn open(&mut self, family: &str) -> Result<(), String> {
        check_name(family, true)?;
        if self.family != family {
            if self.closed.contains(family) {
                return Err(format!("the lines of {family} are not together"));
            }
            let before = std::mem::replace(&mut self.family, family.to_owned());
            self.closed.insert(before);
        }
        Ok(())
    }

    fn declare(&mut self, family: &str, kind: &str) -> Result<(), String> {
        self.open(family)?;
        let known = match self.format {
            Format::Text => ["counter", "gauge", "histogram", "summary", "untyped"],
            Format::OpenMetrics => ["counter", "gauge", "histogram", "info", "unknown"],
        };
        if !known.contains(&kind) {
            return Err("an unknown type".to_owned());
        }
        if kind == "counter" && family.ends_with("_total") != (self.format == Format::Text) {
            return Err("a counter's _total is in the family's name in 0.0.4 only".to_owned());
        }
        let types = &mut self.metrics.types;
        match types.insert(family.to_owned(), kind.to_owned()) {
            None => Ok(()),
            Some(_) => Err("a second TYPE".to_owned()),
        }
    }

    fn sample(&mut self, sample: Sample) -> Result<(), String> {
        let kind = self.metrics.types.get(&self.family);
        let kind = kind.ok_or("a sample before its TYPE")?.as_str();
        let suffix = sample.name.strip_prefix(&self.family);
        let suffix = suffix.ok_or("a sample of another family, which has no TYPE")?;
        let allowed: &[&str] = match (kind, self.format) {
            ("histogram", _) => &["_bucket", "_sum", "_count"],
            ("counter", Format::OpenMetrics) => &["_total"],
            ("info", _) => &["_info"],
            _ => &[""],
        };
        if !allowed.contains(&suffix) {
            return Err(format!("a {kind} has no sample {suffix:?}"));
        }
        if (suffix == "_bucket") != sample.labels.contains_key("le") {
            return Err("`le` belongs to buckets and to nothing else".to_owned());
        }
        if kind == "counter" && !(sample.value >= 0.0 && sample.value.is_finite()) {
            return Err("a counter that is no count".to_owned());
        }
        if !self
            .seen
            .insert((sample.name.clone(), sample.labels.clone()))
        {
            return Err("a second sample with these labels".to_owned());
        }
        self.metrics.samples.push(sample);
        Ok(())
    }

    fn finish(self) -> Result<Metrics, String> {
        if self.format == Format::OpenMetrics && !self.ended {
            return Err("no # EOF".to_owned());
        }
        let without_help = self.metrics.types.keys().find(|f| !self.helps.contains(*f));
        if let Some(family) = without_help {
            return Err(format!("{family} has no HELP"));
        }
        for (family, kind) in &self.metrics.types {
            if kind == "histogram" {
                check_histogram(&self.metrics, family).map_err(|e| format!("{family}: {e}"))?;
            }
        }
        Ok(self.metrics)
    }
}

/// Each series: bounds grow, counts do not shrink, the last is +Inf and equals `_count`, and there is a `_sum`.
fn check_histogram(metrics: &Metrics, family: &str) -> Result<(), String> {
    let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    let bucket = format!("{family}_bucket");
    for sample in metrics.samples.iter().filter(|s| s.name == bucket) {
        let mut labels = sample.labels.clone();
        let le = labels.remove("le").unwrap_or_default();
        series
            .entry(labels)
            .or_default()
            .push((number(&le)?, sample.value));
    }
    for (labels, buckets) in &series {
        if !buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1) {
            return Err(format!("buckets out of order or shrinking: {labels:?}"));
        }
        let one = |suffix: &str| {
            let name = format!("{family}{suffix}");
            let mut all = metrics.samples.iter().filter(|s| s.name == name);
            all.find(|s| s.labels == *labels).map(|s| s.value)
        };
        let &(bound, total) = buckets.last().ok_or("no buckets")?;
        if bound != f64::INFINITY || one("_count") != Some(total) {
            return Err(format!("+Inf is not the count: {labels:?}"));
        }
        one("_sum").ok_or_else(|| format!("no sum: {labels:?}"))?;
    }
    for suffix in ["_count", "_sum"] {
        let name = format!("{family}{suffix}");
        let mut all = metrics.samples.iter().filter(|s| s.name == name);
        if let Some(s) = all.find(|s| !series.contains_key(&s.labels)) {
            return Err(format!("no buckets: {s:?}"));
        }
    }
    Ok(())
}

fn parse_sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    check_name(name, true)?;
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").ok_or("a label without value")?;
            check_name(label, false)?;
            let close = closing_quote(after).ok_or("an open label value")?;
            let value = unescape(&after[..close], true)?;
            if labels.insert(label.to_owned(), value).is_some() {
                return Err("a label twice".to_owned());
            }
            rest = &after[close + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None if rest.starts_with('}') => {}
                None => return Err("no comma between labels".to_owned()),
            }
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value: number(value)?,
    })
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (i, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(i),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str, quotes: bool) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('\\') => out.push('\\'),
                Some('"') if quotes => out.push('"'),
                other => return Err(format!("a bad escape: {other:?}")),
            },
            c => out.push(c),
        }
    }
    Ok(out)
}

fn check_name(name: &str, metric: bool) -> Result<(), String> {
    let first = name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (metric && b == b':');
    match first && name.bytes().all(plain) {
        true => Ok(()),
        false => Err(format!("a bad name {name:?}")),
    }
}

fn number(text: &str) -> Result<f64, String> {
    match text {
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        "NaN" => Ok(f64::NAN),
        _ if text.bytes().all(|b| b"0123456789+-.eE".contains(&b)) => {
            text.parse().map_err(|_| format!("no number: {text:?}"))
        }
        _ => Err(format!("no number: {text:?}")),
    }
}
