//! The data files: `tests/corpus/{requests,responses}/*.toml`, lists of `[[case]]`.
//!
//! Byte strings are literal strings with the escapes of [`super::bytes`]. An unknown key is an error, and every error
//! names its file and case, so that a typing mistake is not a case that tests nothing.
//!
//! A request case:
//!
//! | key | |
//! |---|---|
//! | `name`, `source` | unique in the directory, kebab-case; the section of an RFC or the class of attack |
//! | `send` | what the client sends |
//! | `listener` | `default`, `routes`, `trusted` or `small`, see [`super::requests`] |
//! | `ends` | `true`: the client ends its sending side behind it |
//! | `answers` | statuses of the final responses, in order |
//! | `reason` | label of the refusal; absent if nothing is refused |
//! | `closes` | whether the proxy then ends the connection |
//! | `reaches` | the whole requests that the backend sees, in order: `line`, `body` (absent: empty), `trailers` (absent: none), `has` (exact lines), `lacks` (names), `at` (cluster; absent: `default`) |
//! | `never` | byte strings that stand in nothing that reaches a backend |
//! | `partial` | `true`: when the bytes come in pieces, an incomplete request may have begun to reach a backend |
//! | `tunnel` | the bytes that go through the tunnel after a 101 |
//!
//! A response case:
//!
//! | key | |
//! |---|---|
//! | `name`, `source` | the same |
//! | `request` | what the client sends; absent: a plain `GET /` |
//! | `backend` | what the backend sends once it has the request's head |
//! | `when` | `"accept"`: as soon as the connection is accepted |
//! | `rest` | what the client sends once it has a head, interim or final |
//! | `finish` | what the backend sends behind `backend` once it has the whole request |
//! | `then` | `keep` (absent), `close` or `reset`: what becomes of the backend's connection |
//! | `later` | bytes that the backend sends after the client has had its answer |
//! | `status`, `interim` | of the final response at the client, and of those before it |
//! | `body`, `whole` | what the client reads (absent: not compared); `false`: visibly cut |
//! | `has`, `lacks` | lines and names of the final head at the client |
//! | `never` | byte strings that stand in nothing that the client gets |
//! | `trailers` | all trailer lines at the client (absent: none) |
//! | `reused` | whether the next request goes out on the same backend connection (absent: not compared) |
//! | `reason`, `error` | labels in `lbproxy_rejected_total` and `lbproxy_backend_errors_total`; absent: none |

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::bytes::resolve;

/// A request case.
#[derive(Debug, Clone, Default)]
pub struct RequestCase {
    /// Where it stands.
    pub place: Place,
    /// What the client sends.
    pub send: Vec<u8>,
    /// To which listener.
    pub listener: String,
    /// The client ends its sending side.
    pub ends: bool,
    /// Statuses of the final responses.
    pub answers: Vec<u16>,
    /// Label of the refusal.
    pub reason: Option<String>,
    /// The proxy ends the connection.
    pub closes: bool,
    /// The whole requests at the backend.
    pub reaches: Vec<Reached>,
    /// What reaches no backend.
    pub never: Vec<Vec<u8>>,
    /// An incomplete request may have begun.
    pub partial: bool,
    /// What goes through the tunnel.
    pub tunnel: Option<Vec<u8>>,
}

/// A request as it must reach the backend.
#[derive(Debug, Clone, Default)]
pub struct Reached {
    /// Request line.
    pub line: String,
    /// Body.
    pub body: Vec<u8>,
    /// Trailer lines.
    pub trailers: Vec<String>,
    /// Lines of the head.
    pub has: Vec<String>,
    /// Names that are not in the head.
    pub lacks: Vec<String>,
    /// Cluster.
    pub at: String,
}

