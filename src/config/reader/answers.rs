//! What the proxy answers itself: `redirect`, `respond` and `errors`, of listeners and routes.

use std::path::Path;
use std::sync::Arc;

use toml::de::DeValue;

use super::{CheckedTable, NamedValue, Reader, Setting};
use crate::config::diagnostics::findings::quoted;
use crate::config::grammar;
use crate::config::sections::answers::{ACTIONS, REDIRECT};
use crate::model::page::{ErrorPages, Page};
use crate::model::route_action::RouteAction;

/// Bytes of `body`: a response of the proxy is a word to a person or a probe, not a site.
const MAX_BODY: usize = 64 << 10;
/// Bytes of a file: a page may contain its style.
const MAX_PAGE: usize = 1 << 20;
/// Fields of a response.
const MAX_FIELDS: usize = 64;
/// Bytes of all fields of a response.
const MAX_FIELD_BYTES: usize = 8 << 10;
const TEXT: &str = "text/plain; charset=utf-8";
/// The types of contents that extensions of files stand for.
const TYPES: [(&str, &str); 16] = [
    ("css", "text/css; charset=utf-8"),
    ("gif", "image/gif"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("md", "text/markdown; charset=utf-8"),
    ("pem", "application/x-pem-file"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("txt", TEXT),
    ("webp", "image/webp"),
    ("xml", "application/xml"),
];
/// Fields that frame a message or that the proxy writes itself.
const OWN_FIELDS: [&str; 13] = [
    "connection",
    "content-length",
    "content-type",
    "date",
    "keep-alive",
    "location",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-request-id",
];

/// Whether the table has one of `cluster`, `redirect` and `respond`; a second one is an error.
pub(super) fn at_most_one_action(r: &mut Reader<'_>, table: &CheckedTable<'_>) -> bool {
    let given = ACTIONS.into_iter().filter_map(|key| table.value(key));
    let given: Vec<NamedValue<'_>> = given.collect();
    if let [first, second, ..] = given[..] {
        let message = format!("{} has {first} and {second}", table.section.name);
        let label = "expected only one of `cluster`, `redirect` or `respond`";
        r.error(second.span(), message, label);
    }
    !given.is_empty()
}

/// `"https://{host}{uri}"` or `{ to = "https://{host}{uri}", status = 308 }`.
pub(super) fn redirect(
    r: &mut Reader<'_>,
    value: Option<NamedValue<'_>>,
) -> Option<RouteAction<String>> {
    let value = value?;
    let table = match value.get() {
        DeValue::Table(_) => r.table_of(value, &REDIRECT)?,
        _ => CheckedTable::empty(&REDIRECT, value.span()),
    };
    let to = match value.get() {
        DeValue::Table(_) => r.required(&table, "to"),
        _ => Some(value),
    };
    let to = r.parsed(to, grammar::template);
    let status = r.number(table.get("status"));
    Some(RouteAction::Redirect { to: to?, status })
}

/// `{ status = 200, body = "ok" }`, also with `file`, `content_type` and `headers`.
pub(super) fn respond(r: &mut Reader<'_>, setting: Setting<'_>) -> Option<RouteAction<String>> {
    let table = r.table(setting)?;
    let status = r.number(table.get("status"));
    let (body, file) = (table.value("body"), table.value("file"));
    if let (Some(body), Some(file)) = (body, file) {
        let message = format!("{file} beside {body}");
        r.error(file.span(), message, "expected only one of the two");
    }
    let page = self::body(r, body).or_else(|| page(r, file));
    if let (Some(content), Some(page)) = (body.or(file), &page)
        && matches!(status, 204 | 205 | 304)
        && !page.body.is_empty()
    {
        let message = format!("{content} beside status {status}");
        let label = "a response with this status has no body";
        r.warning(content.span(), message, label);
    }
    let content_type = r.parsed(table.value("content_type"), content_type);
    let page = match (page, content_type) {
        (Some(page), Some(content_type)) => Some(Page {
            content_type,
            ..page
        }),
        (None, Some(_)) if body.is_none() && file.is_none() => {
            if let Some(value) = table.value("content_type") {
                let message = format!("{value} without `body` or `file`");
                r.warning(value.span(), message, "the response has no content");
            }
            None
        }
        (page, _) => page,
    };
    Some(RouteAction::Respond {
        status,
        fields: fields(r, table.value("headers")).into(),
        page: page.map(Arc::new),
    })
}

fn body(r: &mut Reader<'_>, value: Option<NamedValue<'_>>) -> Option<Page> {
    let text = r.string(value)?;
    let value = value?;
    if text.len() > MAX_BODY {
        let message = format!("{value} has {} bytes", text.len());
        let label = format!("expected at most {MAX_BODY}");
        r.error(value.span(), message, label);
    }
    Some(Page {
        content_type: TEXT.to_owned(),
        body: text.as_bytes().into(),
    })
}

/// The content of a file, with the type that its extension stands for.
fn page(r: &mut Reader<'_>, value: Option<NamedValue<'_>>) -> Option<Page> {
    let body = r.content(value, MAX_PAGE)?;
    let name = value?.get().as_str().unwrap_or_default();
    let extension = Path::new(name).extension().unwrap_or_default();
    let known = TYPES
        .iter()
        .find(|(known, _)| extension.eq_ignore_ascii_case(known));
    Some(Page {
        content_type: known
            .map_or("application/octet-stream", |(_, known)| *known)
            .to_owned(),
        body,
    })
}

/// `headers`, as whole lines.
fn fields(r: &mut Reader<'_>, value: Option<NamedValue<'_>>) -> String {
    let Some(value) = value else {
        return String::new();
    };
    let DeValue::Table(entries) = value.get() else {
        r.wrong_type(&value, value.shape);
        return String::new();
    };
    let mut lines = String::new();
    for (key, entry) in entries {
        let name = key.get_ref().as_ref();
        let known = grammar::field_name(name).and_then(|lower| {
            match OWN_FIELDS.contains(&lower.as_str()) {
                true => Err("expected a field that the proxy does not write itself".to_owned()),
                false => Ok(()),
            }
        });
        if let Err(label) = known {
            let message = format!("{} is not a field for {value}", quoted(name));
            r.error(key.span(), message, label);
            continue;
        }
        let entry = NamedValue::of_entry(name, "a value such as \"30\"", entry);
        if let Some(value) = r.parsed(Some(entry), field_line) {
            lines.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if entries.len() > MAX_FIELDS || lines.len() > MAX_FIELD_BYTES {
        let message = format!(
            "{value} has {} fields of {} bytes",
            entries.len(),
            lines.len()
        );
        let label = format!("expected at most {MAX_FIELDS}, of {MAX_FIELD_BYTES} bytes together");
        r.error(value.span(), message, label);
    }
    lines
}

/// A field value that can be sent as it is.
fn field_line(text: &str) -> Result<String, String> {
    let value = grammar::field_value(text)?;
    match value.is_ascii() {
        true => Ok(value),
        false => Err("expected ASCII characters".to_owned()),
    }
}

fn content_type(text: &str) -> Result<String, String> {
    match text {
        "" => Err("expected a type such as \"application/json\"".to_owned()),
        _ => field_line(text),
    }
}

/// `{ 4xx = "client.json", 503 = "sorry.html" }`.
pub(super) fn errors(r: &mut Reader<'_>, value: Option<NamedValue<'_>>) -> ErrorPages {
    let mut pages = ErrorPages::default();
    let Some(value) = value else { return pages };
    let DeValue::Table(entries) = value.get() else {
        r.wrong_type(&value, value.shape);
        return pages;
    };
    for (key, entry) in entries {
        let name = key.get_ref().as_ref();
        let class = match name {
            "4xx" => Some(4),
            "5xx" => Some(5),
            _ => None,
        };
        let status = (name.len() == 3)
            .then(|| name.parse().ok())
            .flatten()
            .filter(|status| (400..=599).contains(status));
        if class.is_none() && status.is_none() {
            let message = format!("{} is not a status for {value}", quoted(name));
            let label = "expected `4xx`, `5xx` or a status from 400 to 599";
            r.error(key.span(), message, label);
            continue;
        }
        let entry = NamedValue::of_entry(name, "the path of a file", entry);
        let Some(page) = page(r, Some(entry)).map(Arc::new) else {
            continue;
        };
        match (class, status) {
            (Some(class), _) => pages.add_class(class, page),
            (None, status) => pages.add(status.unwrap_or_default(), page),
        }
    }
    pages
}
