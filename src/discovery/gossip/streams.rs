//! Push-pull over TCP: a frame is its length (4 bytes, big-endian) and its bytes.
//!
//! A stream that is asked for must show in its first frame, within two seconds, that it has the key; until then it
//! costs a few hundred bytes, and 64 of them at the most. Eight that have shown it go on at a time. All of an exchange
//! ends within ten seconds.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::timeout;
use tracing::debug;

use super::driver::Shared;
use crate::gossip::exchange::{Exchange, ExchangeError, MAX_FRAME, Progress};

/// From the first byte to the last.
const EXCHANGE_WITHIN: Duration = Duration::from_secs(10);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const HELLO_WITHIN: Duration = Duration::from_secs(2);
/// Longest first frame, bytes.
const MAX_HELLO: usize = 256;
/// Streams that have not shown yet that they may speak.
const MOST_STRANGERS: usize = 64;
/// Streams that exchange.
const MOST_EXCHANGES: usize = 8;
/// Own exchanges that wait or run.
const MOST_ASKED: usize = 4;
/// After an accept that failed for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("no connection: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error("it took too long")]
    Timeout(#[from] tokio::time::error::Elapsed),
    #[error("a frame is too long")]
    Long,
    #[error("too many exchanges at once")]
    Busy,
}

/// The streams of a member; those that run end with it.
pub(super) struct Streams {
    shared: Rc<Shared>,
    accepting: AbortHandle,
    asked: Rc<Semaphore>,
}

impl Streams {
    pub fn start(shared: Rc<Shared>, listener: TcpListener) -> Self {
        let accepting = spawn_local(accept(Rc::clone(&shared), listener)).abort_handle();
        Self {
            shared,
            accepting,
            asked: Rc::new(Semaphore::new(MOST_ASKED)),
        }
    }

    /// Begins an exchange with a member and tells the node how it ended.
    pub fn ask(&self, member: SocketAddr) {
        let (shared, asked) = (Rc::clone(&self.shared), Rc::clone(&self.asked));
        spawn_local(async move {
            let ended = match asked.try_acquire() {
                Ok(_place) => ask(&shared, member).await,
                Err(_) => Err(StreamError::Busy),
            };
            if let Err(error) = &ended {
                debug!(%member, %error, "gossip: no exchange");
            }
            let now = shared.now();
            shared.node.borrow_mut().exchange_ended(ended.is_ok(), now);
            shared.poke.notify_one();
        });
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn ask(shared: &Shared, member: SocketAddr) -> Result<(), StreamError> {
    timeout(EXCHANGE_WITHIN, async {
        let mut stream = timeout(CONNECT_WITHIN, TcpStream::connect(member)).await??;
        stream.set_nodelay(true)?;
        let now = shared.now();
        let (exchange, hello) = Exchange::client(&mut shared.node.borrow_mut(), member, now);
        write(&mut stream, &[hello]).await?;
        go_on(shared, &mut stream, exchange, MAX_FRAME).await
    })
    .await?
}

/// Takes frames and sends answers until the exchange is over.
async fn go_on(
    shared: &Shared,
    stream: &mut TcpStream,
    mut exchange: Exchange,
    most: usize,
) -> Result<(), StreamError> {
    loop {
        let mut frame = read(stream, most).await?;
        let mut out = Vec::new();
        let now = shared.now();
        let progress = exchange.take(&mut shared.node.borrow_mut(), &mut frame, &mut out, now);
        shared.poke.notify_one();
        let progress = progress?;
        write(stream, &out).await?;
        if progress == Progress::Done {
            return Ok(());
        }
    }
}

async fn accept(shared: Rc<Shared>, listener: TcpListener) {
    let strangers = Rc::new(Semaphore::new(MOST_STRANGERS));
    let exchanges = Rc::new(Semaphore::new(MOST_EXCHANGES));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "gossip: no stream accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let (shared, exchanges) = (Rc::clone(&shared), Rc::clone(&exchanges));
        let strangers = Rc::clone(&strangers);
        spawn_local(async move {
            // One more than there is room for is closed.
            let Ok(place) = strangers.try_acquire() else {
                return;
            };
            let answered = answer(&shared, stream, &exchanges, place).await;
            if let Err(error) = answered {
                debug!(%error, "gossip: an exchange that was asked for ended early");
            }
        });
    }
}

async fn answer(
    shared: &Shared,
    mut stream: TcpStream,
    exchanges: &Semaphore,
    stranger: tokio::sync::SemaphorePermit<'_>,
) -> Result<(), StreamError> {
    stream.set_nodelay(true)?;
    let mut exchange = Exchange::server();
    let mut hello = timeout(HELLO_WITHIN, read(&mut stream, MAX_HELLO)).await??;
    let mut out = Vec::new();
    let now = shared.now();
    exchange.take(&mut shared.node.borrow_mut(), &mut hello, &mut out, now)?;
    drop(stranger);
    let Ok(_place) = exchanges.try_acquire() else {
        return Err(StreamError::Busy);
    };
    timeout(EXCHANGE_WITHIN, async {
        write(&mut stream, &out).await?;
        go_on(shared, &mut stream, exchange, MAX_FRAME).await
    })
    .await?
}

async fn read(stream: &mut TcpStream, most: usize) -> Result<Vec<u8>, StreamError> {
    let length = stream.read_u32().await? as usize;
    if length > most {
        return Err(StreamError::Long);
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

async fn write(stream: &mut TcpStream, frames: &[Vec<u8>]) -> io::Result<()> {
    let length = frames.iter().map(|frame| frame.len() + 4).sum();
    let mut bytes = Vec::with_capacity(length);
    for frame in frames {
        bytes.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        bytes.extend_from_slice(frame);
    }
    stream.write_all(&bytes).await
}
