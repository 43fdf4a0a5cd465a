//! The documents are true of the program: their TOML loads, their commands and flags exist, their links lead somewhere,
//! their metrics and fields are those of a running proxy, and their transcripts are what the program prints.
//!
//! What follows the language of a block says how it is checked:
//! - `toml`: a whole configuration, without errors and warnings; so is a heredoc `cat > NAME.toml <<END` in an `sh` block;
//! - `toml fragment`: likewise, completed by a listener and a cluster `web` where it has none;
//! - `toml agent`: the file of an agent;
//! - `toml invalid`: refused, and the `console` block after it shows how;
//! - `sh`, `console`: commands; lines after a `$` line are what it prints;
//! - other languages are not looked at.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_lbproxy");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// For anything that should come at once; long, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Documents that are linked and not written yet.
const TO_COME: [&str; 4] = [
    "CONTRIBUTING.md",
    "docs/metrics.md",
    "src/README.md",
    "tests/README.md",
];

/// A word that begins with one of these is a path.
const FOLDERS: [&str; 7] = [
    "src/",
    "tests/",
    "benches/",
    "config/",
    "docker/",
    "docs/",
    "findings/",
];

// ------------------------------------------------------------------------------------------------ reading documents

struct Document {
    /// Relative to the root.
    name: String,
    text: String,
}

fn documents() -> Vec<Document> {
    let mut found = Vec::new();
    for folder in ["", "docs", "benches", "src", "tests"] {
        for entry in fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "md") {
                let name = path.strip_prefix(ROOT).unwrap().to_str().unwrap();
                found.push(Document {
                    name: name.to_owned(),
                    text: fs::read_to_string(&path).unwrap(),
                });
            }
        }
    }
    assert!(found.len() >= 8, "{}", found.len());
    found
}

fn document(name: &str) -> Document {
    let mut all = documents();
    let at = all.iter().position(|document| document.name == name);
    all.swap_remove(at.unwrap())
}

/// A block between three backticks.
struct Block {
    /// Of its first line in the document.
    line: usize,
    /// What follows the opening backticks.
    info: String,
    text: String,
}

impl Document {
    fn blocks(&self) -> Vec<Block> {
        let mut found = Vec::new();
        let mut lines = self.text.lines().enumerate();
        while let Some((at, line)) = lines.next() {
            if let Some(info) = line.strip_prefix("```") {
                let inside = lines.by_ref().map(|(_, line)| line);
                let inside: Vec<&str> = inside.take_while(|line| *line != "```").collect();
                found.push(Block {
                    line: at + 2,
                    info: info.to_owned(),
                    text: inside.join("\n") + "\n",
                });
            }
        }
        found
    }

    /// The lines outside of blocks.
    fn prose(&self) -> Vec<&str> {
        let mut inside = false;
        let outside = self.text.lines().filter(|line| {
            let fence = line.starts_with("```");
            inside ^= fence;
            !inside && !fence
        });
        outside.collect()
    }

    /// What stands between single backticks in the prose.
    fn spans(&self) -> Vec<String> {
        let prose = self.prose().join("\n");
        prose.split("\n\n").flat_map(spans_of).collect()
    }

    /// The prose and blocks under a heading, up to the next one of its level.
    fn section(&self, heading: &str) -> Document {
        let level = heading.split(' ').next().unwrap();
        let start = self.text.find(&format!("\n{heading}\n")).unwrap() + 1;
        let rest = &self.text[start + heading.len()..];
        let end = rest.find(&format!("\n{level} ")).unwrap_or(rest.len());
        Document {
            name: format!("{} ({heading})", self.name),
            text: rest[..end].to_owned(),
        }
    }
}

/// Of a line, or of a paragraph, in which a span may run over the end of a line.
fn spans_of(text: &str) -> Vec<String> {
    let text = text.replace("``", "").replace('\n', " ");
    let parts: Vec<&str> = text.split('`').collect();
    assert!(parts.len() % 2 == 1, "an open span: {text}");
    let spans = parts.into_iter().skip(1).step_by(2);
    spans.map(str::to_owned).collect()
}

/// The cells of a table's row.
fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(row.split('|').map(str::trim).collect())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

