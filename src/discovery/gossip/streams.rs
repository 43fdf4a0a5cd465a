//! Push-pull over TCP: a frame is its length (4 bytes, big-endian) and its bytes.
//!
//! A stream that is asked for is a stranger until its second frame opens, within two seconds: the first may be
//! somebody's who has recorded it, the second is sealed in the context of a number that was drawn for this stream. A
//! stranger costs a few kilobytes; there are 128 at the most and 16 of one address, and the oldest gives way to the
//! newest. Eight that are none exchange at a time. All of an exchange ends within ten seconds.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
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
const STRANGE_FOR: Duration = Duration::from_secs(2);
/// Longest first frame, and longest second, bytes.
const MAX_HELLO: usize = 256;
const MAX_SUMMARY: usize = 5 * 1024;
/// Streams that have not shown yet that they may speak; in all, and of one address.
const MOST_STRANGERS: usize = 128;
const MOST_OF_ONE: usize = 16;
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
    pub(super) fn start(shared: Rc<Shared>, listener: TcpListener) -> Self {
        let accepting = spawn_local(accept(Rc::clone(&shared), listener)).abort_handle();
        Self {
            shared,
            accepting,
            asked: Rc::new(Semaphore::new(MOST_ASKED)),
        }
    }

    /// Begins an exchange with a member and tells the node how it ended.
    pub(super) fn ask(&self, member: SocketAddr) {
        let (shared, asked) = (Rc::clone(&self.shared), Rc::clone(&self.asked));
        spawn_local(async move {
            let _watch = Watch(Rc::clone(&shared));
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

/// Tells the driver of a panic in a task, which would end the task alone and leave the node as it was left.
struct Watch(Rc<Shared>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.set(true);
            self.0.poke.notify_one();
        }
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
    let exchanges = Rc::new(Semaphore::new(MOST_EXCHANGES));
    let strangers = Rc::new(RefCell::new(Strangers::default()));
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "gossip: no stream accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let (shared, exchanges) = (Rc::clone(&shared), Rc::clone(&exchanges));
        let ip = from.ip();
        let Some(place) = strangers.borrow_mut().enter(ip) else {
            shared.node.borrow_mut().count_failed_exchange();
            continue;
        };
        let known = Rc::clone(&strangers);
        let task = spawn_local(async move {
            let _watch = Watch(Rc::clone(&shared));
            let leave = || known.borrow_mut().leave(place);
            let answered = answer(&shared, stream, &exchanges, leave).await;
            known.borrow_mut().leave(place);
            if let Err(error) = answered {
                shared.node.borrow_mut().count_failed_exchange();
                debug!(%from, %error, "gossip: an exchange that was asked for ended early");
            }
        });
        strangers.borrow_mut().give(place, task.abort_handle());
    }
}

/// Streams that have not shown yet that they may speak, the oldest first.
#[derive(Default)]
struct Strangers {
    next: u64,
    here: VecDeque<(u64, IpAddr, Option<AbortHandle>)>,
}

impl Strangers {
    /// A place for one more from `ip`, unless there are many from there; the oldest of all gives way if need be.
    fn enter(&mut self, ip: IpAddr) -> Option<u64> {
        if self.here.iter().filter(|(_, of, _)| *of == ip).count() >= MOST_OF_ONE {
            return None;
        }
        if self.here.len() >= MOST_STRANGERS
            && let Some((_, _, Some(oldest))) = self.here.pop_front()
        {
            oldest.abort();
        }
        self.next += 1;
        self.here.push_back((self.next, ip, None));
        Some(self.next)
    }

    fn give(&mut self, place: u64, task: AbortHandle) {
        if let Some(entry) = self.here.iter_mut().find(|(of, _, _)| *of == place) {
            entry.2 = Some(task);
        }
    }

    /// It has shown that it may speak, or has gone.
    fn leave(&mut self, place: u64) {
        self.here.retain(|(of, _, _)| *of != place);
    }
}

async fn answer(
    shared: &Shared,
    mut stream: TcpStream,
    exchanges: &Semaphore,
    no_stranger: impl FnOnce(),
) -> Result<(), StreamError> {
    let mut exchange = Exchange::server();
    let out = timeout(STRANGE_FOR, async {
        stream.set_nodelay(true)?;
        for most in [MAX_HELLO, MAX_SUMMARY] {
            let mut frame = read(&mut stream, most).await?;
            let mut out = Vec::new();
            let now = shared.now();
            exchange.take(&mut shared.node.borrow_mut(), &mut frame, &mut out, now)?;
            if most == MAX_SUMMARY {
                return Ok::<_, StreamError>(out);
            }
            write(&mut stream, &out).await?;
        }
        Ok(Vec::new())
    })
    .await??;
    no_stranger();
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
