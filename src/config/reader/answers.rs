//! What the proxy answers itself: `redirect`, `respond` and `errors`, on listeners and on routes.

use std::path::Path;
use std::sync::Arc;

use toml::de::DeValue;

use super::{Reader, Slot, Table};
use crate::config::diagnostics::findings::quoted;
use crate::config::grammar;
use crate::config::sections;
use crate::model::page::{ErrorPages, Page};
use crate::model::route_action::RouteAction;

/// An answer of the proxy is a word to a person or a probe, not a site.
const MAX_BODY: usize = 64 << 10;
/// A page may have its style in it.
const MAX_PAGE: usize = 1 << 20;
/// Fields of an answer.
const MAX_FIELDS: usize = 64;
const MAX_FIELD_BYTES: usize = 8 << 10;
const REDIRECTS: [u64; 5] = [301, 302, 303, 307, 308];
const REDIRECT_CODES: &str = "301, 302, 303, 307 or 308";
const TEXT: &str = "text/plain; charset=utf-8";
/// What the extension of a file says of its content.
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
/// Fields that say how a message is framed, or that the proxy writes itself.
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

/// At most one of `cluster`, `redirect` and `respond` of `table`; the second is an error.
pub(super) fn only_one(r: &mut Reader<'_>, table: &Table<'_>) -> bool {
    let given: Vec<Slot<'_>> = ["cluster", "redirect", "respond"]
        .into_iter()
        .filter_map(|key| table.get(key))
        .collect();
    if let [first, second, ..] = given[..] {
        let message = format!("{} has {first} and {second}", table.section.name);
        let label = "expected only one of `cluster`, `redirect` or `respond`";
        r.error(second.place(), message, label);
    }
    !given.is_empty()
}

/// `"https://{host}{uri}"` or `{ to = "https://{host}{uri}", status = 308 }`.
pub(super) fn redirect(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Option<RouteAction<String>> {
    let expected = "a URL such as \"https://{host}{uri}\"";
    let slot = slot?;
    if let DeValue::String(_) = slot.value.get_ref() {
        let to = r.parsed(Some(slot), expected, grammar::template)?;
        return Some(RouteAction::Redirect { to, status: 308 });
    }
    if !matches!(slot.value.get_ref(), DeValue::Table(_)) {
        r.wrong_type(&slot, &format!("{expected}, or {{ to = …, status = … }}"));
        return None;
    }
    let table = r.table(Some(slot), &sections::REDIRECT)?;
    let to = r.required(&table, "to", expected);
    let to = r.parsed(to, expected, grammar::template);
    let status_slot = table.get("status");
    let status = r.number(status_slot, REDIRECT_CODES, |code| {
        REDIRECTS.contains(&code)
    });
    Some(RouteAction::Redirect {
        to: to?,
        status: status.unwrap_or(308) as u16,
    })
}

/// `{ status = 200, body = "ok" }`, also with `file`, `content_type` and `headers`.
pub(super) fn respond(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Option<RouteAction<String>> {
    let table = r.table(slot, &sections::RESPOND)?;
    let status = r
        .integer(table.get("status"), 200..=599)
        .map_or(200, |status| status as u16);
    let (body, file) = (table.get("body"), table.get("file"));
    if let (Some(body), Some(file)) = (body, file) {
        let message = format!("{file} beside {body}");
        r.error(file.place(), message, "expected only one of the two");
    }
    let content_type_slot = table.get("content_type");
    let expected = "a type such as \"application/json\"";
    let content_type = r.parsed(content_type_slot, expected, |text| match text {
        "" => Err(format!("expected {expected}")),
        _ => field_line(text),
    });
    let page = self::body(r, body).or_else(|| page(r, file));
    if let (Some(slot), Some(page)) = (body.or(file), &page)
        && matches!(status, 204 | 205 | 304)
        && !page.body.is_empty()
    {
        let message = format!("{slot} beside status {status}");
        let label = "an answer with this status has no body";
        r.warning(slot.place(), message, label);
    }
    let page = match (page, content_type) {
        (Some(page), Some(content_type)) => Some(Page {
            content_type,
            ..page
        }),
        (None, Some(_)) if body.is_none() && file.is_none() => {
            if let Some(slot) = content_type_slot {
                let message = format!("{slot} without `body` or `file`");
                r.warning(slot.place(), message, "the answer has no content");
            }
            None
        }
        (page, _) => page,
    };
    Some(RouteAction::Respond {
        status,
        fields: fields(r, table.get("headers")).into(),
        page: page.map(Arc::new),
    })
}

fn body(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Option<Page> {
    let text = r.string(slot, "text")?;
    let slot = slot?;
    if text.len() > MAX_BODY {
        let message = format!("{slot} has {} bytes", text.len());
        let label = format!("expected at most {MAX_BODY}");
        r.error(slot.place(), message, label);
    }
    Some(Page {
        content_type: TEXT.to_owned(),
        body: text.as_bytes().into(),
    })
}

/// What a file holds, with the type that its extension says.
fn page(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> Option<Page> {
    let body = r.content(slot, MAX_PAGE)?;
    let name = slot?.value.get_ref().as_str().unwrap_or_default();
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

/// Whole lines of fields.
fn fields(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> String {
    let Some(slot) = slot else {
        return String::new();
    };
    let DeValue::Table(entries) = slot.value.get_ref() else {
        r.wrong_type(&slot, "a table such as { \"Retry-After\" = \"30\" }");
        return String::new();
    };
    let mut lines = String::new();
    for (key, value) in entries {
        let name = key.get_ref().as_ref();
        let known = grammar::field_name(name).and_then(|lower| {
            match OWN_FIELDS.contains(&lower.as_str()) {
                true => Err("expected a field that the proxy does not write itself".to_owned()),
                false => Ok(()),
            }
        });
        if let Err(label) = known {
            let message = format!("{} is not a field for {slot}", quoted(name));
            r.error(key.span(), message, label);
            continue;
        }
        let entry = Slot {
            name,
            entry: false,
            value,
        };
        if let Some(value) = r.parsed(Some(entry), "a value such as \"30\"", field_line) {
            lines.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if entries.len() > MAX_FIELDS || lines.len() > MAX_FIELD_BYTES {
        let message = format!(
            "{slot} has {} fields of {} bytes",
            entries.len(),
            lines.len()
        );
        let label = format!("expected at most {MAX_FIELDS}, of {MAX_FIELD_BYTES} bytes together");
        r.error(slot.place(), message, label);
    }
    lines
}

/// A field's value that can be sent as it is.
fn field_line(text: &str) -> Result<String, String> {
    let value = grammar::field_value(text)?;
    match value.is_ascii() {
        true => Ok(value),
        false => Err("expected ASCII characters".to_owned()),
    }
}

/// `{ 4xx = "client.json", 503 = "sorry.html" }`.
pub(super) fn errors(r: &mut Reader<'_>, slot: Option<Slot<'_>>) -> ErrorPages {
    let mut pages = ErrorPages::default();
    let Some(slot) = slot else { return pages };
    let DeValue::Table(entries) = slot.value.get_ref() else {
        r.wrong_type(
            &slot,
            "a table such as { 4xx = \"client.json\", 503 = \"sorry.html\" }",
        );
        return pages;
    };
    for (key, value) in entries {
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
            let message = format!("{} is not a status for {slot}", quoted(name));
            let label = "expected `4xx`, `5xx` or a status from 400 to 599";
            r.error(key.span(), message, label);
            continue;
        }
        let entry = Slot {
            name,
            entry: false,
            value,
        };
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