// ------------------------------------------------------------------------------------------------ the program

fn run(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(directory);
    command.env_remove("LBPROXY_ADMIN").stdin(Stdio::null());
    command.output().unwrap()
}

/// Standard output and then standard error.
fn printed(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8(text).unwrap()
}

/// A directory with the files of keys and tokens that the samples name.
fn workbench() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for command in [
        "key generate --out gossip.key",
        "token operator --out operator",
        "token mint --key operator.key --cluster web --cidr 10.0.0.0/8 --max-weight 10 --ttl 30d --out agent.token",
    ] {
        let arguments: Vec<&str> = command.split(' ').collect();
        let output = run(directory.path(), &arguments);
        assert!(output.status.success(), "{command}: {}", printed(&output));
    }
    directory
}

/// A proxy that runs until it is dropped. Its admin socket is `admin.sock`, its log `lb.log` in `directory`.
struct Proxy {
    child: Child,
    directory: TempDir,
}

impl Proxy {
    /// Starts it on `lb.toml` with this text in a directory with keys, and waits until it is ready.
    fn start(text: &str) -> Self {
        let directory = workbench();
        let admin = format!("unix:{}/admin.sock", directory.path().display());
        let text = text.replace("127.0.0.1:9900", &admin);
        fs::write(directory.path().join("lb.toml"), text).unwrap();
        let log = fs::File::create(directory.path().join("lb.log")).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["run", "lb.toml"]).stderr(log);
        command.current_dir(directory.path()).stdin(Stdio::null());
        let child = command.spawn().unwrap();
        let mut proxy = Self { child, directory };
        proxy.wait("it is ready", |status| status["readiness"] == "ready");
        proxy
    }

    /// The answer of the admin server, if there is one.
    fn admin(&self, path: &str) -> Option<String> {
        let stream = UnixStream::connect(self.directory.path().join("admin.sock")).ok()?;
        Some(get(stream, path))
    }

    fn status(&self) -> Option<Value> {
        serde_json::from_str(&self.admin("/api/v1/status")?).ok()
    }

    /// Waits until the status is so; the question itself sets the pace.
    fn wait(&mut self, what: &str, is_so: impl Fn(&Value) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !self.status().is_some_and(|status| is_so(&status)) {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "it ended, and {what} was waited for: {}",
                self.log()
            );
            assert!(
                Instant::now() < end,
                "waited in vain: {what}; {}",
                self.log()
            );
            // A process that starts and ends is some milliseconds.
            run(self.directory.path(), &["version"]);
        }
    }

    fn wait_backend(&mut self, address: SocketAddr, state: &str) {
        let address = address.to_string();
        self.wait(&format!("{address} is {state}"), |status| {
            let clusters = status["clusters"].as_array().unwrap().iter();
            let mut backends = clusters.flat_map(|cluster| cluster["backends"].as_array().unwrap());
            backends.any(|backend| {
                backend["address"] == *address
                    && backend["state"] == state
                    && backend["reason"]
                        .as_str()
                        .is_some_and(|why| why.starts_with("check"))
            })
        });
    }

    /// Where its first listener is.
    fn listener(&self) -> SocketAddr {
        let status = self.status().unwrap();
        let bound = status["listeners"][0]["bound"][0].as_str();
        bound.unwrap().parse().unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("lb.log")).unwrap()
    }

    /// Lets it drain and end.
    fn stop(&mut self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success(), "{}", self.log());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body of an answer with a length.
fn get(mut stream: impl Read + Write, path: &str) -> String {
    let fields =
        "Host: localhost\r\nReferer: http://localhost/\r\nUser-Agent: test\r\nConnection: close";
    write!(stream, "GET {path} HTTP/1.1\r\n{fields}\r\n\r\n").unwrap();
    let mut answer = String::new();
    // An answer that is refused on the way may end in a reset.
    let _ = stream.read_to_string(&mut answer);
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    body.to_owned()
}

