//! The verb route: bytes of a client become a request that is ready to be forwarded, or a reply of our own.
//!
//! One synchronous step. The head is parsed where it was read, the first matching route found, and the head that is
//! forwarded written down, with the payload that came along.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::client_address::{client_address, given_id};
use super::exchange::{Limits, SourceError};
use super::forwarded::ForwardedRequest;
use super::head::RequestEdits;
use super::in_flight::InFlight;
use super::reply::{Reply, reason_of};
use super::request::RequestInfo;
use crate::balance::Random;
use crate::http1::field::FieldName;
use crate::http1::head::{Field, HeadLimits};
use crate::http1::request::{self, RequestHead, split_host};
use crate::model::route_action::RouteAction;
use crate::proxy::loops::{ProcessId, fill_hexadecimal};
use crate::proxy::pick::{ListenerView, Routed};
use crate::route::RequestView;
use crate::route::host::{HOST_BYTES, canonical};
use crate::snapshot::{ClusterIndex, HttpListener, Listener, ListenerKind};
use crate::telemetry::outcome::Reason;

/// What became of the bytes.
#[derive(Debug)]
pub(super) enum Parsed {
    /// A part of a head.
    Incomplete,
    /// A request that is forwarded where its [`RequestContext`](super::request::RequestContext) says.
    Forward,
    /// A reply of our own.
    Reply(Box<Reply>),
    /// The listener no longer speaks HTTP.
    Gone,
}

/// Where and when a request comes in.
#[derive(Debug)]
pub(super) struct Arrival<'a> {
    /// What it sees.
    pub view: ListenerView,
    /// The other side of the socket.
    pub peer: Option<IpAddr>,
    /// The time.
    pub instant: Instant,
    /// The time, in the milliseconds of the worker's table.
    pub now: u64,
    /// For the request's id.
    pub random: &'a Random,
    /// The id of this process.
    pub process: &'a ProcessId,
}

/// Takes one request from the beginning of `buffer` into `state`. Returns what it is and how many bytes it took; what
/// follows them is untouched.
pub(crate) fn parse_and_route(
    arrival: Arrival<'_>,
    fields: &mut Vec<Field>,
    buffer: &mut [u8],
    state: &mut InFlight,
) -> (Parsed, usize) {
    let view = arrival.view.clone();
    let listener = &**view.listener();
    let ListenerKind::Http(http) = &listener.kind else {
        return (Parsed::Gone, buffer.len());
    };
    let limits = HeadLimits {
        bytes: listener.limits.header_bytes,
        fields: listener.limits.headers,
        target: listener.limits.uri_bytes,
    };
    let head = match request::parse(buffer, &limits, fields) {
        Ok(None) => return (Parsed::Incomplete, 0),
        Ok(Some(head)) => head,
        Err(refusal) => {
            begin_broken(state, arrival, buffer);
            return (reply(Reply::refusal(refusal)), buffer.len());
        }
    };
    let client = client_address(arrival.peer, &listener.trusted_proxies, buffer, fields);
    let request = ForwardedRequest {
        head: &head,
        buffer,
        fields,
        trusted: listener.trusted_proxies.trusts(arrival.peer),
    };
    state.request.started = Some(arrival.instant);
    state.request.info = RequestInfo::of(&head);
    state.request.client = client;
    let keeps_for = keeps_for(listener.timeouts.idle);
    state
        .client
        .begin(&head, listener.limits.trailer_bytes, keeps_for);
    match given_id(buffer, fields).filter(|_| request.trusted) {
        Some(given) => state.request.capture.id = state.request.capture.keep(given),
        None => give_id(state, arrival.random),
    }
    if view.snapshot.access_log {
        capture(state, &request, view.snapshot.access_query);
    }
    let mut limits = RouteLimits {
        total: None,
        body_bytes: listener.limits.body_bytes,
    };
    let routed = route(http, &request, client.known(), state, &mut limits);
    begin_exchange(state, listener, &limits, arrival.now);
    let announces_too_much = state.client.announced() > limits.body_bytes;
    let own = match routed {
        _ if announces_too_much => Some(Reply::failure(Reason::BodyTooLarge, true)),
        _ if head.max_forwards == Some(0) => Some(Reply::options()),
        Target::Cluster(cluster) => {
            let key = request.key(view.snapshot.cluster(cluster), client.nearest);
            state.request.routed = Some(Routed { cluster, key });
            let is_written = write_head(&arrival, listener, http, &request, state);
            (!is_written).then(|| Reply::failure(Reason::Loop, true))
        }
        Target::Reply(reply) => Some(reply),
    };
    let len = head.len;
    state.request.view = Some(arrival.view);
    take_body(buffer, len, state, own)
}

