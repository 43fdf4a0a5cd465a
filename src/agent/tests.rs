//! Agents with real processes, real checks and an announcer that records what it is asked to do.
//!
//! Announcer and shell scripts write to one file, so the order of what they do is known.

mod process;

use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};

use super::settings::AgentSettings;
use super::settings_file::SettingsFile;
use super::signals::AgentSignals;
use super::{Announcer, serve};
use crate::config::schema::{AgentConfig, LocalCheck};
use crate::gossip::record::ServiceState;

const PATIENCE: Duration = Duration::from_secs(30);

/// What agent and process do, one word per line.
#[derive(Clone)]
struct Journal(PathBuf);

impl Journal {
    fn write(&self, word: &str) {
        let mut file = fs::File::options()
            .create(true)
            .append(true)
            .open(&self.0)
            .unwrap();
        file.write_all(format!("{word}\n").as_bytes()).unwrap();
    }

    fn read(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until a line holds for `right`.
    async fn wait(&self, what: &str, right: impl Fn(&[String]) -> bool) {
        let look = async {
            while !right(&self.read()) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        let seen = timeout(PATIENCE, look).await;
        assert!(seen.is_ok(), "no {what}: {:?}", self.read());
    }

    async fn has(&self, word: &str) {
        self.wait(word, |lines| lines.iter().any(|line| line == word))
            .await;
    }
}

/// Records states; they are sent when the gate is open.
struct RecordingAnnouncer {
    journal: Journal,
    gate: watch::Receiver<bool>,
}

impl Announcer for RecordingAnnouncer {
    fn announce(&self, state: ServiceState) {
        self.journal.write(state.as_str());
    }

    async fn sent(&self) {
        let mut gate = self.gate.clone();
        if gate.wait_for(|open| *open).await.is_ok() {
            self.journal.write("sent");
        }
    }

    async fn change(&self, config: AgentConfig) -> Result<(), String> {
        if config.cluster == "nowhere" {
            return Err("no such cluster".to_owned());
        }
        self.journal.write(&format!("weight {}", config.weight));
        Ok(())
    }

    async fn leave(self) {
        self.journal.write("left");
    }
}

/// An agent that runs beside the test's own future.
struct Scene {
    folder: tempfile::TempDir,
    settings: AgentSettings,
    journal: Journal,
    gate: watch::Sender<bool>,
    signals: mpsc::Sender<Signal>,
    heard: Cell<Option<mpsc::Receiver<Signal>>>,
    source: Cell<Option<SettingsFile>>,
}

impl Scene {
    /// A scene with this script for `sh`, which finds the journal as `$J`; if it is empty, nothing is supervised.
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal(folder.path().join("journal"));
        let mut settings = settings();
        settings.command = shell(&journal.0, script);
        settings.config.drain_delay = Duration::ZERO;
        let (signals, heard) = mpsc::channel(4);
        Self {
            folder,
            settings,
            journal,
            gate: watch::Sender::new(true),
            signals,
            heard: Cell::new(Some(heard)),
            source: Cell::new(None),
        }
    }

    /// Runs the agent and `story`, and returns the agent's exit code and the journal when both have ended.
    fn play(&self, story: impl Future<Output = ()>) -> (u8, Vec<String>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let announcer = RecordingAnnouncer {
            journal: self.journal.clone(),
            gate: self.gate.subscribe(),
        };
        let signals = AgentSignals::from_channel(self.heard.take().unwrap());
        let agent = serve(
            self.settings.clone(),
            self.source.take(),
            announcer,
            signals,
        );
        let both = async { tokio::join!(agent, story).0.unwrap() };
        let code = runtime.block_on(async { timeout(PATIENCE, both).await });
        let lines = self.journal.read();
        (
            code.unwrap_or_else(|_| panic!("the agent hangs: {lines:?}")),
            lines,
        )
    }

    async fn send(&self, signal: Signal) {
        self.signals.send(signal).await.unwrap();
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn settings() -> AgentSettings {
    let address = "127.0.0.1:1".parse().unwrap();
    AgentSettings::new(AgentConfig::new("web".to_owned(), address, address))
}

fn shell(journal: &Path, script: &str) -> Vec<OsString> {
    if script.is_empty() {
        return Vec::new();
    }
    let script = format!("J='{}'\n{script}", journal.display());
    vec!["sh".into(), "-c".into(), script.into()]
}

/// Writes `up`, and then only does what its traps say.
const WAITS: &str = "echo up >>$J; while :; do sleep 0.02; done";

#[test]
fn a_drain_is_sent_before_the_process_is_told() {
    for (signal, word) in [(Signal::TERM, "TERM"), (Signal::INT, "INT")] {
        let scene = Scene::new(&format!("trap 'echo told >>$J; exit 3' {word}; {WAITS}"));
        scene.gate.send_replace(false);
        let (code, lines) = scene.play(async {
            scene.journal.has("up").await;
            scene.send(signal).await;
            scene.journal.has("draining").await;
            scene.journal.write("opened");
            scene.gate.send_replace(true);
        });
        assert_eq!(code, 0);
        let order: Vec<&str> = lines
            .iter()
            .map(|line| &**line)
            .filter(|line| *line != "ready" && *line != "up")
            .collect();
        assert_eq!(
            order,
            ["starting", "draining", "opened", "sent", "told", "left"]
        );
        assert!(
            lines.iter().position(|l| l == "ready") < lines.iter().position(|l| l == "draining")
        );
    }
}

#[test]
fn once_returns_the_exit_code_of_the_process() {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 42", 42),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
    ] {
        let mut scene = Scene::new(script);
        scene.settings.config.once = true;
        let (got, lines) = scene.play(async {});
        assert_eq!(
            (got, lines),
            (code, words(&["starting", "ready", "left"])),
            "{script}"
        );
    }
}

#[test]
fn what_cannot_be_started() {
    let scene = Scene::new("");
    let plain = scene.folder.path().join("plain");
    fs::write(&plain, "no program").unwrap();
    for (program, code) in [
        ("/nowhere/server".into(), 127),
        (plain.into_os_string(), 126),
    ] {
        let mut scene = Scene::new("");
        scene.settings.command = vec![program];
        scene.settings.config.once = true;
        let (got, lines) = scene.play(async {});
        assert_eq!((got, lines), (code, words(&["starting", "left"])));
    }
    let mut scene = Scene::new("");
    scene.settings.command = vec!["/nowhere/server".into()];
    let (code, lines) = scene.play(async {
        scene.journal.has("failing").await;
        scene.send(Signal::TERM).await;
    });
    assert_eq!((code, lines), (0, words(&["starting", "failing", "left"])));
}

#[test]
fn a_process_that_ends_is_started_again() {
    let scene = Scene::new(
        "trap 'exit 0' TERM; echo up >>$J; [ $(grep -c up $J) = 1 ] && exit 1; while :; do sleep 0.02; done",
    );
    let (code, lines) = scene.play(async {
        let twice = |lines: &[String]| {
            lines.iter().filter(|line| *line == "up").count() == 2
                && lines.iter().filter(|line| *line == "ready").count() == 2
        };
        scene.journal.wait("second life", twice).await;
        scene.send(Signal::TERM).await;
    });
    assert_eq!(code, 0);
    let states: Vec<String> = lines.into_iter().filter(|line| line != "up").collect();
    assert_eq!(
        states,
        [
            "starting", "ready", "failing", "ready", "draining", "sent", "left"
        ]
    );
}

#[test]
fn what_a_process_leaves_behind_is_killed_with_it() {
    // The first process ends by itself, the second when it is asked to.
    let scene = Scene::new(
        "sleep 7777 & echo left-$! >>$J; [ $(grep -c left- $J) = 1 ] && exit 1; trap 'exit 0' TERM; \
         while :; do sleep 0.02; done",
    );
    let children = |lines: &[String]| -> Vec<String> {
        let child = lines.iter().filter_map(|line| line.strip_prefix("left-"));
        child.map(str::to_owned).collect()
    };
    let (code, lines) = scene.play(async {
        let second = |lines: &[String]| children(lines).len() == 2;
        scene.journal.wait("second life", second).await;
        let both = children(&scene.journal.read());
        wait_until(|| is_dead(&both[0]));
        assert!(!is_dead(&both[1]));
        scene.send(Signal::TERM).await;
    });
    assert_eq!(code, 0);
    wait_until(|| is_dead(&children(&lines)[1]));
}

#[test]
fn other_signals_are_passed_on() {
    let scene = Scene::new(&format!(
        "for s in HUP QUIT USR1 USR2 WINCH; do trap \"echo $s >>$J\" $s; done; trap 'exit 0' TERM; {WAITS}"
    ));
    let (code, lines) = scene.play(async {
        scene.journal.has("up").await;
        for (signal, word) in [
            (Signal::HUP, "HUP"),
            (Signal::QUIT, "QUIT"),
            (Signal::USR1, "USR1"),
            (Signal::USR2, "USR2"),
            (Signal::WINCH, "WINCH"),
        ] {
            scene.send(signal).await;
            scene.journal.has(word).await;
        }
        assert!(!scene.journal.read().contains(&"draining".to_owned()));
        scene.send(Signal::TERM).await;
    });
    assert_eq!((code, lines.last().map(|l| &**l)), (0, Some("left")));
}

#[test]
fn a_process_that_does_not_stop_is_killed_with_its_children() {
    let stubborn = format!("trap '' TERM; sleep 300 & echo $! >$J.child; {WAITS}");
    for second in [false, true] {
        let mut scene = Scene::new(&stubborn);
        let hour = Duration::from_secs(3600);
        scene.settings.config.drain_timeout = if second {
            hour
        } else {
            Duration::from_millis(50)
        };
        let (code, lines) = scene.play(async {
            scene.journal.has("up").await;
            scene.send(Signal::TERM).await;
            if second {
                scene.journal.has("draining").await;
                scene.send(Signal::TERM).await;
            }
        });
        assert_eq!(
            (code, lines.last().map(|l| &**l)),
            (u8::from(second), Some("left"))
        );
        let child = fs::read_to_string(scene.journal.0.with_extension("child")).unwrap();
        wait_until(|| is_dead(child.trim()));
    }
}

#[test]
fn a_check_decides_the_state() {
    let mut scene = Scene::new("");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let listener = listener.into_std().unwrap();
    drop(runtime);
    let url = format!("http://localhost:{port}/healthz");
    let mut local: LocalCheck = url.parse().unwrap();
    local.check.interval = Duration::from_millis(200);
    scene.settings.config.check = Some(local);
    scene.settings.config.drain_timeout = Duration::ZERO;
    let status = Rc::new(Cell::new("503 No"));
    let shown = Rc::clone(&status);
    let (asked, answered) = (Rc::new(Notify::new()), Rc::new(Cell::new(0)));
    let (asked_too, answered_too) = (Rc::clone(&asked), Rc::clone(&answered));
    let service = async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let read = client.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..read]).to_lowercase();
            assert!(head.starts_with("get /healthz http/1.1\r\n"), "{head}");
            assert!(
                head.contains(&format!("\r\nhost: localhost:{port}\r\n")),
                "{head}"
            );
            let answer = format!("HTTP/1.1 {}\r\ncontent-length: 0\r\n\r\n", shown.get());
            client.write_all(answer.as_bytes()).await.unwrap();
            answered_too.set(answered_too.get() + 1);
            asked_too.notify_one();
        }
    };
    let story = async {
        while answered.get() < 2 {
            asked.notified().await;
        }
        assert_eq!(scene.journal.read(), ["starting"]);
        status.set("200 Yes");
        scene.journal.has("ready").await;
        status.set("500 Oh");
        scene.journal.has("failing").await;
        status.set("200 Yes");
        let again = |lines: &[String]| lines.iter().filter(|line| *line == "ready").count() == 2;
        scene.journal.wait("second ready", again).await;
        scene.send(Signal::TERM).await;
    };
    let (code, lines) = scene.play(async {
        tokio::select! {
            () = service => {}
            () = story => {}
        }
    });
    assert_eq!(
        (code, lines),
        (
            0,
            words(&["starting", "ready", "failing", "ready", "draining", "left"])
        )
    );
}