/// A server that gives the same answer to every request, until it is dropped.
struct Server {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if told.load(Ordering::SeqCst) {
                    return;
                }
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                if lines.any(|line| line.is_empty()) {
                    let _ = (&stream).write_all(answer.as_bytes());
                }
            }
        });
        Self {
            address,
            ended,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

const WELL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";

// ------------------------------------------------------------------------------------------------ text

#[test]
fn the_readme_is_short() {
    let lines = document("README.md").text.lines().count();
    assert!(lines <= 150, "{lines} lines");
}

#[test]
fn figures_of_the_readme_stand_in_the_report() {
    let rows = |document: &Document| -> Vec<Vec<String>> {
        let lines = document.prose().into_iter().filter_map(cells);
        let rows = lines
            .filter(|cells| cells.len() > 5 && cells[1].starts_with(|c: char| c.is_ascii_digit()));
        rows.map(|cells| cells.into_iter().map(str::to_owned).collect())
            .collect()
    };
    let report = rows(&document("benches/README.md").section("## What was measured"));
    let shown = rows(&document("README.md"));
    assert!(shown.len() >= 5, "{shown:?}");
    for row in shown {
        assert!(
            report.iter().any(|other| other.starts_with(&row)),
            "{row:?}"
        );
    }
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(ROOT);
    let anchors = |path: &Path| -> BTreeSet<String> {
        let text = fs::read_to_string(path).unwrap();
        let document = Document {
            name: String::new(),
            text,
        };
        let prose = document.prose().into_iter();
        prose
            .filter(|line| line.starts_with('#'))
            .map(anchor)
            .collect()
    };
    let mut links = 0;
    for document in documents() {
        let folder = root.join(&document.name).parent().unwrap().to_owned();
        for line in document.prose() {
            for link in line.split("](").skip(1) {
                let link = link.split(')').next().unwrap();
                if link.contains("://") {
                    continue;
                }
                links += 1;
                let (file, part) = link.split_once('#').unwrap_or((link, ""));
                let path = match file {
                    "" => root.join(&document.name),
                    file => folder.join(file),
                };
                let is_to_come = TO_COME.iter().any(|name| path.ends_with(name));
                assert!(path.exists() || is_to_come, "{}: {link}", document.name);
                if !part.is_empty() {
                    assert!(anchors(&path).contains(part), "{}: {link}", document.name);
                }
            }
        }
    }
    assert!(links > 50, "{links}");
}

#[test]
fn paths_exist() {
    for document in documents() {
        for span in document.spans() {
            let is_path = FOLDERS.iter().any(|folder| span.starts_with(folder));
            if is_path && !span.contains(['*', '{', ' ']) {
                let is_there = Path::new(ROOT).join(&span).exists();
                assert!(
                    is_there || TO_COME.contains(&&*span),
                    "{}: {span}",
                    document.name
                );
            }
        }
    }
}

#[test]
fn keys_with_a_table_exist() {
    let full = fs::read_to_string(Path::new(ROOT).join("config/full.toml")).unwrap();
    let keys: BTreeSet<&str> = full
        .split(|c: char| c != '_' && !c.is_alphanumeric())
        .collect();
    for document in documents() {
        for span in document.spans() {
            let Some((table, key)) = span.split_once('.') else {
                continue;
            };
            if matches!(table, "timeouts" | "limits" | "retry" | "check" | "log") && is_name(key) {
                assert!(keys.contains(key), "{}: {span}", document.name);
            }
        }
    }
}

#[test]
fn reasons_of_the_peer_set_are_those_of_the_source() {
    fn read(folder: &Path, all: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, all);
            } else if path.extension().is_some_and(|end| end == "rs") {
                all.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut source = String::new();
    read(&Path::new(ROOT).join("src"), &mut source);
    let section = document("docs/gossip.md").section("## Watch it");
    let rows = section.prose().into_iter().filter_map(cells);
    let words: Vec<String> = rows.flat_map(|cells| spans_of(cells[0])).collect();
    assert!(words.len() > 30, "{words:?}");
    for word in words.iter().filter(|word| !word.starts_with("lbproxy_")) {
        assert!(source.contains(&format!("\"{word}\"")), "{word}");
    }
}

// ------------------------------------------------------------------------------------------------ TOML

/// What a block writes with `cat > NAME.toml <<END`.
fn heredocs(block: &Block) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut lines = block.text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some((_, end)) = line
            .strip_prefix("cat > ")
            .and_then(|line| line.split_once(" <<"))
        else {
            continue;
        };
        let inside = lines.by_ref().map(|(_, line)| line);
        let inside: Vec<&str> = inside
            .take_while(|line| *line != end.trim_matches('\''))
            .collect();
        // The shell's variable, in a loop over numbers.
        found.push((
            block.line + at + 1,
            inside.join("\n").replace("$i", "1") + "\n",
        ));
    }
    found
}