/// Begins a request whose head cannot be parsed, or does not come.
pub(crate) fn begin_broken(state: &mut InFlight, arrival: Arrival<'_>, head: &[u8]) {
    give_id(state, arrival.random);
    state.exchange.begin(Limits::default(), 0, arrival.now);
    state.client.begin_broken();
    state.request.view = Some(arrival.view);
    state.request.started = Some(arrival.instant);
    state.request.info.is_head = request::begins_with_head(head);
}

fn reply(reply: Reply) -> Parsed {
    Parsed::Reply(Box::new(reply))
}

/// What a route says of limits.
struct RouteLimits {
    total: Option<Duration>,
    body_bytes: u64,
}

fn begin_exchange(state: &mut InFlight, listener: &Listener, limits: &RouteLimits, now: u64) {
    let times = (listener.timeouts.request_body, listener.timeouts.write);
    let expects_continue = state.request.info.expects_continue;
    let times = Limits::new(times, limits.total, expects_continue, now);
    state.exchange.begin(times, limits.body_bytes, now);
}

/// What is announced of an `idle` timeout, in seconds: one less, for the way, and nothing of a short one.
fn keeps_for(idle: Duration) -> Option<u32> {
    let seconds = idle.as_secs().saturating_sub(1);
    u32::try_from(seconds).ok().filter(|seconds| *seconds >= 2)
}

/// Writes the head that is forwarded; whether it may be, which it may not if the request has been here before.
fn write_head(
    arrival: &Arrival<'_>,
    listener: &Listener,
    http: &HttpListener,
    request: &ForwardedRequest<'_>,
    state: &mut InFlight,
) -> bool {
    let edits = RequestEdits {
        peer: arrival.peer,
        id: state.request.id(),
        process: arrival.process,
        via: http.via,
    };
    let written = state.head.write(request, &edits);
    if let Some(field) = written.removed.and_then(|field| request.fields.get(field)) {
        let name = field.name_in(request.buffer);
        log_removed_once(listener, arrival.peer, name);
    }
    !written.loops
}

/// Gives the request an id of ours.
fn give_id(state: &mut InFlight, random: &Random) {
    let mut id = [0; 32];
    fill_hexadecimal(&mut id, random);
    state.request.capture.id = state.request.capture.keep(&id);
}

/// Takes the part of the body that came along. It is forwarded with the head unless there is a reply of our `own`.
fn take_body(
    buffer: &mut [u8],
    len: usize,
    state: &mut InFlight,
    own: Option<Reply>,
) -> (Parsed, usize) {
    let body = &mut buffer[len..];
    let taken = match state.client.take_early(body) {
        Ok((taken, payload)) => {
            let (whole, announced) = (state.client.is_whole(), state.client.announced());
            let upload = &mut state.exchange.upload;
            let fits = upload.take_early(len + taken, payload, whole, announced);
            fits.map(|()| (taken, payload))
        }
        Err(SourceError::Refused(refusal)) => Err(reason_of(refusal)),
        Err(SourceError::Left) => Err(Reason::ClientLeft),
    };
    match (taken, own) {
        (Ok((taken, _)), Some(mut own)) => {
            // A reply of our own does not wait for a body that nobody reads.
            own.close |= !state.client.is_whole() || !state.request.info.keep_alive;
            (reply(own), len + taken)
        }
        (Ok((taken, payload)), None) => {
            let end = state.client.is_whole().then(|| state.client.trailers());
            state.head.keep_early(&body[..payload], end);
            (Parsed::Forward, len + taken)
        }
        (Err(reason), _) => (reply(Reply::failure(reason, true)), buffer.len()),
    }
}