#[test]
fn the_file_is_followed_and_read_at_a_signal() {
    let scene = Scene::new("");
    let file = scene.folder.path().join("agent.toml");
    fs::write(&file, "1").unwrap();
    let (levels, reads) = (Rc::new(Cell::new(0)), watch::Sender::new(0));
    let (levels_too, reads_too) = (Rc::clone(&levels), reads.clone());
    let read = move |text: &[u8]| {
        reads_too.send_modify(|reads| *reads += 1);
        let text = String::from_utf8_lossy(text);
        let mut settings = settings();
        if &*text == "nowhere" {
            settings.config.cluster = text.into_owned();
            return Ok((settings, String::new()));
        }
        settings.config.weight = text.parse().map_err(|_| "no number".to_owned())?;
        Ok((settings, String::new()))
    };
    let applied = move |_: &AgentConfig| levels_too.set(levels_too.get() + 1);
    let source = SettingsFile::new(file.clone(), b"1".to_vec(), read, applied);
    scene.source.set(Some(source));
    let put = |text: &str| {
        let next = scene.folder.path().join("next");
        fs::write(&next, text).unwrap();
        fs::rename(&next, &file).unwrap();
    };
    let read_once_more = async |before: u32| {
        let mut reads = reads.subscribe();
        let again = reads.wait_for(|reads| *reads > before);
        assert!(timeout(PATIENCE, again).await.is_ok(), "it is not read");
    };
    let (code, lines) = scene.play(async {
        scene.journal.has("ready").await;
        put("2");
        scene.journal.has("weight 2").await;
        for wrong in ["two", "nowhere"] {
            let before = *reads.borrow();
            put(wrong);
            read_once_more(before).await;
        }
        // The same contents are read again only after a signal.
        put("3");
        scene.journal.has("weight 3").await;
        let before = *reads.borrow();
        scene.send(Signal::HUP).await;
        read_once_more(before).await;
        let twice = |lines: &[String]| lines.iter().filter(|line| *line == "weight 3").count() == 2;
        scene.journal.wait("second look", twice).await;
        scene.send(Signal::TERM).await;
        scene.send(Signal::TERM).await;
    });
    let states = [
        "ready", "weight 2", "weight 3", "weight 3", "draining", "left",
    ];
    let lines: Vec<&str> = lines.iter().map(|line| &**line).collect();
    assert_eq!((code, lines), (1, states.to_vec()));
    assert_eq!(levels.get(), 3);
}

/// Whether a process is gone, or a zombie that nobody has reaped.
fn is_dead(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with('Z'))
}

#[expect(clippy::disallowed_methods, reason = "the pace of a poll")]
fn wait_until(condition: impl Fn() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < end, "it did not happen in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}