/// A fragment is completed by the parts that no file can be without.
fn completed(block: &str) -> String {
    let mut text = block.to_owned();
    let has_listener = block.contains("[[listener]]");
    if !has_listener {
        text.push_str("[[listener]]\naddress = ':1'\ncluster = 'web'\n");
    }
    let has_cluster = match has_listener {
        true => block.contains("[cluster."),
        false => block.contains("[cluster.web]"),
    };
    if !has_cluster {
        text.push_str("[cluster.web]\nbackends = ['10.0.0.1:80']\n");
    }
    text
}

#[test]
fn toml_blocks_are_valid_and_without_warnings() {
    let bench = workbench();
    let mut checked = 0;
    for document in documents() {
        let mut files = Vec::new();
        for block in document.blocks() {
            match &*block.info {
                "toml" | "toml agent" => files.push((block.line, block.text)),
                "toml fragment" => files.push((block.line, completed(&block.text))),
                "toml invalid" => {}
                "sh" => files.extend(heredocs(&block)),
                other => assert!(!other.starts_with("toml"), "{}: {other}", document.name),
            }
        }
        for (line, text) in files {
            fs::write(bench.path().join("lb.toml"), &text).unwrap();
            let output = run(bench.path(), &["check", "--strict", "lb.toml"]);
            let shown = printed(&output);
            assert!(
                output.status.success(),
                "{}:{line}\n{text}\n{shown}",
                document.name
            );
            checked += 1;
        }
    }
    assert!(checked >= 15, "{checked}");
}

/// Files in which a setting could stand.
fn files_with(setting: &str) -> Vec<String> {
    let listener = "[[listener]]\naddress = ':1'\n";
    let cluster = "[cluster.web]\nbackends = ['10.0.0.1:80', '10.0.0.2:80']\n";
    let of_cluster = format!("{listener}cluster = 'web'\n{cluster}");
    let gossip = "[gossip]\naddress = '10.0.0.5:7946'\nallow_cidrs = ['10.0.0.0/8']\n";
    let backend = |more: &str| {
        format!(
            "{listener}cluster = 'web'\n[cluster.web]\nbackends = [{{ address = 'a:1', {more} }}]\n"
        )
    };
    vec![
        format!("{of_cluster}{setting}\n"),
        format!("{of_cluster}policy = 'consistent_hash'\n{setting}\n"),
        format!("{listener}{setting}\n{cluster}"),
        format!("{listener}cluster = 'web'\n{setting}\n{cluster}"),
        format!("[[listener]]\n{setting}\ncluster = 'web'\n{cluster}"),
        format!("{of_cluster}[[route]]\n{setting}\ncluster = 'web'\n"),
        format!("{of_cluster}[[route]]\npath = '/x'\n{setting}\n"),
        format!("{setting}\n{of_cluster}"),
        backend(setting),
        format!("{of_cluster}check = {{ http = '/', {setting} }}\n"),
        format!("{of_cluster}[log]\naccess = {{ to = 'stdout', {setting} }}\n"),
        format!("{of_cluster}{gossip}key_file = 'gossip.key'\n{setting}\n"),
        format!("{of_cluster}{gossip}{setting}\n"),
        format!(
            "{of_cluster}discover = {{ gossip = 'web' }}\n{setting}\n{gossip}key_file = 'gossip.key'\n"
        ),
        format!(
            "{listener}cluster = 'web'\n[cluster.web]\n{setting}\n{gossip}key_file = 'gossip.key'\n"
        ),
    ]
}

