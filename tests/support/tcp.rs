//! Sample TCP backends.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::port::Port;
use super::wait::PATIENCE;
use super::{pattern, runtime};

/// A listener whose sessions are handled by a function of the test, or echo.
pub struct TcpBackend {
    /// Where it listens.
    pub addr: SocketAddr,
    sessions: Arc<AtomicU64>,
    open: Arc<AtomicU64>,
    _port: Port,
    accept: JoinHandle<()>,
}

impl TcpBackend {
    /// Sends back whatever comes, and the end too.
    pub fn echo() -> Self {
        Self::echo_on("127.0.0.1")
    }

    /// The same on a free port of `ip`.
    pub fn echo_on(ip: &str) -> Self {
        Self::start(ip, |stream, open| {
            tokio::spawn(async move {
                let _open = open;
                let mut stream = tokio::net::TcpStream::from_std(stream)?;
                stream.set_nodelay(true)?;
                let mut buffer = Vec::with_capacity(1024);
                loop {
                    buffer.clear();
                    if stream.read_buf(&mut buffer).await? == 0 {
                        return stream.shutdown().await;
                    }
                    stream.write_all(&buffer).await?;
                }
            });
        })
    }

    /// Gives each session, as a blocking stream, to `handle` on a thread of its own.
    pub fn threads(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let handle = Arc::new(handle);
        Self::start("127.0.0.1", move |stream, open| {
            let handle = Arc::clone(&handle);
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            std::thread::spawn(move || {
                let _open = open;
                handle(stream);
            });
        })
    }

    fn start(ip: &str, each: impl Fn(TcpStream, Open) + Send + Sync + 'static) -> Self {
        let port = Port::reserve(ip);
        let listener = port.listen();
        let sessions = Arc::new(AtomicU64::new(0));
        let open = Arc::new(AtomicU64::new(0));
        let (counted, opened) = (Arc::clone(&sessions), Arc::clone(&open));
        let accept = runtime().spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                counted.fetch_add(1, Relaxed);
                opened.fetch_add(1, Relaxed);
                each(stream.into_std().unwrap(), Open(Arc::clone(&opened)));
            }
        });
        Self {
            addr: port.addr,
            sessions,
            open,
            _port: port,
            accept,
        }
    }

    /// Sessions accepted.
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Relaxed)
    }

    /// Sessions open now.
    pub fn open_sessions(&self) -> u64 {
        self.open.load(Relaxed)
    }
}

impl Drop for TcpBackend {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

struct Open(Arc<AtomicU64>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Sends `length` bytes of the [`pattern`] and receives and compares as many, both at once; then both ends end.
///
/// Returns what went wrong.
pub fn exchange_pattern(stream: &TcpStream, length: u64) -> Result<(), String> {
    let writer = stream.try_clone().map_err(|e| e.to_string())?;
    std::thread::scope(|scope| {
        let sent = scope.spawn(move || {
            send_pattern(&writer, length)?;
            let end = writer.shutdown(std::net::Shutdown::Write);
            end.map_err(|e| format!("ending: {e}"))
        });
        let received = receive_pattern(stream, length);
        sent.join()
            .map_err(|_| "the sender panicked".to_owned())??;
        received
    })
}

/// Sends `length` bytes of the [`pattern`].
pub fn send_pattern(mut stream: &TcpStream, length: u64) -> Result<(), String> {
    use std::io::Write;
    let mut done = 0;
    while done < length {
        let piece = pattern::slice(done, (length - done).min(512 << 10));
        stream
            .write_all(piece)
            .map_err(|e| format!("sending, after {done} bytes: {e}"))?;
        done += piece.len() as u64;
    }
    Ok(())
}

/// Receives to the end and compares; there must be exactly `length` bytes.
pub fn receive_pattern(mut stream: &TcpStream, length: u64) -> Result<(), String> {
    use std::io::Read;
    let mut buffer = vec![0; 512 << 10];
    let mut done = 0;
    loop {
        let n = stream
            .read(&mut buffer)
            .map_err(|e| format!("receiving, after {done} bytes: {e}"))?;
        if n == 0 {
            break;
        }
        pattern::check(done, &buffer[..n])?;
        done += n as u64;
    }
    match done == length {
        true => Ok(()),
        false => Err(format!("{done} bytes came, not {length}")),
    }
}
