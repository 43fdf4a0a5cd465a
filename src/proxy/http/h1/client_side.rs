//! The client's side of an exchange in HTTP/1: the request body is read and the response written.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::encode::{Persistence, ResponseEdits, client_framing, frame, write_response};
use crate::http1::body::BodyReader;
use crate::http1::chunked::SizeLine;
use crate::http1::request::RequestHead;
use crate::http1::{Framing, Version};
use crate::proxy::buffer::{Unsent, append};
use crate::proxy::http::exchange::{
    Additions, BodyPiece, HeadView, READ_AHEAD, RequestSource, ResponseSink, SourceError,
};
use crate::proxy::read_size::Backlog;
use crate::transport::stream::Stream;

/// A body that came with its head and is no longer than this is copied after it: one plain write costs less than a
/// vectored one.
const COPIED: usize = 4 << 10;

/// What is kept of a client's side between two polls.
#[derive(Debug, Default)]
pub(crate) struct ClientState {
    body: BodyReader,
    trailers: Vec<u8>,
    /// Bytes read from the client while the exchange went on, those of further requests included.
    pub(crate) bytes_read: u64,
    is_http10: bool,
    /// How long the connection is announced to last at rest, in whole seconds, if that is announced.
    pub(crate) keeps_for: Option<u32>,
    /// The response body goes out in chunks.
    is_chunked: bool,
    /// The client learns of the end of the response body by the end of the connection alone.
    pub(crate) is_until_close: bool,
    /// What the client has not taken yet.
    pub(crate) unsent: Unsent,
}

impl ClientState {
    /// Begins a request.
    pub(crate) fn begin(
        &mut self,
        head: &RequestHead<'_>,
        trailer_limit: usize,
        keeps_for: Option<u32>,
    ) {
        self.body = BodyReader::new(head.framing, trailer_limit, head.forwards_trailers);
        self.is_http10 = head.version == Version::V10;
        self.keeps_for = keeps_for;
        self.bytes_read = 0;
        self.is_chunked = false;
        self.is_until_close = false;
    }

    /// Begins a request whose head is not known.
    pub(crate) fn begin_broken(&mut self) {
        self.keeps_for = None;
        self.bytes_read = 0;
    }

    /// Takes what `bytes` hold of the body and leaves its payload at their beginning: how many bytes it took, and how
    /// many are payload.
    ///
    /// # Errors
    /// It is not valid.
    pub(crate) fn take_early(&mut self, bytes: &mut [u8]) -> Result<(usize, usize), SourceError> {
        self.trailers.clear();
        let piece = self.body.read_in_place(bytes, &mut self.trailers);
        let piece = piece.map_err(SourceError::Refused)?;
        Ok((piece.consumed, piece.payload))
    }

    /// Whether all of the request has come.
    pub(crate) fn is_whole(&self) -> bool {
        self.body.is_done()
    }

    /// Bytes of the body that are announced and have not come.
    pub(crate) fn announced(&self) -> u64 {
        self.body.announced()
    }

    /// The trailers of a whole body.
    pub(crate) fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Gives back what memory it holds, but for a little.
    pub(crate) fn release(&mut self) {
        self.body = BodyReader::Done;
        self.unsent.clear();
    }
}

/// A client's side for one poll.
#[derive(Debug)]
pub(crate) struct ClientSide<'a, S> {
    /// The connection.
    pub stream: &'a mut S,
    /// Bytes of further requests.
    pub read_ahead: &'a mut Vec<u8>,
    /// What is kept between polls.
    pub state: &'a mut ClientState,
}

impl<S: Stream> RequestSource for ClientSide<'_, S> {
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<BodyPiece, SourceError>> {
        let read = match ready!(self.stream.poll_receive(cx, scratch)) {
            Ok(0) | Err(_) => return Poll::Ready(Err(SourceError::Left)),
            Ok(read) => read,
        };
        self.state.bytes_read += read as u64;
        let bytes = &mut scratch[..read];
        let (consumed, payload) = self.state.take_early(bytes)?;
        if consumed < read {
            append(self.read_ahead, &bytes[consumed..]);
        }
        Poll::Ready(Ok(BodyPiece { read, payload }))
    }

    fn is_whole(&self) -> bool {
        self.state.is_whole()
    }

    fn announced(&self) -> u64 {
        self.state.announced()
    }

    fn trailers(&self) -> &[u8] {
        self.state.trailers()
    }

    fn poll_ahead(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Result<bool, SourceError> {
        while self.state.is_whole() && self.read_ahead.len() < READ_AHEAD {
            let most = READ_AHEAD - self.read_ahead.len();
            match self.stream.poll_receive(cx, &mut scratch[..most]) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Ok(0) | Err(_)) => return Err(SourceError::Left),
                Poll::Ready(Ok(read)) => {
                    self.state.bytes_read += read as u64;
                    append(self.read_ahead, &scratch[..read]);
                }
            }
        }
        Ok(false)
    }

    fn has_left(&self) -> bool {
        self.stream.peer_has_ended()
    }
}