enum Target {
    Cluster(ClusterIndex),
    Reply(Reply),
}

fn route(
    http: &HttpListener,
    request: &ForwardedRequest<'_>,
    client: Option<IpAddr>,
    state: &mut InFlight,
    limits: &mut RouteLimits,
) -> Target {
    let head = request.head;
    let mut room = [0; HOST_BYTES];
    let host = canonical(split_host(head.host.unwrap_or(b"")).0, &mut room);
    let view = RequestView {
        method: head.method,
        host,
        path: head.path(),
        query: head.query(),
        client,
        fields: request,
    };
    if http.routes.is_ambiguous(&view) {
        return Target::Reply(Reply::failure(Reason::AmbiguousPath, true));
    }
    match (http.routes.find(&view), &http.fallback) {
        (Some((index, target)), _) => {
            state.request.route = Some(index);
            limits.total = target.timeout;
            limits.body_bytes = target.body_bytes.unwrap_or(limits.body_bytes);
            follow(&target.action, head, host)
        }
        (None, Some(action)) => follow(action, head, host),
        (None, None) => Target::Reply(Reply::failure(Reason::NoRoute, false)),
    }
}

fn follow(action: &RouteAction<ClusterIndex>, head: &RequestHead<'_>, host: &[u8]) -> Target {
    match action {
        RouteAction::Cluster(index) => Target::Cluster(*index),
        // Without its host a Location would lead elsewhere (RFC 9110 10.2.2), and one without scheme and host perhaps
        // back to where the client came from.
        RouteAction::Redirect { to, .. } if host.is_empty() && to.contains("{host}") => {
            Target::Reply(Reply::failure(Reason::BadHost, false))
        }
        RouteAction::Redirect { to, status } => {
            Target::Reply(Reply::redirect(*status, expand(to, head, host)))
        }
        RouteAction::Respond {
            status,
            fields,
            page,
        } => Target::Reply(Reply::given(*status, fields, page.as_ref())),
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

/// Keeps what the access log shows of the head; with `query` all of target and referer, else up to `?`.
fn capture(state: &mut InFlight, request: &ForwardedRequest<'_>, query: bool) {
    let shown = |text: &'_ [u8]| match memchr::memchr(b'?', text) {
        Some(end) if !query => end,
        _ => text.len(),
    };
    let capture = &mut state.request.capture;
    capture.method = capture.keep(request.head.method);
    capture.host = capture.keep(request.head.host.unwrap_or(b""));
    capture.uri = capture.keep_uri(&request.head.target[..shown(request.head.target)]);
    let others = request.fields.iter().filter(|f| f.name == FieldName::Other);
    for field in others {
        let name = field.name_in(request.buffer);
        // Of several the first: a hundred of them must not be kept.
        if capture.user_agent.is_empty() && name.eq_ignore_ascii_case(b"user-agent") {
            capture.user_agent = capture.keep(field.value_in(request.buffer));
        } else if capture.referer.is_empty() && name.eq_ignore_ascii_case(b"referer") {
            let value = field.value_in(request.buffer);
            capture.referer = capture.keep(&value[..shown(value)]);
        }
    }
}

/// As much of a removed field's name as the log shows.
const SHOWN_NAME: usize = 64;

fn log_removed_once(listener: &Listener, peer: Option<IpAddr>, name: &[u8]) {
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
}
