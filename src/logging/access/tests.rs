//! The thread with real files and pipes.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use tempfile::TempDir;

use super::*;
use crate::telemetry::access_log::LogEntry;
use crate::telemetry::outcome::Outcome;

const BOUND: Duration = Duration::from_secs(60);

fn entry(listener: &str) -> LogEntry<'_> {
    LogEntry {
        time: SystemTime::now(),
        listener,
        peer: "192.0.2.1:1".parse().ok(),
        outcome: Outcome {
            protocol: "tcp",
            client: "192.0.2.1".parse().ok(),
            ..Outcome::default()
        },
    }
}

fn write_one(sender: &mut LogSender, listener: &str) {
    sender.write(&entry(listener));
    sender.flush();
}

fn switch(writer: &AccessLogWriter, log: &AccessLog) {
    writer.switch(AccessLogSink::open(log).unwrap());
}

/// The listeners of the lines of a file, each of which must be JSON.
fn listeners(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            value["listener"].as_str().unwrap().to_owned()
        })
        .collect()
}

fn read(path: &Path) -> Vec<String> {
    listeners(&fs::read_to_string(path).unwrap_or_default())
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < BOUND, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

#[test]
fn what_was_handed_over_is_written_before_it_closes() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("access.log");
    let metrics = Arc::new(ProcessMetrics::default());
    let log = AccessLog::File(path.clone());
    let writer = AccessLogWriter::start(&log, metrics.clone()).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "at most 0640: {mode:o}");
    let (mut a, mut b) = (writer.sender(), writer.sender());
    for _ in 0..30 {
        write_one(&mut a, "a");
        write_one(&mut b, "b");
    }
    a.write(&entry("last"));
    drop(a);
    assert!(writer.close(BOUND));
    let seen = read(&path);
    assert_eq!(seen.len(), 61);
    assert_eq!(seen[60], "last");
    write_one(&mut b, "late");
    assert_eq!(metrics.access_log_dropped.get(), 1);
}

#[test]
fn a_renamed_file_is_left_at_reopen() {
    let folder = TempDir::new().unwrap();
    let (path, old) = (
        folder.path().join("access.log"),
        folder.path().join("old.log"),
    );
    let writer = AccessLogWriter::start(&AccessLog::File(path.clone()), Arc::default()).unwrap();
    let mut sender = writer.sender();
    write_one(&mut sender, "1");
    eventually("written", || read(&path) == ["1"]);
    fs::rename(&path, &old).unwrap();
    write_one(&mut sender, "2");
    eventually("still the old one", || read(&old) == ["1", "2"]);
    writer.reopen();
    eventually("a new file", || path.exists());
    write_one(&mut sender, "3");
    assert!(writer.close(BOUND));
    assert_eq!(read(&old), ["1", "2"]);
    assert_eq!(read(&path), ["3"]);
}

#[test]
fn another_sink_takes_over() {
    let folder = TempDir::new().unwrap();
    let (first, second) = (folder.path().join("1"), folder.path().join("2"));
    let metrics = Arc::new(ProcessMetrics::default());
    let writer = AccessLogWriter::start(&AccessLog::Off, metrics.clone()).unwrap();
    let mut sender = writer.sender();
    // What waits when the sink changes goes to the new one.
    write_one(&mut sender, "nowhere or 1");
    writer.reopen();
    switch(&writer, &AccessLog::File(first.clone()));
    write_one(&mut sender, "1");
    eventually("on", || read(&first).contains(&"1".to_owned()));
    let wrong = AccessLog::File(folder.path().join("no/such/folder"));
    let error = AccessLogSink::open(&wrong).unwrap_err().to_string();
    assert!(error.contains("no/such/folder"), "{error}");
    switch(&writer, &AccessLog::File(second.clone()));
    write_one(&mut sender, "2");
    eventually("over", || read(&second) == ["2"]);
    switch(&writer, &AccessLog::Stdout);
    switch(&writer, &AccessLog::Off);
    write_one(&mut sender, "nowhere");
    assert!(writer.close(BOUND));
    assert_eq!(read(&second), ["2"]);
    assert_eq!(metrics.access_log_dropped.get(), 0, "off is no loss");
}

