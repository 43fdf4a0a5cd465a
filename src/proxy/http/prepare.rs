//! classify → route: bytes of a client become a request that is ready to be sent, or an answer of our own.
//!
//! One synchronous step. The head is parsed where it was read, the first matching route found, and the head that goes
//! to the backend written into the exchange, with the body bytes that came along.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::warn;

use super::date::DateLine;
use super::exchange::Exchange;
use super::forwarding::{client_address, given_id};
use super::headers::{Said, write_request};
use super::hops::ProcessId;
use super::reply::Reply;
use super::seen::Seen;
use crate::balance::Random;
use crate::http1::field::FieldName;
use crate::http1::head::{Field, HeadLimits};
use crate::http1::request::{self, RequestHead, split_host};
use crate::model::route_action::RouteAction;
use crate::proxy::accept::ClientGuard;
use crate::proxy::load::Held;
use crate::proxy::worker::Worker;
use crate::route::RequestView;
use crate::route::host::{HOST_BYTES, canonical};
use crate::snapshot::{ClusterIndex, Listener};
use crate::telemetry::outcome::Reason;

/// Where a worker parses and writes heads.
#[derive(Debug, Default)]
pub struct HeadSpace {
    /// Fields of the head at hand.
    pub fields: Vec<Field>,
    /// A head on its way to a client.
    pub out: Vec<u8>,
    /// The Date of a response that has none.
    pub date: DateLine,
}

/// What became of the bytes.
#[derive(Debug)]
pub enum Prepared {
    /// Half a head.
    Incomplete,
    /// A request for the cluster that the exchange names.
    Forward,
    /// An answer of our own.
    Answer(Reply),
}

/// Where and when a request comes in.
pub struct Arrival<'a> {
    /// The generation that it sees, and the listener's place in it.
    pub view: &'a (Held, usize),
    /// The other side of the socket.
    pub peer: Option<IpAddr>,
    /// Now.
    pub now: Instant,
    /// Now, in the milliseconds of the worker's table.
    pub now_ms: u64,
    /// For the request's id.
    pub random: &'a Random,
    /// The id of this process.
    pub process: &'a ProcessId,
}

/// Takes one request from the beginning of `buffer` into `exchange`. Returns what it is and how many bytes it took;
/// what lies behind them is untouched.
pub(crate) fn prepare(
    worker: &Worker,
    client: &ClientGuard,
    buffer: &mut [u8],
    exchange: &mut Exchange,
) -> (Prepared, usize) {
    let now = Instant::now();
    worker.sessions.tell_time(now);
    let arrival = Arrival {
        view: &client.running.view(worker),
        peer: client.peer.map(|peer| peer.ip()),
        now,
        now_ms: worker.sessions.now(),
        random: &worker.random,
        process: &worker.shared.id,
    };
    understand(
        &arrival,
        &mut worker.head_space.borrow_mut(),
        buffer,
        exchange,
    )
}

/// What [`prepare`] does, without a worker.
pub fn understand(
    arrival: &Arrival<'_>,
    space: &mut HeadSpace,
    buffer: &mut [u8],
    exchange: &mut Exchange,
) -> (Prepared, usize) {
    let (held, place) = arrival.view;
    let listener = &held.listeners[*place];
    let limits = HeadLimits {
        bytes: listener.limits.header_bytes,
        fields: listener.limits.headers,
        target: listener.limits.uri_bytes,
    };
    let head = match request::parse(buffer, &limits, &mut space.fields) {
        Ok(None) => return (Prepared::Incomplete, 0),
        Ok(Some(head)) => head,
        Err(refusal) => {
            exchange.view = Some(arrival.view.clone());
            exchange.facts.started = Some(arrival.now);
            exchange.facts.is_head = request::begins_with_head(buffer);
            give_id(exchange, arrival.random);
            return (Prepared::Answer(Reply::refusal(refusal)), buffer.len());
        }
    };
    exchange.begin(&head, listener, arrival.now, arrival.now_ms);
    let client = client_address(
        arrival.peer,
        &listener.trusted_proxies,
        buffer,
        &space.fields,
    );
    exchange.facts.client = client.known();
    exchange.facts.client_unknown = client.known().is_none();
    let seen = Seen {
        head: &head,
        buffer,
        fields: &space.fields,
        trusted: listener.trusted_proxies.trusts(arrival.peer),
    };
    match given_id(buffer, &space.fields).filter(|_| seen.trusted) {
        Some(given) => exchange.capture.id = exchange.capture.keep(given),
        None => give_id(exchange, arrival.random),
    }
    if held.access_log {
        capture(exchange, &seen, held.access_query);
    }
    let len = head.len;
    let answer = match route(listener, &seen, client.known(), exchange) {
        _ if exchange.announces_too_much() => Some(Reply::failure(Reason::BodyTooLarge, true)),
        _ if head.max_forwards == Some(0) => Some(Reply::options()),
        Routed::Cluster(index) => {
            exchange.facts.cluster = Some(index);
            exchange.facts.key = seen.key(held.cluster(index), client.nearest);
            if write_out(arrival, &seen, exchange) {
                None
            } else {
                Some(Reply::failure(Reason::Loop, true))
            }
        }
        Routed::Answer(reply) => Some(reply),
    };
    exchange.view = Some(arrival.view.clone());
    take_body(buffer, len, exchange, answer)
}

