//! The backend's side of an exchange in HTTP/1: the request is written and the response read.

use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use super::client_side::send;
use super::encode::{complete_request, frame};
use crate::http1::body::BodyReader;
use crate::http1::chunked::SizeLine;
use crate::http1::head::{Field, HeadEnd};
use crate::http1::{Framing, Refusal, response};
use crate::proxy::buffer::{Unsent, append};
use crate::proxy::http::exchange::{HeadView, RequestSink, ResponseEvent, ResponseSource};
use crate::proxy::http::head::ForwardHead;
use crate::proxy::read_size::Backlog;
use crate::transport::stream::Stream;

/// Where bytes are that were read and not looked at yet.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum Unread {
    /// There are none.
    #[default]
    Nothing,
    /// In the scratch buffer.
    Scratch(Range<usize>),
    /// In the kept part of a head, from here on.
    Partial(usize),
}

/// What is kept of a backend's side between two polls. Begun again with each attempt.
#[derive(Debug, Default)]
pub(crate) struct BackendState {
    /// Bytes of the request head, and of what comes with it, that have gone.
    sent: usize,
    /// How many there are.
    length: usize,
    /// The Host line for a head without one.
    host_line: String,
    /// The request body goes out in chunks.
    is_chunked: bool,
    /// What the backend has not taken yet of the body.
    unsent: Unsent,
    /// The response is one to HEAD.
    is_to_head: bool,
    trailer_limit: usize,
    unread: Unread,
    /// The beginning of a response head.
    partial: Vec<u8>,
    /// All of it has been looked at.
    is_partial_done: bool,
    head_end: HeadEnd,
    /// Follows the response body, once its head has come.
    reader: Option<BodyReader>,
    trailers: Vec<u8>,
    /// Bytes came after the response.
    has_excess: bool,
}

impl BackendState {
    /// Begins an attempt with `head` on a backend that is called `host`.
    pub(crate) fn begin(
        &mut self,
        head: &mut ForwardHead,
        host: &str,
        is_to_head: bool,
        trailer_limit: usize,
    ) {
        complete_request(head);
        self.host_line.clear();
        if !head.has_host {
            self.host_line = format!("Host: {host}\r\n");
        }
        self.sent = 0;
        self.length = head.text.len() + self.host_line.len();
        self.is_chunked = head.framing == Framing::Chunked;
        self.is_to_head = is_to_head;
        self.trailer_limit = trailer_limit;
        self.unread = Unread::Nothing;
        self.has_excess = false;
        self.release();
    }

    /// Gives back what memory it holds, but for a little.
    pub(crate) fn release(&mut self) {
        self.reader = None;
        self.unsent.clear();
        if self.partial.capacity() > 0 {
            self.partial = Vec::new();
        }
        self.is_partial_done = false;
    }

    /// What is left to send of `head`, or a part of it: an HTTP/1.0 request without a Host gets one in between.
    fn rest<'h>(&'h self, head: &'h ForwardHead) -> &'h [u8] {
        if self.host_line.is_empty() {
            return &head.text[self.sent..];
        }
        let (line, fields) = head.text.split_at(head.line_end);
        let mut skip = self.sent;
        for part in [line, self.host_line.as_bytes(), fields] {
            if skip < part.len() {
                return &part[skip..];
            }
            skip -= part.len();
        }
        b""
    }
}

/// A backend's side for one poll.
#[derive(Debug)]
pub(crate) struct BackendSide<'a, S> {
    /// The connection.
    pub stream: &'a mut S,
    /// What is kept between polls.
    pub state: &'a mut BackendState,
}

impl<S: Stream> RequestSink for BackendSide<'_, S> {
    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        head: &ForwardHead,
        sent: &mut u64,
    ) -> Poll<io::Result<()>> {
        while self.state.sent < self.state.length {
            match ready!(self.stream.poll_send(cx, self.state.rest(head)))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => {
                    self.state.sent += count;
                    *sent += count as u64;
                }
            }
        }
        if self.state.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.state.unsent.poll_flush(self.stream, cx, sent)
    }

    fn write(
        &mut self,
        cx: &mut Context<'_>,
        payload: &[u8],
        end: Option<&[u8]>,
    ) -> io::Result<Option<bool>> {
        let size = self.state.is_chunked.then(|| SizeLine::new(payload.len()));
        let parts = frame(size.as_ref(), payload, end);
        let written = send(&mut self.state.unsent, self.stream, cx, &parts)?;
        Ok(written.map(|(_, whole)| whole))
    }

    fn is_sending(&self) -> bool {
        self.state.sent < self.state.length || !self.state.unsent.is_empty()
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

impl<S: Stream> ResponseSource for BackendSide<'_, S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = ready!(self.stream.poll_receive(cx, scratch))?;
        let state = &mut *self.state;
        if state.partial.is_empty() {
            state.unread = Unread::Scratch(0..read);
        } else {
            append(&mut state.partial, &scratch[..read]);
            let is_due = state
                .head_end
                .is_due(&state.partial, response::LIMITS.bytes);
            state.unread = if is_due {
                Unread::Partial(0)
            } else {
                Unread::Nothing
            };
        }
        Poll::Ready(Ok(read))
    }

    fn next_event<'b>(
        &'b mut self,
        scratch: &'b mut [u8],
        fields: &'b mut Vec<Field>,
    ) -> Result<Option<ResponseEvent<'b>>, Refusal> {
        self.state.next_event(scratch, fields)
    }

    fn partial_head(&self) -> usize {
        self.state.partial.len()
    }

    fn has_excess(&self) -> bool {
        self.state.has_excess
    }

    fn take_rest(&mut self, scratch: &[u8]) -> Vec<u8> {
        let state = &mut *self.state;
        match std::mem::take(&mut state.unread) {
            Unread::Nothing => Vec::new(),
            Unread::Scratch(range) => scratch[range].to_vec(),
            Unread::Partial(at) => std::mem::take(&mut state.partial).split_off(at),
        }
    }

    fn end_of_connection(&mut self) -> bool {
        let reader = self.state.reader.as_mut();
        reader.is_some_and(BodyReader::end_of_connection)
    }
}