#[test]
fn a_reader_that_is_gone_costs_lines_and_nothing_else() {
    let (reader, writer) = io::pipe().unwrap();
    let metrics = Arc::new(ProcessMetrics::default());
    let sink = Sink::Stdout(File::from(OwnedFd::from(writer)));
    let writer = AccessLogWriter::start_with(sink, metrics.clone()).unwrap();
    let mut sender = writer.sender();
    drop(reader);
    write_one(&mut sender, "lost");
    eventually("counted", || metrics.access_log_dropped.get() == 1);
    write_one(&mut sender, "lost");
    eventually("counted", || metrics.access_log_dropped.get() == 2);
    assert!(writer.close(BOUND));
}

#[test]
fn a_sink_that_recovers_is_used_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("access.log");
    // A full disk, as long as it stands under that name.
    let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
    let sink = Sink::File {
        path: path.clone(),
        file: full,
    };
    let metrics = Arc::new(ProcessMetrics::default());
    let writer = AccessLogWriter::start_with(sink, metrics.clone()).unwrap();
    let mut sender = writer.sender();
    let mut sent = 0;
    eventually("written", || {
        write_one(&mut sender, "x");
        sent += 1;
        !read(&path).is_empty()
    });
    assert!(writer.close(BOUND));
    let lost = metrics.access_log_dropped.get();
    assert!(lost > 0);
    assert_eq!(read(&path).len() as u64 + lost, sent);
}

#[test]
fn a_torn_line_is_ended_before_the_next() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("access.log");
    let mut file = open(&path).unwrap();
    assert!(!fcntl_getfl(&file).unwrap().contains(OFlags::NONBLOCK));
    file.write_all(b"{\"half\":").unwrap();
    let (written, result) = write(&mut file, true, b"{}\n");
    assert!(result.is_ok());
    assert_eq!(written, 3);
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"half\":\n{}\n");
}

#[test]
fn a_reader_that_sleeps_fills_the_queue_and_no_memory() {
    let (mut reader, writer) = io::pipe().unwrap();
    let metrics = Arc::new(ProcessMetrics::default());
    let sink = Sink::Stdout(File::from(OwnedFd::from(writer)));
    let writer = AccessLogWriter::start_with(sink, metrics.clone()).unwrap();
    let mut sender = writer.sender();
    let mut sent = 0u64;
    // The pipe and the queue take what they take; then lines are dropped, and nobody waits.
    while metrics.access_log_dropped.get() == 0 {
        write_one(&mut sender, "x");
        sent += 1;
    }
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        listeners(&text).len() as u64
    });
    assert!(writer.close(BOUND));
    assert_eq!(
        reading.join().unwrap() + metrics.access_log_dropped.get(),
        sent
    );
}

#[test]
fn closing_waits_no_longer_than_it_is_told() {
    let (reader, writer) = io::pipe().unwrap();
    let sink = Sink::Stdout(File::from(OwnedFd::from(writer)));
    let writer = AccessLogWriter::start_with(sink, Arc::default()).unwrap();
    let mut sender = writer.sender();
    for _ in 0..2_000 {
        sender.write(&entry("x"));
    }
    sender.flush();
    assert!(!writer.close(Duration::from_millis(50)));
    drop(reader);
}

#[test]
fn a_pipe_without_a_reader_is_an_error() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("pipe");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &path,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .unwrap();
    assert!(AccessLogWriter::start(&AccessLog::File(path), Arc::default()).is_err());
}

#[test]
fn as_root_no_link_is_followed_and_no_file_of_others_is_written() {
    use std::os::unix::fs::{chown, symlink};

    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("target"), "").unwrap();
    symlink(path("target"), path("link")).unwrap();
    assert!(open_as(&path("link"), false).is_ok());
    let error = open_as(&path("link"), true).unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
    if geteuid().is_root() {
        assert!(open_as(&path("new"), true).is_ok());
        assert!(open_as(&path("target"), true).is_ok());
        chown(path("target"), Some(65_534), None).unwrap();
    }
    let error = open_as(&path("target"), true).unwrap_err().to_string();
    assert!(error.contains("it belongs to user"), "{error}");
}