#[test]
fn settings_in_the_prose_are_valid_somewhere() {
    let bench = workbench();
    fs::create_dir(bench.path().join("sites")).unwrap();
    fs::write(bench.path().join("sites/a.toml"), "").unwrap();
    for page in ["sorry.html", "client.json"] {
        fs::write(bench.path().join(page), "sorry").unwrap();
    }
    let mut known = BTreeSet::new();
    for document in documents() {
        for span in document.spans() {
            // Of TOML; `…` stands for anything, and NAME for that of a cluster.
            let is_setting = span.split_once(" = ").is_some_and(|(key, value)| {
                let starts = |c: char| matches!(c, '"' | '[' | '{') || c.is_ascii_digit();
                is_name(key) && (value.starts_with(starts) || matches!(value, "true" | "false"))
            });
            if !is_setting || span.contains('…') || known.contains(&span) {
                continue;
            }
            let is_valid = files_with(&span.replace("NAME", "web")).iter().any(|text| {
                fs::write(bench.path().join("lb.toml"), text).unwrap();
                run(bench.path(), &["check", "lb.toml"]).status.success()
            });
            assert!(is_valid, "{}: {span}", document.name);
            known.insert(span);
        }
    }
    assert!(known.len() > 40, "{}", known.len());
}

#[test]
fn an_invalid_file_is_refused_as_shown() {
    let mut shown = 0;
    for document in documents() {
        let blocks = document.blocks();
        for (at, block) in blocks.iter().enumerate() {
            if block.info != "toml invalid" {
                continue;
            }
            let bench = workbench();
            fs::write(bench.path().join("lb.toml"), &block.text).unwrap();
            let output = run(bench.path(), &["check", "lb.toml"]);
            assert_eq!(output.status.code(), Some(1));
            let transcript = &blocks[at + 1].text;
            let (command, expected) = transcript.split_once('\n').unwrap();
            assert_eq!(command, "$ lbproxy check lb.toml");
            assert_eq!(
                printed(&output),
                expected,
                "{}:{}",
                document.name,
                block.line
            );
            shown += 1;
        }
    }
    assert!(shown > 0);
}

// ------------------------------------------------------------------------------------------------ commands

/// The program's help, by the words of the command.
#[derive(Default)]
struct Help(HashMap<Vec<String>, String>);

impl Help {
    fn of(&mut self, command: &[String]) -> &str {
        self.0.entry(command.to_vec()).or_insert_with(|| {
            let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
            arguments.push("--help");
            printed(&run(Path::new(ROOT), &arguments))
        })
    }

    /// The commands below this one.
    fn below(&mut self, command: &[String]) -> Vec<String> {
        let lines = self.of(command).lines();
        let listed = lines.skip_while(|line| *line != "Commands:").skip(1);
        let listed = listed.take_while(|line| !line.is_empty());
        let listed = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        listed
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn has_flag(&mut self, command: &[String], flag: &str) -> bool {
        let words = self
            .of(command)
            .split(|c: char| c != '-' && !c.is_alphanumeric());
        words.into_iter().any(|word| word == flag)
    }

    /// What is wrong with these arguments of `lbproxy`, if something is.
    fn wrong(&mut self, arguments: &[String]) -> Option<String> {
        let mut command = Vec::new();
        let mut arguments = arguments.iter().peekable();
        while let Some(word) = arguments.next_if(|word| !word.starts_with('-')) {
            let below = self.below(&command);
            let is_file = command.is_empty() && word.contains(['.', '/', '…']);
            if below.contains(word) {
                command.push(word.clone());
            } else if below.is_empty() || is_file {
                break;
            } else {
                return Some(format!("no command {word}"));
            }
        }
        let flags = arguments.take_while(|word| *word != "--");
        let mut flags = flags.filter(|word| word.starts_with('-') && word.len() > 1);
        let unknown = flags.find(|word| {
            let flag = word.split('=').next().unwrap();
            !self.has_flag(&command, flag)
        });
        unknown.map(|flag| format!("no flag {flag} of {command:?}"))
    }
}

/// The words of a shell line up to its comment, without quotes; separators are words of their own.
fn words(line: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match (c, quote) {
            ('#', None) if all.last().unwrap().is_empty() => break,
            (c, Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(_)) => all.last_mut().unwrap().push(c),
            (' ', None) => all.push(String::new()),
            (';' | '|' | '&' | '(' | ')' | '<' | '>', None) => {
                all.push(c.to_string());
                all.push(String::new());
            }
            (c, None) => all.last_mut().unwrap().push(c),
        }
    }
    all.retain(|word| !word.is_empty());
    all
}