/// A response case.
#[derive(Debug, Clone, Default)]
pub struct ResponseCase {
    /// Where it stands.
    pub place: Place,
    /// What the client sends.
    pub request: Vec<u8>,
    /// What the backend sends.
    pub backend: Vec<u8>,
    /// Before a request has come.
    pub on_accept: bool,
    /// What the client sends once it has a head.
    pub rest: Vec<u8>,
    /// What the backend sends once it has the whole request.
    pub finish: Vec<u8>,
    /// What becomes of the backend's connection.
    pub then: Then,
    /// Bytes behind the answer.
    pub later: Vec<u8>,
    /// Final status at the client.
    pub status: u16,
    /// Statuses before it.
    pub interim: Vec<u16>,
    /// Body at the client.
    pub body: Option<Vec<u8>>,
    /// Not cut.
    pub whole: bool,
    /// Lines of the head at the client.
    pub has: Vec<String>,
    /// Names that are not in it.
    pub lacks: Vec<String>,
    /// What the client never gets.
    pub never: Vec<Vec<u8>>,
    /// Trailer lines at the client.
    pub trailers: Vec<String>,
    /// The backend's connection is used again.
    pub reused: Option<bool>,
    /// Label of the refusal.
    pub reason: Option<String>,
    /// Label of the backend's error.
    pub error: Option<String>,
}

/// What becomes of a backend's connection behind what it sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Then {
    /// It stays open.
    #[default]
    Keep,
    /// It is closed in order.
    Close,
    /// It is reset.
    Reset,
}

/// Which case it is.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// File, from the directory of the corpus.
    pub file: String,
    /// Name.
    pub name: String,
    /// Section or class.
    pub source: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: `{}`", self.file, self.name)
    }
}

/// All request cases.
///
/// # Errors
/// Everything that is wrong with the files.
pub fn requests() -> Result<Vec<RequestCase>, String> {
    cases("requests", request_case)
}

/// All response cases.
///
/// # Errors
/// Everything that is wrong with the files.
pub fn responses() -> Result<Vec<ResponseCase>, String> {
    cases("responses", response_case)
}

/// The response cases of one text.
///
/// # Errors
/// Everything that is wrong with it.
pub fn responses_of(file: &str, text: &str) -> Result<Vec<ResponseCase>, String> {
    cases_of(file, text, response_case)
}

/// The request cases of one text.
///
/// # Errors
/// Everything that is wrong with it.
pub fn requests_of(file: &str, text: &str) -> Result<Vec<RequestCase>, String> {
    cases_of(file, text, request_case)
}