/// Writes the head that goes to the backend, unless the request has been here before.
fn write_out(arrival: &Arrival<'_>, seen: &Seen<'_>, exchange: &mut Exchange) -> bool {
    let (held, place) = arrival.view;
    let said = Said {
        peer: arrival.peer,
        id: exchange.capture.get(&exchange.capture.id),
        process: arrival.process,
        via: exchange.facts.via,
    };
    let written = write_request(&mut exchange.out, seen, &said);
    exchange.facts.host_gap = written.host_gap;
    if let Some(field) = written.removed.and_then(|field| seen.fields.get(field)) {
        let name = field.name_in(seen.buffer);
        tell_once_of_forwarding(&held.listeners[*place], arrival.peer, name);
    }
    !written.loops
}

/// Gives the request an id of ours.
pub(super) fn give_id(exchange: &mut Exchange, random: &Random) {
    exchange.capture.id = exchange.capture.keep(&request_id(random));
}

/// Takes the part of the body that came along.
fn take_body(
    buffer: &mut [u8],
    len: usize,
    exchange: &mut Exchange,
    answer: Option<Reply>,
) -> (Prepared, usize) {
    match (
        exchange.take_early_body(&mut buffer[len..], answer.is_none()),
        answer,
    ) {
        (Ok(taken), Some(mut reply)) => {
            // An answer of our own does not wait for a body that nobody reads.
            reply.close |= !exchange.has_whole_request() || !exchange.facts.keep_alive;
            exchange.facts.bytes_in = (len + taken) as u64;
            (Prepared::Answer(reply), len + taken)
        }
        (Ok(taken), None) => {
            exchange.facts.bytes_in = (len + taken) as u64;
            (Prepared::Forward, len + taken)
        }
        (Err(reason), _) => (Prepared::Answer(Reply::failure(reason, true)), buffer.len()),
    }
}

enum Routed {
    Cluster(ClusterIndex),
    Answer(Reply),
}

fn route(
    listener: &Listener,
    seen: &Seen<'_>,
    client: Option<IpAddr>,
    exchange: &mut Exchange,
) -> Routed {
    let head = seen.head;
    let mut room = [0; HOST_BYTES];
    let host = canonical(split_host(head.host.unwrap_or(b"")).0, &mut room);
    let view = RequestView {
        method: head.method,
        host,
        path: head.path(),
        query: head.query(),
        client,
        fields: seen,
    };
    if listener.routes.is_ambiguous(&view) {
        return Routed::Answer(Reply::failure(Reason::AmbiguousPath, true));
    }
    match listener.routes.find(&view) {
        Some((index, target)) => {
            exchange.facts.route = Some(index);
            exchange.limit_total(target.timeout);
            exchange.limit_body(target.body_bytes);
            follow(&target.action, head, host)
        }
        None => match (listener.cluster, &listener.answer) {
            (Some(cluster), _) => Routed::Cluster(cluster),
            (None, Some(answer)) => follow(answer, head, host),
            (None, None) => Routed::Answer(Reply::failure(Reason::NoRoute, false)),
        },
    }
}

fn follow(action: &RouteAction<ClusterIndex>, head: &RequestHead<'_>, host: &[u8]) -> Routed {
    match action {
        RouteAction::Cluster(index) => Routed::Cluster(*index),
        // Without its host a Location would lead elsewhere (RFC 9110 10.2.2), and one without scheme and host perhaps
        // back to where the client came from.
        RouteAction::Redirect { to, .. } if host.is_empty() && to.contains("{host}") => {
            Routed::Answer(Reply::failure(Reason::BadHost, false))
        }
        RouteAction::Redirect { to, status } => {
            Routed::Answer(Reply::redirect(*status, expand(to, head, host)))
        }
        RouteAction::Respond {
            status,
            fields,
            page,
        } => Routed::Answer(Reply::given(*status, fields, page.as_ref())),
    }
}

