//! Serves the pages of the admin server.
//!
//! axum's router runs on hyper's HTTP/1.1, connection by connection, so that both have bounds: as many connections at a
//! time as the reserve of descriptors carries, some of them for probes (`connection_limit`; the rest waits in the
//! kernel); a head of at most 16 KiB, the first of which must come within `FIRST_HEAD` and a later one within
//! `HEAD_TIMEOUT`; and a life of at most `LIFE` and `LAST_RESPONSE`, after which a client that still reads is cut off.
//! The pages that grow with the number of backends and members are made on a blocking thread, and at most `TEXTS` of
//! their texts exist at a time, however slowly they are read: the permit goes with the bytes.

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router, routing::get};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::allowed_hosts::{ConnectionOrigin, is_allowed_host};
use super::connection_limit::{AdmittedConnection, AnswerGuard, ConnectionLimit};
use super::members::{MembersPage, NO_GOSSIP, PATH};
use super::metrics::Scrape;
use super::socket::AdminSocket;
use super::state::AdminState;
use super::status::StatusPage;
use crate::telemetry::exposition::{Format, encode};
use crate::telemetry::readiness::Stage;
use crate::telemetry::seldom::Seldom;
use crate::transport::conn::Conn;
use crate::transport::listen::Acceptor;

const HEALTHZ: &str = "/healthz";
const READYZ: &str = "/readyz";

/// Texts of `/metrics`, the status and the members that may exist at a time.
const TEXTS: usize = 4;
/// From the accept of a connection to the end of its first head.
const FIRST_HEAD: Duration = Duration::from_secs(2);
/// From the wait for a further request to the end of its head; longer than the usual time between two scrapes.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
const HEAD_BYTES: usize = 16 << 10;
/// How long one connection may send requests.
const LIFE: Duration = Duration::from_secs(60);
/// How long the response under way may still take after that.
const LAST_RESPONSE: Duration = Duration::from_secs(30);
/// How long it may take when the server stops.
const LAST_RESPONSE_AT_STOP: Duration = Duration::from_secs(1);
/// Wait after a failed accept, for example when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// While descriptors have run out, every try fails.
static CANNOT_ACCEPT: Seldom = Seldom::new(Duration::from_secs(10));

/// Serves until `stop` is true or its sender is gone; then the socket closes, and responses under way have a second.
/// Must run on a runtime with I/O and time.
pub(crate) async fn serve(socket: AdminSocket, state: AdminState, stop: watch::Receiver<bool>) {
    let address = socket.address();
    let server = PageServer {
        limit: ConnectionLimit::new(state.connections),
        router: router(state),
        stop,
    };
    info!(address, "admin server is listening");
    if let Err(error) = server.run(socket).await {
        error!(address, %error, "admin server cannot run");
    }
}

struct PageServer {
    router: Router,
    limit: Arc<ConnectionLimit>,
    stop: watch::Receiver<bool>,
}

/// Where a connection comes from.
fn origin_of(stream: &Conn) -> ConnectionOrigin {
    match stream {
        Conn::Tcp(_) => stream.local_ip().map_or(
            ConnectionOrigin::Loopback,
            ConnectionOrigin::of_local_address,
        ),
        Conn::Unix(_) => ConnectionOrigin::Other,
    }
}

/// Closes the socket, and takes at most so many of the connections that the kernel has accepted already.
fn waiting(acceptor: Acceptor, most: usize) -> Vec<Conn> {
    let mut waiting = Vec::new();
    let Ok(closing) = acceptor.close() else {
        return waiting;
    };
    while waiting.len() < most
        && let Ok((stream, _)) = closing.accept()
    {
        waiting.push(stream);
    }
    waiting
}