fn cases<C>(directory: &str, make: fn(&Entry<'_>) -> Result<C, String>) -> Result<Vec<C>, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut cases = Vec::new();
    let mut wrong = Vec::new();
    for path in files(&root.join(directory)) {
        let file = path.strip_prefix(&root).unwrap().display().to_string();
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{file}: {e}"))?;
        match cases_of(&file, &text, make) {
            Ok(more) => cases.extend(more),
            Err(errors) => wrong.push(errors),
        }
    }
    if wrong.is_empty() {
        Ok(cases)
    } else {
        Err(wrong.join("\n"))
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    files.sort();
    files
}

fn cases_of<C>(
    file: &str,
    text: &str,
    make: fn(&Entry<'_>) -> Result<C, String>,
) -> Result<Vec<C>, String> {
    if !text.starts_with("# ") {
        return Err(format!("{file}: no comment at its head"));
    }
    let root = DeTable::parse(text).map_err(|e| format!("{file}: {e}"))?;
    let root = root.get_ref();
    let list = root
        .get("case")
        .and_then(|value| value.get_ref().as_array());
    let Some(list) = list.filter(|_| root.len() == 1) else {
        return Err(format!("{file}: something other than [[case]]"));
    };
    let mut cases = Vec::new();
    let mut wrong = Vec::new();
    for (i, value) in list.iter().enumerate() {
        match Entry::new(file, i + 1, value.get_ref()).and_then(|entry| make(&entry)) {
            Ok(case) => cases.push(case),
            Err(error) => wrong.push(error),
        }
    }
    if wrong.is_empty() {
        Ok(cases)
    } else {
        Err(wrong.join("\n"))
    }
}

fn request_case(entry: &Entry<'_>) -> Result<RequestCase, String> {
    entry.only(&[
        "name", "source", "send", "listener", "ends", "answers", "reason", "closes", "reaches",
        "never", "partial", "tunnel",
    ])?;
    let case = RequestCase {
        place: entry.place()?,
        send: entry.need("send", entry.bytes("send")?)?,
        listener: entry.text("listener")?.unwrap_or("default").to_owned(),
        ends: entry.flag("ends")?.unwrap_or(false),
        answers: entry.need("answers", entry.statuses("answers")?)?,
        reason: entry.text("reason")?.map(str::to_owned),
        closes: entry.need("closes", entry.flag("closes")?)?,
        reaches: entry
            .tables("reaches")?
            .iter()
            .map(reached)
            .collect::<Result<_, _>>()?,
        never: entry.list("never", Entry::resolved)?,
        partial: entry.flag("partial")?.unwrap_or(false),
        tunnel: entry.bytes("tunnel")?,
    };
    let served = case.answers.iter().filter(|s| [101, 200].contains(s));
    if served.count() != case.reaches.len() {
        return Err(entry.wrong("as many answers of the backend as requests that reach it"));
    }
    if case.tunnel.is_some() != (case.answers.last() == Some(&101)) {
        return Err(entry.wrong("`tunnel` and a last answer 101 belong together"));
    }
    Ok(case)
}

fn reached(entry: &Entry<'_>) -> Result<Reached, String> {
    entry.only(&["line", "body", "trailers", "has", "lacks", "at"])?;
    Ok(Reached {
        line: entry.need("line", entry.string("line")?)?,
        body: entry.bytes("body")?.unwrap_or_default(),
        trailers: entry.list("trailers", Entry::resolved_text)?,
        has: entry.list("has", Entry::resolved_text)?,
        lacks: entry.list("lacks", Entry::resolved_text)?,
        at: entry.text("at")?.unwrap_or("default").to_owned(),
    })
}

fn response_case(entry: &Entry<'_>) -> Result<ResponseCase, String> {
    entry.only(&[
        "name", "source", "request", "backend", "when", "rest", "finish", "then", "later",
        "status", "interim", "body", "whole", "has", "lacks", "never", "trailers", "reused",
        "reason", "error",
    ])?;
    let request = entry.bytes("request")?;
    Ok(ResponseCase {
        place: entry.place()?,
        request: request.unwrap_or_else(|| b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        backend: entry.need("backend", entry.bytes("backend")?)?,
        on_accept: match entry.text("when")? {
            None => false,
            Some("accept") => true,
            Some(_) => return Err(entry.wrong("`when` is \"accept\" or absent")),
        },
        then: match entry.text("then")? {
            None | Some("keep") => Then::Keep,
            Some("close") => Then::Close,
            Some("reset") => Then::Reset,
            Some(_) => return Err(entry.wrong("`then` is \"keep\", \"close\" or \"reset\"")),
        },
        rest: entry.bytes("rest")?.unwrap_or_default(),
        finish: entry.bytes("finish")?.unwrap_or_default(),
        later: entry.bytes("later")?.unwrap_or_default(),
        status: entry.need("status", entry.number("status")?)?,
        interim: entry.statuses("interim")?.unwrap_or_default(),
        body: entry.bytes("body")?,
        whole: entry.flag("whole")?.unwrap_or(true),
        has: entry.list("has", Entry::resolved_text)?,
        lacks: entry.list("lacks", Entry::resolved_text)?,
        never: entry.list("never", Entry::resolved)?,
        trailers: entry.list("trailers", Entry::resolved_text)?,
        reused: entry.flag("reused")?,
        reason: entry.text("reason")?.map(str::to_owned),
        error: entry.text("error")?.map(str::to_owned),
    })
}

/// A table of the file, with the words for an error in it.
struct Entry<'t> {
    table: &'t DeTable<'t>,
    place: String,
}

impl<'t> Entry<'t> {
    fn new(file: &str, number: usize, value: &'t DeValue<'t>) -> Result<Self, String> {
        let place = format!("{file}: case {number}");
        let table = value.as_table().ok_or(format!("{place}: no table"))?;
        let name = table.get("name").and_then(|name| name.get_ref().as_str());
        Ok(Self {
            table,
            place: name.map_or(place, |name| format!("{file}: `{name}`")),
        })
    }

    fn place(&self) -> Result<Place, String> {
        Ok(Place {
            file: self.place.split(':').next().unwrap_or_default().to_owned(),
            name: self.need("name", self.text("name")?)?.to_owned(),
            source: self.need("source", self.text("source")?)?.to_owned(),
        })
    }

    fn wrong(&self, what: &str) -> String {
        format!("{}: {what}", self.place)
    }

    fn only(&self, known: &[&str]) -> Result<(), String> {
        let known: BTreeSet<&str> = known.iter().copied().collect();
        let mut keys = self.table.keys().map(|key| key.get_ref().as_ref());
        match keys.find(|key| !known.contains(key)) {
            None => Ok(()),
            Some(key) => Err(self.wrong(&format!("unknown key `{key}`"))),
        }
    }

    fn need<T>(&self, key: &str, value: Option<T>) -> Result<T, String> {
        value.ok_or_else(|| self.wrong(&format!("no `{key}`")))
    }

    /// The value of `key`, as `read` takes it.
    fn get<T>(
        &self,
        key: &str,
        read: impl FnOnce(&'t DeValue<'t>) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.table.get(key) else {
            return Ok(None);
        };
        match read(value.get_ref()) {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong(&format!("`{key}` is of another type"))),
        }
    }

    fn text(&self, key: &str) -> Result<Option<&'t str>, String> {
        self.get(key, DeValue::as_str)
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        self.get(key, DeValue::as_bool)
    }

    fn number(&self, key: &str) -> Result<Option<u16>, String> {
        self.get(key, status)
    }

    fn statuses(&self, key: &str) -> Result<Option<Vec<u16>>, String> {
        self.get(key, |value| {
            value
                .as_array()?
                .iter()
                .map(|v| status(v.get_ref()))
                .collect()
        })
    }

    fn bytes(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let text = self.text(key)?;
        text.map(|text| self.resolved(text)).transpose()
    }

    fn string(&self, key: &str) -> Result<Option<String>, String> {
        let text = self.text(key)?;
        text.map(|text| self.resolved_text(text)).transpose()
    }

    fn resolved(&self, text: &str) -> Result<Vec<u8>, String> {
        resolve(text).map_err(|e| self.wrong(&e))
    }

    /// Bytes beyond ASCII as one character each.
    fn resolved_text(&self, text: &str) -> Result<String, String> {
        Ok(super::bytes::latin1(&self.resolved(text)?))
    }

    fn list<T>(
        &self,
        key: &str,
        read: fn(&Self, &str) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let texts = self.get(key, |value| {
            let texts = value.as_array()?.iter().map(|v| v.get_ref().as_str());
            texts.collect::<Option<Vec<&str>>>()
        })?;
        let texts = texts.unwrap_or_default();
        texts.into_iter().map(|text| read(self, text)).collect()
    }

    fn tables(&self, key: &str) -> Result<Vec<Self>, String> {
        let tables = self.get(key, |value| {
            let entry = |table| Self {
                table,
                place: format!("{}: {key}", self.place),
            };
            let tables = value.as_array()?.iter();
            let tables = tables.map(|v| v.get_ref().as_table().map(entry));
            tables.collect::<Option<Vec<Self>>>()
        })?;
        Ok(tables.unwrap_or_default())
    }
}

fn status(value: &DeValue<'_>) -> Option<u16> {
    let number = value.as_integer()?;
    number.to_string().parse().ok()
}