/// Fills `{host}`, `{uri}`, `{path}` and `{query}`; none of them can hold a line end. The `*` of OPTIONS stands for no
/// path (RFC 9112 3.2.4).
fn expand(template: &str, head: &RequestHead<'_>, host: &[u8]) -> Vec<u8> {
    let (uri, path) = match head.target {
        b"*" => (&b""[..], &b""[..]),
        target => (target, head.path()),
    };
    let mut out = Vec::with_capacity(template.len() + head.target.len());
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        out.extend_from_slice(&rest.as_bytes()[..open]);
        rest = &rest[open..];
        let Some(close) = rest.find('}') else { break };
        match &rest[1..close] {
            "host" => out.extend_from_slice(host),
            "uri" => out.extend_from_slice(uri),
            "path" => out.extend_from_slice(path),
            "query" => out.extend_from_slice(head.query().unwrap_or(b"")),
            other => {
                out.push(b'{');
                out.extend_from_slice(other.as_bytes());
                out.push(b'}');
            }
        }
        rest = &rest[close + 1..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// 64 random bits in hexadecimal digits.
pub(crate) fn process_id(random: &Random) -> ProcessId {
    let mut id = [0; 16];
    fill(&mut id, random);
    id
}

/// 128 random bits in hexadecimal digits.
fn request_id(random: &Random) -> [u8; 32] {
    let mut id = [0; 32];
    fill(&mut id, random);
    id
}

/// Fills `id`, whose length is a multiple of 16, with random hexadecimal digits.
fn fill(id: &mut [u8], random: &Random) {
    for half in id.chunks_exact_mut(16) {
        let bits = random.next_u64();
        half[..8].copy_from_slice(&hexadecimal(bits as u32));
        half[8..].copy_from_slice(&hexadecimal((bits >> 32) as u32));
    }
}

/// Eight digits, the lowest first, all at once: one in each byte.
fn hexadecimal(bits: u32) -> [u8; 8] {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let mut digits = u64::from(bits);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // Six more than a digit above 9 carries into the next four bits.
    let letters = (digits + ONES * 6) >> 4 & ONES;
    (digits + ONES * u64::from(b'0') + letters * u64::from(b'a' - b'0' - 10)).to_le_bytes()
}

/// Keeps what the access log shows of the head; with `query` all of target and referer, else up to `?`.
fn capture(exchange: &mut Exchange, seen: &Seen<'_>, query: bool) {
    let shown = |text: &'_ [u8]| match memchr::memchr(b'?', text) {
        Some(end) if !query => end,
        _ => text.len(),
    };
    let capture = &mut exchange.capture;
    capture.method = capture.keep(seen.head.method);
    capture.host = capture.keep(seen.head.host.unwrap_or(b""));
    capture.uri = capture.keep_uri(&seen.head.target[..shown(seen.head.target)]);
    let others = seen.fields.iter().filter(|f| f.name == FieldName::Other);
    for field in others {
        let name = field.name_in(seen.buffer);
        // Of several the first: a hundred of them must not be kept.
        if capture.user_agent.is_empty() && name.eq_ignore_ascii_case(b"user-agent") {
            capture.user_agent = capture.keep(field.value_in(seen.buffer));
        } else if capture.referer.is_empty() && name.eq_ignore_ascii_case(b"referer") {
            let value = field.value_in(seen.buffer);
            capture.referer = capture.keep(&value[..shown(value)]);
        }
    }
}

/// As much of a removed field's name as the log shows.
const SHOWN_NAME: usize = 64;

fn tell_once_of_forwarding(listener: &Listener, peer: Option<IpAddr>, name: &[u8]) {
    if !listener
        .state
        .warned_untrusted
        .swap(true, Ordering::Relaxed)
    {
        let name = String::from_utf8_lossy(&name[..name.len().min(SHOWN_NAME)]);
        let peer = peer.map_or_else(|| "unix:".to_owned(), |ip| ip.to_string());
        warn!(
            listener = %listener.name,
            peer,
            field = %name,
            "removed forwarding and overriding fields (X-Forwarded-*, X-Original-URL and the like) of a peer that is not \
             trusted; to believe it, add it or its network to the listener's trusted_proxies"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `template` filled for a request line to a.example.
    fn filled(template: &str, line: &str) -> String {
        let text = format!("{line} HTTP/1.1\r\nHost: A.example:80\r\n\r\n");
        let limits = HeadLimits {
            bytes: 1000,
            fields: 10,
            target: 100,
        };
        let head = request::parse(text.as_bytes(), &limits, &mut Vec::new())
            .unwrap()
            .unwrap();
        let mut room = [0; HOST_BYTES];
        let host = canonical(split_host(head.host.unwrap()).0, &mut room);
        String::from_utf8(expand(template, &head, host)).unwrap()
    }

    #[test]
    fn templates_are_filled() {
        for (template, line, expected) in [
            (
                "https://{host}{uri}",
                "GET /a/b?x=1",
                "https://a.example/a/b?x=1",
            ),
            (
                "{path}|{query}|{other}|{",
                "GET /a/b?x=1",
                "/a/b|x=1|{other}|{",
            ),
            ("/plain", "GET /a", "/plain"),
            // The whole server has no path.
            ("https://{host}{uri}", "OPTIONS *", "https://a.example"),
            ("https://{host}{path}", "OPTIONS *", "https://a.example"),
        ] {
            assert_eq!(filled(template, line), expected, "{line}");
        }
    }

    #[test]
    fn digits_are_hexadecimal() {
        assert_eq!(hexadecimal(0x7654_3210), *b"01234567");
        assert_eq!(hexadecimal(0xfedc_ba98), *b"89abcdef");
    }
}
