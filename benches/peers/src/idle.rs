//! Memory of a client connection at rest: connections are opened one after another, each has one request answered, and
//! all stay open. What resident memory grows by from the 1,000th to the 5,000th, divided by 4,000, is the figure; the
//! first thousand pay for what is allocated once. Requests come one at a time, so few backend connections are open.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::figures::Figures;
use crate::load::Work;
use crate::measure::resident;
use crate::poll;

const FIRST: usize = 1000;
const LAST: usize = 5000;
/// How long memory may settle before it is read.
const SETTLE: Duration = Duration::from_millis(300);

pub(crate) fn measure(to: SocketAddr, process: u32, work: &Work) -> io::Result<Figures> {
    let Work::Http {
        requests, length, ..
    } = work
    else {
        return Err(io::Error::other("idle connections are measured with HTTP"));
    };
    let base = resident(process)?;
    let mut open = Vec::with_capacity(LAST);
    open_until(&mut open, FIRST, to, &requests[0], *length)?;
    poll::pause(SETTLE)?;
    let some = resident(process)?;
    open_until(&mut open, LAST, to, &requests[0], *length)?;
    poll::pause(SETTLE)?;
    let all = resident(process)?;
    Ok(Figures {
        cost: (all - some) / (LAST - FIRST) as f64,
        resident: base / 1024.0,
        ..Figures::default()
    })
}

fn open_until(
    open: &mut Vec<TcpStream>,
    count: usize,
    to: SocketAddr,
    request: &[u8],
    length: u64,
) -> io::Result<()> {
    let mut buffer = [0; 4096];
    while open.len() < count {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(request)?;
        let mut got = 0;
        let end = loop {
            let read = stream.read(&mut buffer[got..])?;
            got += read;
            if let Some(end) = memchr::memmem::find(&buffer[..got], b"\r\n\r\n") {
                break end + 4 + length as usize;
            }
            if read == 0 {
                return Err(io::Error::other("a connection ended early"));
            }
        };
        if !buffer.starts_with(b"HTTP/1.1 200") || end > buffer.len() {
            return Err(io::Error::other("another answer than was asked for"));
        }
        stream.read_exact(&mut buffer[got.min(end)..end])?;
        open.push(stream);
    }
    Ok(())
}