/// The calls of `program` in these words, each with its arguments.
fn calls(words: &[String], program: &str) -> Vec<Vec<String>> {
    let separates = |word: &str| {
        matches!(
            word,
            ";" | "|" | "&" | "(" | ")" | "<" | ">" | "do" | "until" | "then"
        )
    };
    let starts = words
        .iter()
        .enumerate()
        .filter(|(at, word)| *word == program && (*at == 0 || separates(&words[at - 1])));
    let arguments = starts.map(|(at, _)| {
        let rest = words[at + 1..].iter();
        rest.take_while(|word| !separates(word)).cloned().collect()
    });
    arguments.collect()
}

/// The command lines of a block, each in one piece, without heredocs and what is printed.
fn lines_of(block: &Block) -> Vec<String> {
    let text = block.text.replace("\\\n", " ");
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some((_, end)) = line.split_once(" <<") {
            lines.by_ref().find(|line| *line == end.trim_matches('\''));
        }
        match (&*block.info, line.strip_prefix("$ ")) {
            ("console", Some(command)) => found.push(command.to_owned()),
            ("console", None) => {}
            _ => found.push(line.to_owned()),
        }
    }
    found
}

#[test]
fn commands_and_flags_exist() {
    let root = Path::new(ROOT);
    let benches = |name: &str| {
        root.join(format!("benches/{name}.rs")).exists()
            || root.join(format!("benches/{name}")).exists()
    };
    let mut help = Help::default();
    let mut checked = 0;
    for document in documents() {
        let blocks = document.blocks().into_iter();
        let blocks = blocks.filter(|block| matches!(&*block.info, "sh" | "console"));
        let mut lines: Vec<String> = blocks.flat_map(|block| lines_of(&block)).collect();
        lines.extend(document.spans());
        for line in lines {
            let words = words(&line);
            let mut ours = calls(&words, "lbproxy");
            for cargo in calls(&words, "cargo") {
                let own = cargo.iter().position(|word| word == "--");
                let manifest = cargo.iter().position(|word| word == "--manifest-path");
                if let Some(manifest) = manifest {
                    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&cargo[manifest + 1]);
                    assert!(path.is_file(), "{}: {line}", document.name);
                } else if let (Some("run"), Some(own)) = (cargo.first().map(String::as_str), own) {
                    ours.push(cargo[own + 1..].to_vec());
                }
                let bench = cargo.iter().position(|word| word == "--bench");
                if let Some(name) = bench.map(|at| &cargo[at + 1]) {
                    assert!(benches(name), "{}: {line}", document.name);
                }
                checked += 1;
            }
            for arguments in ours {
                let wrong = help.wrong(&arguments);
                assert_eq!(wrong, None, "{}: {line}", document.name);
                checked += 1;
            }
        }
    }
    assert!(checked > 60, "{checked}");
}

#[test]
fn shell_blocks_parse_and_name_files_that_exist() {
    let mut checked = 0;
    for document in documents() {
        for block in document.blocks() {
            if block.info != "sh" {
                continue;
            }
            let mut shell = Command::new("sh");
            let output = shell.args(["-n", "-c", &block.text]).output().unwrap();
            let shown = printed(&output);
            assert!(
                output.status.success(),
                "{}:{} {shown}",
                document.name,
                block.line
            );
            for word in lines_of(&block).iter().flat_map(|line| words(line)) {
                let is_path = FOLDERS.iter().any(|folder| word.starts_with(folder));
                let is_there = Path::new(ROOT).join(&word).exists();
                assert!(
                    !is_path || is_there,
                    "{}:{} {word}",
                    document.name,
                    block.line
                );
            }
            checked += 1;
        }
    }
    assert!(checked >= 10, "{checked}");
}

