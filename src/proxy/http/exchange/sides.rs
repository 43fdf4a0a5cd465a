//! The four ends of an exchange, whatever protocol is spoken there: a request comes out of a source and goes into a sink,
//! and so does its response. Each side of the proxy is one value with two of these ends.

use std::io;
use std::task::{Context, Poll};

use crate::http1::Refusal;
use crate::http1::head::Field;
use crate::http1::response::ResponseHead;
use crate::proxy::http::head::ForwardHead;
use crate::proxy::read_size::Backlog;

/// A piece of a body that was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyPiece {
    /// Bytes that were read for it.
    pub read: usize,
    /// Bytes of payload, at the beginning of the buffer that they were read into.
    pub payload: usize,
}

/// Why no more of a request comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceError {
    /// The client has ended or broken off.
    Left,
    /// What it sent is not valid.
    Refused(Refusal),
}

/// Where a request body comes from.
pub(crate) trait RequestSource {
    /// Reads some of the body into `scratch`.
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<BodyPiece, SourceError>>;

    /// Whether the whole request has come.
    fn is_whole(&self) -> bool;

    /// Bytes of the body that are announced and have not come: there will be at least so many more.
    fn announced(&self) -> u64;

    /// The trailers of a whole body, as lines; empty before.
    fn trailers(&self) -> &[u8];

    /// While only the response is awaited: takes a little of what comes next. Whether the client is being read.
    ///
    /// # Errors
    /// The client has left.
    fn poll_ahead(&mut self, cx: &mut Context<'_>, scratch: &mut [u8])
    -> Result<bool, SourceError>;

    /// Whether the client has ended or broken off, even if it is not being read.
    fn has_left(&self) -> bool;
}

/// Where a request goes.
pub(crate) trait RequestSink {
    /// Sends what is left of the head and of the body so far. The bytes that were sent are added to `sent`.
    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        head: &ForwardHead,
        sent: &mut u64,
    ) -> Poll<io::Result<()>>;

    /// Sends a piece of the body, with the trailers in `end` if it is the last one; keeps what is not taken at once.
    /// Whether everything was; `None` if there was nothing to send. Nothing may be left from before.
    ///
    /// # Errors
    /// The backend takes no more.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        payload: &[u8],
        end: Option<&[u8]>,
    ) -> io::Result<Option<bool>>;

    /// Whether something is left to send.
    fn is_sending(&self) -> bool;

    /// Body bytes that are kept because they were not taken.
    fn unsent(&self) -> usize;

    /// About how many bytes a write would take now.
    fn send_room(&self) -> usize;

    /// Whether the backend has taken some of what the system holds for it.
    fn has_taken(&self, backlog: &mut Backlog) -> bool;
}

/// A response head with the bytes that it was parsed from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadView<'b> {
    /// The head.
    pub head: ResponseHead<'b>,
    /// The bytes that it and its fields point into.
    pub bytes: &'b [u8],
    /// Its fields.
    pub fields: &'b [Field],
}

/// What comes of a response.
#[derive(Debug)]
pub(crate) enum ResponseEvent<'b> {
    /// An interim head.
    Interim(HeadView<'b>),
    /// The final head. A [`Self::Body`] follows at once, even if it is empty.
    Final(HeadView<'b>),
    /// A piece of the body, with its trailers if it is the last one.
    Body(&'b [u8], Option<&'b [u8]>),
}

/// Where a response comes from.
pub(crate) trait ResponseSource {
    /// Reads what there is into `scratch`; 0 is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>>;

    /// The next thing that was read, until there is nothing more in `scratch`.
    ///
    /// # Errors
    /// It is not valid.
    fn next_event<'b>(
        &'b mut self,
        scratch: &'b mut [u8],
        fields: &'b mut Vec<Field>,
    ) -> Result<Option<ResponseEvent<'b>>, Refusal>;

    /// Bytes of a partial head that are kept.
    fn partial_head(&self) -> usize;

    /// Whether bytes came after the response.
    fn has_excess(&self) -> bool;

    /// Takes what was read after a 101: bytes of the other protocol.
    fn take_rest(&mut self, scratch: &[u8]) -> Vec<u8>;

    /// The connection has ended: whether that makes the body whole.
    fn end_of_connection(&mut self) -> bool;
}

/// What the proxy adds to a response head.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Additions<'a> {
    /// A Date line for a head that has none; may be empty.
    pub date: &'a [u8],
    /// X-Request-Id, in place of the backend's; empty: the backend's is forwarded.
    pub id: &'a [u8],
    /// Whether it gets a Via field.
    pub via: bool,
    /// Whether the client's connection ends after this response.
    pub close: bool,
}

/// Where a response goes.
pub(crate) trait ResponseSink {
    /// Sends an interim head that the client understands. Bytes that were sent.
    ///
    /// # Errors
    /// The client takes no more.
    fn send_interim(
        &mut self,
        cx: &mut Context<'_>,
        view: &HeadView<'_>,
        additions: &Additions<'_>,
        out: &mut Vec<u8>,
    ) -> io::Result<usize>;

    /// Writes the final head into `out`, to be sent with the first piece of the body. Whether the client's connection
    /// ends after this response.
    fn write_head(
        &mut self,
        view: &HeadView<'_>,
        additions: &Additions<'_>,
        out: &mut Vec<u8>,
    ) -> bool;

    /// Sends `head` and a piece of the body, with the trailers in `end` if it is the last one; keeps what is not taken
    /// at once. Bytes that were sent, and whether that was everything; `None` if there was nothing to send.
    ///
    /// # Errors
    /// The client takes no more.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut Vec<u8>,
        payload: &[u8],
        end: Option<&[u8]>,
    ) -> io::Result<Option<(usize, bool)>>;

    /// Sends what is left. The bytes that were sent are added to `sent`.
    fn poll_flush(&mut self, cx: &mut Context<'_>, sent: &mut u64) -> Poll<io::Result<()>>;

    /// Says that nothing follows this response.
    fn finish(&mut self, cx: &mut Context<'_>);

    /// Bytes that are kept because they were not taken.
    fn unsent(&self) -> usize;

    /// About how many bytes a write would take now.
    fn send_room(&self) -> usize;

    /// Whether the client has taken some of what the system holds for it.
    fn has_taken(&self, backlog: &mut Backlog) -> bool;
}
