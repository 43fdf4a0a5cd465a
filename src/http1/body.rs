//! Follows a message body in transit, whatever its framing: counts down its length or decodes its chunks.

use super::chunked::Decoder;
use super::{Framing, Refusal};

/// Finds the end of one body.
#[derive(Debug, Default)]
pub enum BodyReader {
    /// The body is complete, or there is none.
    #[default]
    Done,
    /// This many bytes are still to come.
    Length(u64),
    /// Chunks are still to come.
    Chunked(Box<Decoder>),
    /// Everything up to the end of the connection.
    UntilClose,
}

/// What one call of [`BodyReader::read_in_place`] found in its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Bytes of the input that belong to the body.
    pub consumed: usize,
    /// Bytes of payload, now at the start of the buffer.
    pub payload: usize,
}

impl BodyReader {
    /// Starts the body of a request. Its trailers are dropped unless `forwards_trailers`.
    pub fn new(framing: Framing, trailer_limit: usize, forwards_trailers: bool) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => {
                Self::Chunked(Box::new(Decoder::new(trailer_limit, forwards_trailers)))
            }
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Starts the body of a response.
    pub fn for_response(framing: Framing, trailer_limit: usize, forwards_trailers: bool) -> Self {
        match framing {
            Framing::Chunked => Self::Chunked(Box::new(Decoder::for_response(
                trailer_limit,
                forwards_trailers,
            ))),
            _ => Self::new(framing, trailer_limit, forwards_trailers),
        }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Bytes that have been announced but have not arrived: at least this many are still to come.
    pub fn announced(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(decoder) => decoder.announced(),
            Self::Done | Self::UntilClose => 0,
        }
    }

    /// Consumes what belongs to the body from the start of `buffer` and leaves its payload there. Trailer lines to
    /// forward are appended to `trailers` once the body is complete.
    ///
    /// # Errors
    /// The chunked coding is malformed.
    pub fn read_in_place(
        &mut self,
        buffer: &mut [u8],
        trailers: &mut Vec<u8>,
    ) -> Result<Piece, Refusal> {
        match self {
            Self::Done => Ok(Piece {
                consumed: 0,
                payload: 0,
            }),
            Self::Length(left) => {
                let take = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(buffer.len());
                *left -= take as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Piece {
                    consumed: take,
                    payload: take,
                })
            }
            Self::Chunked(decoder) => {
                let decoded = decoder.decode_in_place(buffer)?;
                if decoded.done {
                    trailers.extend_from_slice(decoder.trailers());
                    *self = Self::Done;
                }
                Ok(Piece {
                    consumed: decoded.consumed,
                    payload: decoded.payload,
                })
            }
            Self::UntilClose => Ok(Piece {
                consumed: buffer.len(),
                payload: buffer.len(),
            }),
        }
    }

    /// Reports the end of the connection. Returns whether the body is now complete.
    pub fn end_of_connection(&mut self) -> bool {
        if matches!(self, Self::UntilClose) {
            *self = Self::Done;
        }
        self.is_done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_counted_down() {
        let mut body = BodyReader::new(Framing::Length(5), 0, true);
        let mut trailers = Vec::new();
        assert_eq!(
            body.read_in_place(&mut b"abc".to_vec(), &mut trailers),
            Ok(Piece {
                consumed: 3,
                payload: 3
            })
        );
        assert!(!body.is_done());
        assert!(
            !body.end_of_connection(),
            "a truncated body is not complete"
        );
        assert_eq!(
            body.read_in_place(&mut b"deGET".to_vec(), &mut trailers),
            Ok(Piece {
                consumed: 2,
                payload: 2
            })
        );
        assert!(body.is_done());
    }

    #[test]
    fn a_body_until_close_ends_with_the_connection() {
        let mut body = BodyReader::new(Framing::UntilClose, 0, true);
        assert_eq!(
            body.read_in_place(&mut b"abc".to_vec(), &mut Vec::new()),
            Ok(Piece {
                consumed: 3,
                payload: 3
            })
        );
        assert!(body.end_of_connection());
    }

    #[test]
    fn a_chunked_body_does_not_end_with_the_connection() {
        let mut body = BodyReader::new(Framing::Chunked, 0, true);
        body.read_in_place(&mut b"3\r\nabc\r\n".to_vec(), &mut Vec::new())
            .unwrap();
        assert!(!body.end_of_connection());
    }
}