#[test]
fn a_command_that_is_not_there_is_found() {
    let mut help = Help::default();
    for (line, wrong) in [
        ("lbproxy check --strict lb.toml", None),
        (
            "lbproxy check --stricter lb.toml",
            Some("no flag --stricter of [\"check\"]"),
        ),
        ("lbproxy chek lb.toml", Some("no command chek")),
        ("lbproxy key make", Some("no command make")),
        ("lbproxy agent --cluster web -- server --own-flag", None),
        (
            "true && lbproxy status -x # lbproxy nothing",
            Some("no flag -x of [\"status\"]"),
        ),
    ] {
        let calls = calls(&words(line), "lbproxy");
        assert_eq!(calls.len(), 1, "{line}");
        assert_eq!(help.wrong(&calls[0]).as_deref(), wrong, "{line}");
    }
}

// ------------------------------------------------------------------------------------------------ a running proxy

#[test]
fn metrics_and_status_fields_exist() {
    // An address of this process alone, since a member cannot take a free port.
    let pid = std::process::id();
    let own = format!(
        "127.{}.{}.{}",
        64 + pid % 64,
        pid / 64 % 250,
        1 + pid / 16_000 % 250
    );
    let proxy = Proxy::start(&format!(
        "[admin]\naddress = '127.0.0.1:9900'\n[[listener]]\naddress = '127.0.0.1:0'\ncluster = 'web'\n\
         [cluster.web]\nbackends = ['127.0.0.1:1']\n\
         [gossip]\naddress = '{own}:7946'\nkey_file = 'gossip.key'\nallow_cidrs = ['127.0.0.0/8']\n"
    ));
    let page = proxy.admin("/metrics").unwrap();
    let families = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let families: BTreeSet<&str> = families.collect();
    let mut named = 0;
    for document in documents() {
        let texts = document
            .text
            .split(|c: char| c != '_' && !c.is_ascii_alphanumeric());
        for name in
            texts.filter(|text| text.starts_with("lbproxy_") || text.starts_with("process_"))
        {
            let known = match name.ends_with('_') {
                true => families.iter().any(|family| family.starts_with(name)),
                false => families.contains(name),
            };
            assert!(known, "{}: {name}", document.name);
            named += 1;
        }
    }
    assert!(named > 30, "{named}");

    fn keys(value: &Value, all: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => object.iter().for_each(|(key, value)| {
                all.insert(key.clone());
                keys(value, all);
            }),
            Value::Array(array) => array.iter().for_each(|value| keys(value, all)),
            _ => {}
        }
    }
    let mut all = BTreeSet::new();
    keys(&proxy.status().unwrap(), &mut all);
    let section = document("docs/operations.md").section("## Status and readiness");
    let text = section.text.split("`/api/v1/status` has").nth(1).unwrap();
    let paragraph = text.split("\n\n").next().unwrap();
    let fields: Vec<String> = spans_of(paragraph)
        .into_iter()
        .filter(|span| is_name(span))
        .collect();
    assert!(fields.len() > 10, "{fields:?}");
    for field in fields {
        assert!(all.contains(&field), "{field} is not among {all:?}");
    }
}

#[test]
fn the_access_log_has_the_fields_that_are_documented() {
    let (well, unwell) = (
        Server::start(WELL),
        Server::start("HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"),
    );
    let mut proxy = Proxy::start(&format!(
        "[admin]\naddress = '127.0.0.1:9900'\n[log]\naccess = {{ file = 'access.log' }}\n\
         [[listener]]\naddress = '127.0.0.1:0'\ncluster = 'web'\n\
         [[route]]\npath = '/refused'\ncluster = 'unwell'\n\
         [cluster.web]\nbackends = ['{}']\n[cluster.unwell]\nbackends = ['{}']\n",
        well.address, unwell.address
    ));
    for path in ["/", "/refused"] {
        get(TcpStream::connect(proxy.listener()).unwrap(), path);
    }
    proxy.stop();
    let log = fs::read_to_string(proxy.directory.path().join("access.log")).unwrap();
    let keys = |line: &str| -> Vec<String> {
        let value: Value = serde_json::from_str(line).unwrap();
        value.as_object().unwrap().keys().cloned().collect()
    };
    let written: BTreeSet<String> = log.lines().flat_map(keys).collect();
    let section = document("docs/operations.md").section("## Logs");
    let blocks = section.blocks();
    let sample = blocks.iter().find(|block| block.info == "json").unwrap();
    let mut documented: BTreeSet<String> = keys(&sample.text).into_iter().collect();
    let rows = section.prose().into_iter().filter_map(cells);
    documented.extend(rows.flat_map(|cells| spans_of(cells[0])));
    assert_eq!(documented, written, "{log}");
}