impl<S: Stream> ResponseSink for ClientSide<'_, S> {
    fn send_interim(
        &mut self,
        cx: &mut Context<'_>,
        view: &HeadView<'_>,
        additions: &Additions<'_>,
        out: &mut Vec<u8>,
    ) -> io::Result<usize> {
        out.clear();
        // RFC 9110 15.2: an HTTP/1.0 client does not know interim responses.
        if self.state.is_http10 {
            return Ok(0);
        }
        let edits = ResponseEdits {
            framing: Framing::None,
            persistence: match view.head.status {
                101 => Persistence::Upgrade,
                _ => Persistence::Keep,
            },
            date: b"",
            id: additions.id,
            via: additions.via,
        };
        write_response(out, &view.head, view.bytes, view.fields, &edits);
        let sent = match self.state.unsent.is_empty() {
            true => self.state.unsent.write(self.stream, cx, &[out])?,
            false => {
                self.state.unsent.push(out);
                0
            }
        };
        out.clear();
        Ok(sent)
    }

    fn write_head(
        &mut self,
        view: &HeadView<'_>,
        additions: &Additions<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        let version = match self.state.is_http10 {
            true => Version::V10,
            false => Version::V11,
        };
        let framing = client_framing(&view.head, version);
        self.state.is_chunked = framing == Framing::Chunked;
        self.state.is_until_close = framing == Framing::UntilClose;
        let closes = additions.close || self.state.is_until_close;
        let edits = ResponseEdits {
            framing,
            persistence: match closes {
                true => Persistence::Close,
                false => Persistence::kept(self.state.keeps_for, self.state.is_http10),
            },
            date: additions.date,
            id: additions.id,
            via: additions.via,
        };
        write_response(out, &view.head, view.bytes, view.fields, &edits);
        closes
    }

    fn write(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut Vec<u8>,
        payload: &[u8],
        end: Option<&[u8]>,
    ) -> io::Result<Option<(usize, bool)>> {
        let size = self.state.is_chunked.then(|| SizeLine::new(payload.len()));
        let body = frame(size.as_ref(), payload, end);
        let unsent = &mut self.state.unsent;
        if !unsent.is_empty() {
            unsent.push(head);
            body.into_iter().for_each(|part| unsent.push(part));
            head.clear();
            return Ok(Some((0, false)));
        }
        let written = if head.is_empty() {
            send(unsent, self.stream, cx, &body)
        } else if payload.len() <= COPIED {
            body.into_iter()
                .for_each(|part| head.extend_from_slice(part));
            send(unsent, self.stream, cx, &[head])
        } else {
            let [line, payload, end, trailers, last] = body;
            let parts = [&**head, line, payload, end, trailers, last];
            send(unsent, self.stream, cx, &parts)
        };
        head.clear();
        written
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, sent: &mut u64) -> Poll<io::Result<()>> {
        self.state.unsent.poll_flush(self.stream, cx, sent)
    }

    fn finish(&mut self, cx: &mut Context<'_>) {
        // An error shows with the next read.
        let _ = Pin::new(&mut *self.stream).poll_shutdown(cx);
    }

    fn unsent(&self) -> usize {
        self.state.unsent.len()
    }

    fn send_room(&self) -> usize {
        self.stream.send_room()
    }

    fn has_taken(&self, backlog: &mut Backlog) -> bool {
        backlog.has_shrunk(self.stream)
    }
}

/// Writes `parts`; bytes that were taken, and whether all were. `None` if they are empty.
pub(super) fn send(
    unsent: &mut Unsent,
    stream: &mut impl Stream,
    cx: &mut Context<'_>,
    parts: &[&[u8]],
) -> io::Result<Option<(usize, bool)>> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    if length == 0 {
        return Ok(None);
    }
    let written = unsent.write(stream, cx, parts)?;
    Ok(Some((written, written == length)))
}
