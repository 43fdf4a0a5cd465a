//! An independent reader of HTTP/1.1, as strict as can be: it knows only the one form in which lbproxy may write, and
//! calls everything else wrong. Pure, over bytes; shares no code with the program.

/// A message that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Request line or status line.
    pub start: Vec<u8>,
    /// Fields in order.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// Body, without its coding.
    pub body: Vec<u8>,
    /// Trailers.
    pub trailers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes that it took.
    pub len: usize,
}

impl Message {
    /// Every value of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value.as_slice())
    }

    /// The words of the start line.
    pub fn word(&self, index: usize) -> &[u8] {
        let mut words = self.start.splitn(3, |b| *b == b' ');
        words.nth(index).unwrap_or_default()
    }

    /// Status of a response.
    pub fn status(&self) -> u16 {
        let text = String::from_utf8_lossy(self.word(1)).into_owned();
        text.parse().unwrap_or_default()
    }
}

/// What stands at the beginning of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// A whole message.
    Whole(Message),
    /// The beginning of one.
    Part,
}

/// Why bytes are not a message.
pub type Wrong = String;

/// Reads one request.
pub fn request(bytes: &[u8]) -> Result<Read, Wrong> {
    let Some((mut message, fields_end)) = head(bytes)? else {
        return Ok(Read::Part);
    };
    let words: Vec<&[u8]> = message.start.split(|b| *b == b' ').collect();
    let [method, target, b"HTTP/1.1"] = words[..] else {
        return Err(format!("request line {:?}", show(&message.start)));
    };
    let is_target = target.starts_with(b"/") || target == b"*" && method == b"OPTIONS";
    if !is_token(method)
        || !is_target
        || !target
            .iter()
            .all(|b| matches!(b, b'!'..=b'~') && *b != b'#')
    {
        return Err(format!("request line {:?}", show(&message.start)));
    }
    if message.all("host").count() != 1 || !message.fields[0].0.eq_ignore_ascii_case(b"host") {
        return Err("Host is not the first field, once".to_owned());
    }
    if message.all("host").any(|host| !is_host(host)) {
        return Err("not a host".to_owned());
    }
    let is_upgrade = message.all("upgrade").count() > 0;
    let connection: Vec<&[u8]> = message.all("connection").collect();
    if connection != [b"upgrade".as_slice()][..usize::from(is_upgrade)] {
        return Err(format!("Connection {connection:?}"));
    }
    for name in [
        "te",
        "keep-alive",
        "proxy-connection",
        "http2-settings",
        "content_length",
        "transfer_encoding",
    ] {
        if message.all(name).count() > 0 {
            return Err(format!("{name} was forwarded"));
        }
    }
    let framing = framing(&message)?.unwrap_or(Framing::Length(0));
    body(bytes, fields_end, framing, &mut message)
}

/// Reads one response to `method`. `ended`: the connection has ended in order behind `bytes`.
pub fn response(bytes: &[u8], method: &[u8], ended: bool) -> Result<Read, Wrong> {
    let Some((mut message, fields_end)) = head(bytes)? else {
        return Ok(Read::Part);
    };
    let code = message.word(1);
    if message.word(0) != b"HTTP/1.1"
        || code.len() != 3
        || !matches!(code[0], b'1'..=b'5')
        || !code.iter().all(u8::is_ascii_digit)
        || message.start.get(12) != Some(&b' ')
    {
        return Err(format!("status line {:?}", show(&message.start)));
    }
    let status = message.status();
    let told = framing(&message)?;
    if (status < 200 || status == 204) && told.is_some() {
        return Err(format!("{status} with framing"));
    }
    let framing = match told {
        _ if status < 200 || status == 204 || status == 304 || method == b"HEAD" => {
            Framing::Length(0)
        }
        Some(framing) => framing,
        None if ended => Framing::Length((bytes.len() - fields_end) as u64),
        None => return Ok(Read::Part),
    };
    body(bytes, fields_end, framing, &mut message)
}

#[derive(Debug, Clone, Copy)]
enum Framing {
    Length(u64),
    Chunked,
}

fn framing(message: &Message) -> Result<Option<Framing>, Wrong> {
    let lengths: Vec<&[u8]> = message.all("content-length").collect();
    let codings: Vec<&[u8]> = message.all("transfer-encoding").collect();
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(None),
        ([], [b"chunked"]) => Ok(Some(Framing::Chunked)),
        ([length], []) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => {
            let text = String::from_utf8_lossy(length);
            text.parse()
                .map(|length| Some(Framing::Length(length)))
                .map_err(|e| format!("Content-Length {text}: {e}"))
        }
        _ => Err(format!("framing {lengths:?} {codings:?}")),
    }
}