impl PageServer {
    async fn run(self, socket: AdminSocket) -> io::Result<()> {
        let acceptor = socket.listening.watch()?;
        let Self {
            router,
            limit,
            mut stop,
        } = self;
        let mut connections = JoinSet::new();
        let stopped = stop.clone();
        let mut begin = |stream: Conn, admitted| {
            let (router, stop) = (router.clone(), stopped.clone());
            connections.spawn(connection(stream, admitted, router, stop));
            while connections.try_join_next().is_some() {}
        };
        let accepting = async {
            loop {
                match poll_fn(|cx| acceptor.poll_accept(cx)).await {
                    Ok((stream, _)) => begin(stream, limit.admit().await),
                    Err(error) => {
                        if let Some(more) = CANNOT_ACCEPT.pass() {
                            warn!(%error, more, "admin server cannot accept");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accepting => {}
            // A sender that is gone means the same.
            _ = stop.wait_for(|stop| *stop) => {}
        }
        // What the kernel has accepted already is answered too: the server may only be moving.
        for stream in waiting(acceptor, limit.free()) {
            let Some(admitted) = limit.try_admit() else {
                break;
            };
            begin(stream, admitted);
        }
        let ended = async { while connections.join_next().await.is_some() {} };
        // What has not ended by then is aborted with the set.
        let _ = timeout(LAST_RESPONSE_AT_STOP, ended).await;
        Ok(())
    }
}

/// Serves one connection to its end.
async fn connection(
    stream: Conn,
    admitted: AdmittedConnection,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let origin = origin_of(&stream);
    let pages = TowerToHyperService::new(router);
    let asked = Notify::new();
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let pages = pages.clone();
        let guard = Arc::new(admitted.answer());
        asked.notify_one();
        let probes_only = admitted.is_for_probes();
        async move {
            let (mut head, body) = request.into_parts();
            if !is_allowed_host(origin, &head) {
                let refusal = "this server is not known by that name\n";
                return Ok((StatusCode::MISDIRECTED_REQUEST, refusal).into_response());
            }
            if probes_only && !matches!(head.uri.path(), HEALTHZ | READYZ) {
                let refusal = "too many connections: only /healthz and /readyz are answered\n";
                return Ok((StatusCode::SERVICE_UNAVAILABLE, refusal).into_response());
            }
            head.extensions.insert(Arc::clone(&guard));
            let response: Result<Response, Infallible> =
                pages.call(hyper::Request::from_parts(head, body)).await;
            response
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(!admitted.is_for_probes())
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let first_head = async {
        tokio::time::sleep(FIRST_HEAD).await;
        if admitted.has_asked() {
            std::future::pending::<()>().await;
        }
    };
    let left = tokio::select! {
        ended = serving.as_mut() => return log_end(ended),
        () = admitted.evicted() => return debug!("a silent admin client had to give way to another one"),
        () = first_head => return debug!("an admin client sent no request"),
        _ = stop.wait_for(|stop| *stop) => LAST_RESPONSE_AT_STOP,
        () = tokio::time::sleep(LIFE) => LAST_RESPONSE,
    };
    if !admitted.has_asked() {
        // It has only just connected, and its request is on its way.
        tokio::select! {
            ended = serving.as_mut() => return log_end(ended),
            () = asked.notified() => {}
            () = tokio::time::sleep(LAST_RESPONSE_AT_STOP) => return,
        }
    }
    // The response under way may end, and no other may begin.
    serving.as_mut().graceful_shutdown();
    match timeout(left, serving).await {
        Ok(ended) => log_end(ended),
        Err(_) => debug!("an admin client took too long to read"),
    }
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        debug!(%error, "admin connection failed");
    }
}

#[derive(Debug, Clone)]
struct Pages {
    state: AdminState,
    texts: Arc<Semaphore>,
}

fn router(state: AdminState) -> Router {
    let pages = Pages {
        state,
        texts: Arc::new(Semaphore::new(TEXTS)),
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route(HEALTHZ, get(async || "ok\n"))
        .route(READYZ, get(readyz))
        .route("/api/v1/status", get(status))
        .route(PATH, get(members))
        .with_state(pages)
}

async fn readyz(State(pages): State<Pages>) -> impl IntoResponse {
    let stage = pages.state.readiness.get();
    let status = match stage {
        Stage::Ready => StatusCode::OK,
        Stage::Starting | Stage::Draining => StatusCode::SERVICE_UNAVAILABLE,
    };
    (
        status,
        [(CACHE_CONTROL, "no-store")],
        format!("{}\n", stage.as_str()),
    )
}

type Guard = Extension<Arc<AnswerGuard>>;

async fn metrics(
    State(pages): State<Pages>,
    Extension(guard): Guard,
    headers: HeaderMap,
) -> Response {
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok());
    let format = Format::accepted(accept);
    let state = pages.state.clone();
    let made = move || {
        let scrape = Scrape {
            snapshot: state.publisher.current(),
            process: state.process.clone(),
            started: state.started.time,
            gossip: state.report(),
        };
        encode(format, move |families| scrape.write(families)).map(|text| Some(text.into_bytes()))
    };
    large(&pages.texts, guard, format.content_type(), made).await
}

async fn status(State(pages): State<Pages>, Extension(guard): Guard) -> Response {
    let state = pages.state.clone();
    let made = move || {
        let snapshot = state.publisher.current();
        let report = state.report();
        serde_json::to_vec(&StatusPage::of(&state, &snapshot, report.as_deref())).map(Some)
    };
    large(&pages.texts, guard, "application/json", made).await
}

async fn members(State(pages): State<Pages>, Extension(guard): Guard) -> Response {
    let state = pages.state.clone();
    let made = move || {
        let report = state.report();
        let stale = state.is_stale();
        let text = report.map(|report| serde_json::to_vec(&MembersPage::of(&report, stale)));
        text.transpose()
    };
    large(&pages.texts, guard, "application/json", made).await
}

/// A text with its permit and its guard, which are released when the last of its bytes is gone.
struct PageText {
    text: Vec<u8>,
    _permit: OwnedSemaphorePermit,
    _guard: Arc<AnswerGuard>,
}

impl AsRef<[u8]> for PageText {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

/// Responds with what `make` makes, in turn and not on the runtime's own threads. `make` takes what it shows only then,
/// so that waiting requests keep nothing old alive. It makes `None` if there is no peer set to show.
async fn large<E>(
    texts: &Arc<Semaphore>,
    guard: Arc<AnswerGuard>,
    content_type: &'static str,
    make: impl FnOnce() -> Result<Option<Vec<u8>>, E> + Send + 'static,
) -> Response
where
    E: fmt::Display + Send + 'static,
{
    // The semaphore is never closed.
    let Ok(permit) = texts.clone().acquire_owned().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let made = spawn_blocking(make).await;
    match made {
        Ok(Ok(Some(text))) => {
            let bytes = Bytes::from_owner(PageText {
                text,
                _permit: permit,
                _guard: guard,
            });
            let headers = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store")];
            (headers, Body::from(bytes)).into_response()
        }
        Ok(Ok(None)) => {
            let headers = [(CACHE_CONTROL, "no-store")];
            (StatusCode::NOT_FOUND, headers, NO_GOSSIP).into_response()
        }
        Ok(Err(error)) => {
            error!(%error, "cannot write an admin page");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        // The panic is in the log.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests;