/// A line without what differs from run to run: numbers, durations, times, the width of columns. Metrics stay as they are.
fn shape(line: &str) -> String {
    if line.starts_with("lbproxy_") {
        return line.to_owned();
    }
    let differs = |word: &str| {
        let word = word.trim_end_matches(',');
        let figure = word.trim_end_matches(|c: char| c.is_alphabetic() || c == '%');
        let is_figure =
            !figure.is_empty() && figure.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let is_time = word.ends_with('Z') && word.len() == "2026-12-01T12:26:45.890Z".len();
        word == "-" || is_figure || is_time
    };
    let words = line
        .split_whitespace()
        .map(|word| if differs(word) { "#" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_backend_is_down_as_operations_shows_it() {
    let operations = document("docs/operations.md");
    let start = operations.section("## Start");
    let file = start.blocks().iter().flat_map(heredocs).next().unwrap().1;
    let (first, second) = (Server::start(WELL), Server::start(WELL));
    let (first_address, second_address) = (first.address, second.address);
    let ours = [
        ("127.0.0.1:8001", first_address.to_string()),
        ("127.0.0.1:8002", second_address.to_string()),
    ];
    let mut file = file.replace("127.0.0.1:8080", "127.0.0.1:0");
    for (documented, address) in &ours {
        file = file.replace(documented, address);
    }
    let quick = file.replace("{ http = \"/\" }", "{ http = \"/\", interval = \"100ms\" }");
    assert_ne!(quick, file);
    let mut proxy = Proxy::start(&quick);
    for address in [first_address, second_address] {
        proxy.wait_backend(address, "up");
    }
    let ask = |proxy: &Proxy| get(TcpStream::connect(proxy.listener()).unwrap(), "/");
    for _ in 0..4 {
        assert_eq!(ask(&proxy), "ok\n");
    }

    let section = operations.section("## A backend is down: what now?");
    let (one_down, all_down) = section.text.split_once("**If all are down**").unwrap();
    let (mut servers, mut shown) = (vec![first, second], 0);
    for (text, address) in [(one_down, second_address), (all_down, first_address)] {
        servers.pop();
        proxy.wait_backend(address, "down");
        let part = Document {
            name: String::new(),
            text: text.to_owned(),
        };
        for block in part.blocks() {
            if block.info != "console" {
                continue;
            }
            for transcript in format!("\n{}", block.text).split("\n$ ").skip(1) {
                let (command, expected) = transcript.split_once('\n').unwrap();
                let arguments: Vec<&str> = command.split(' ').collect();
                let mut printed = match &arguments[..] {
                    ["lbproxy", arguments @ ..] => printed(&run(proxy.directory.path(), arguments)),
                    ["grep", ..] => proxy.log(),
                    ["curl", "-s", "http://127.0.0.1:9900/metrics", ..] => {
                        proxy.admin("/metrics").unwrap()
                    }
                    ["curl", "-s", "http://127.0.0.1:8080/"] => ask(&proxy),
                    _ => panic!("{command}: say how to run it"),
                };
                for (documented, address) in &ours {
                    printed = printed.replace(address, documented);
                }
                let shapes: Vec<String> = printed.lines().map(shape).collect();
                for line in expected.lines() {
                    assert!(
                        shapes.contains(&shape(line)),
                        "{command}: not printed: {line}\n{printed}"
                    );
                }
                if arguments[0] == "lbproxy" {
                    assert_eq!(
                        expected.trim_end().lines().count(),
                        shapes.len(),
                        "{command}\n{printed}"
                    );
                }
                shown += 1;
            }
        }
    }
    assert!(shown >= 4, "{shown}");
}