impl BackendState {
    fn next_event<'b>(
        &'b mut self,
        scratch: &'b mut [u8],
        fields: &'b mut Vec<Field>,
    ) -> Result<Option<ResponseEvent<'b>>, Refusal> {
        let reading = Reading {
            is_to_head: self.is_to_head,
            trailer_limit: self.trailer_limit,
            reader: &mut self.reader,
            trailers: &mut self.trailers,
            has_excess: &mut self.has_excess,
        };
        match std::mem::take(&mut self.unread) {
            Unread::Nothing => {
                if std::mem::take(&mut self.is_partial_done) {
                    self.partial = Vec::new();
                }
                Ok(None)
            }
            Unread::Scratch(range) => {
                let bytes = &mut scratch[range.clone()];
                let event = reading.event(bytes, fields)?;
                match &event {
                    Next::Event(_, 0) => {}
                    Next::Event(_, used) => {
                        self.unread = Unread::Scratch(range.start + used..range.end);
                    }
                    Next::Incomplete(rest) => {
                        self.partial = rest.to_vec();
                        self.head_end = HeadEnd::after(rest);
                    }
                }
                Ok(event.into_event())
            }
            Unread::Partial(at) => {
                self.partial.drain(..at);
                let event = reading.event(&mut self.partial, fields)?;
                match &event {
                    Next::Event(_, 0) => self.is_partial_done = true,
                    Next::Event(_, used) => self.unread = Unread::Partial(*used),
                    Next::Incomplete(rest) => self.head_end = HeadEnd::after(rest),
                }
                Ok(event.into_event())
            }
        }
    }
}

/// What comes next of some bytes.
enum Next<'b> {
    /// This, after which the bytes from here on are still to be looked at; 0: none are.
    Event(ResponseEvent<'b>, usize),
    /// A part of a head, or nothing.
    Incomplete(&'b [u8]),
}

impl<'b> Next<'b> {
    fn into_event(self) -> Option<ResponseEvent<'b>> {
        match self {
            Self::Event(event, _) => Some(event),
            Self::Incomplete(_) => None,
        }
    }
}

/// What reading a response works with.
struct Reading<'b> {
    is_to_head: bool,
    trailer_limit: usize,
    reader: &'b mut Option<BodyReader>,
    trailers: &'b mut Vec<u8>,
    has_excess: &'b mut bool,
}

impl<'b> Reading<'b> {
    /// The event that `bytes` begin with.
    fn event(self, bytes: &'b mut [u8], fields: &'b mut Vec<Field>) -> Result<Next<'b>, Refusal> {
        if let Some(reader) = self.reader {
            self.trailers.clear();
            let piece = reader.read_in_place(bytes, self.trailers)?;
            *self.has_excess |= piece.consumed < bytes.len();
            let end = reader.is_done().then_some(&**self.trailers);
            let event = ResponseEvent::Body(&bytes[..piece.payload], end);
            return Ok(Next::Event(event, 0));
        }
        let bytes = &*bytes;
        let Some(head) = response::parse(bytes, self.is_to_head, fields)? else {
            return Ok(Next::Incomplete(bytes));
        };
        let view = HeadView {
            head,
            bytes,
            fields,
        };
        if head.status < 200 {
            // Nothing needs to follow.
            let used = if head.len < bytes.len() { head.len } else { 0 };
            return Ok(Next::Event(ResponseEvent::Interim(view), used));
        }
        // A body follows, even if it is empty.
        *self.reader = Some(BodyReader::for_response(
            head.framing,
            self.trailer_limit,
            head.forwards_trailers,
        ));
        Ok(Next::Event(ResponseEvent::Final(view), head.len))
    }
}