/// Start line and fields, and where the fields end.
fn head(bytes: &[u8]) -> Result<Option<(Message, usize)>, Wrong> {
    let Some((start, mut at)) = line(bytes, 0)? else {
        return Ok(None);
    };
    if start.is_empty() {
        return Err("an empty line before a message".to_owned());
    }
    let mut fields = Vec::new();
    loop {
        match line(bytes, at)? {
            None => return Ok(None),
            Some(([], next)) => {
                let message = Message {
                    start: start.to_vec(),
                    fields,
                    body: Vec::new(),
                    trailers: Vec::new(),
                    len: 0,
                };
                return Ok(Some((message, next)));
            }
            Some((text, next)) => {
                fields.push(field(text)?);
                at = next;
            }
        }
    }
}

fn body(
    bytes: &[u8],
    start: usize,
    framing: Framing,
    message: &mut Message,
) -> Result<Read, Wrong> {
    match framing {
        Framing::Length(length) => {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let Some(body) = start
                .checked_add(length)
                .and_then(|end| bytes.get(start..end))
            else {
                return Ok(Read::Part);
            };
            message.body = body.to_vec();
            message.len = start + length;
        }
        Framing::Chunked => match chunks(bytes, start, message)? {
            None => return Ok(Read::Part),
            Some(end) => message.len = end,
        },
    }
    Ok(Read::Whole(message.clone()))
}

/// Reads chunks and trailers; where they end.
fn chunks(bytes: &[u8], start: usize, message: &mut Message) -> Result<Option<usize>, Wrong> {
    let mut at = start;
    loop {
        let Some((size, next)) = line(bytes, at)? else {
            return Ok(None);
        };
        let canonical = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if size.is_empty() || size.len() > 16 || !size.iter().all(canonical) {
            return Err(format!("chunk size {:?}", show(size)));
        }
        let digits = size.iter().fold(0u64, |sum, b| {
            sum << 4 | u64::from(char::from(*b).to_digit(16).unwrap_or(0))
        });
        let size = usize::try_from(digits).unwrap_or(usize::MAX);
        at = next;
        if size == 0 {
            break;
        }
        let Some(end) = at.checked_add(size).filter(|end| *end + 2 <= bytes.len()) else {
            return Ok(None);
        };
        message.body.extend_from_slice(&bytes[at..end]);
        if bytes[end..end + 2] != *b"\r\n" {
            return Err("no CRLF behind a chunk".to_owned());
        }
        at = end + 2;
    }
    loop {
        match line(bytes, at)? {
            None => return Ok(None),
            Some(([], next)) => return Ok(Some(next)),
            Some((text, next)) => {
                message.trailers.push(field(text)?);
                at = next;
            }
        }
    }
}

/// The line at `at` without its CRLF, and where the next one begins.
fn line(bytes: &[u8], at: usize) -> Result<Option<(&[u8], usize)>, Wrong> {
    let rest = &bytes[at..];
    let Some(end) = rest.iter().position(|b| matches!(b, b'\r' | b'\n')) else {
        return Ok(None);
    };
    match (rest[end], rest.get(end + 1)) {
        (b'\r', Some(b'\n')) => Ok(Some((&rest[..end], at + end + 2))),
        (b'\r', None) => Ok(None),
        _ => Err(format!("a bare line end behind {:?}", show(&rest[..end]))),
    }
}

/// `name: value`, exactly so, or with an empty value.
fn field(text: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Wrong> {
    let wrong = || format!("field line {:?}", show(text));
    let colon = text.iter().position(|b| *b == b':').ok_or_else(wrong)?;
    let (name, rest) = (&text[..colon], &text[colon + 1..]);
    let value = rest.strip_prefix(b" ").ok_or_else(wrong)?;
    let is_padded =
        matches!(value.first(), Some(b' ' | b'\t')) || matches!(value.last(), Some(b' ' | b'\t'));
    let is_value = value
        .iter()
        .all(|b| *b == b'\t' || *b >= 0x20 && *b != 0x7f);
    if !is_token(name) || is_padded || !is_value {
        return Err(wrong());
    }
    Ok((name.to_vec(), value.to_vec()))
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty()
        && text
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

fn is_host(text: &[u8]) -> bool {
    !text.is_empty()
        && text
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~:[]".contains(b))
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
