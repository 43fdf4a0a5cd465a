//! Push-pull over TCP: a frame is its length (4 bytes, big-endian) and its bytes.
//!
//! An incoming stream is unverified until its second frame opens, within two seconds: the first frame may be a recorded
//! one, but the second is sealed in the context of random bytes drawn for this stream. An unverified stream costs a few
//! kilobytes; there are at most 128, and 16 from one address, and the newest displaces the oldest. At most eight
//! verified streams run at a time. A push-pull ends within ten seconds.

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

use super::shared::SharedNode;
use crate::gossip::push_pull::{MAX_FRAME, PushPull, PushPullError, PushPullProgress};

/// Time for a whole push-pull.
const PUSH_PULL_WITHIN: Duration = Duration::from_secs(10);
/// Time to connect.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Time for an incoming stream to be verified.
const VERIFY_WITHIN: Duration = Duration::from_secs(2);
/// Longest first frame and longest second frame of an incoming stream, bytes.
const MAX_HELLO: usize = 256;
const MAX_SUMMARY: usize = 5 * 1024;
/// Most unverified streams: in all, and from one address.
const MAX_UNVERIFIED: usize = 128;
const MAX_FROM_ONE: usize = 16;
/// Most verified incoming streams.
const MAX_INCOMING: usize = 8;
/// Most outgoing streams.
const MAX_OUTGOING: usize = 4;
/// Pause after an accept that failed for lack of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("no connection: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    PushPull(#[from] PushPullError),
    #[error("it took too long")]
    Timeout(#[from] tokio::time::error::Elapsed),
    #[error("a frame is too long")]
    Long,
    #[error("too many push-pulls at once")]
    Busy,
}

/// The streams of a member. Dropping it stops accepting; push-pulls that run come to their end.
pub(super) struct PushPullStreams {
    shared: Rc<SharedNode>,
    accepting: AbortHandle,
    outgoing: Rc<Semaphore>,
}

impl PushPullStreams {
    pub(super) fn start(shared: Rc<SharedNode>, listener: TcpListener) -> Self {
        let accepting = spawn_local(accept(Rc::clone(&shared), listener)).abort_handle();
        Self {
            shared,
            accepting,
            outgoing: Rc::new(Semaphore::new(MAX_OUTGOING)),
        }
    }

    /// Starts a push-pull with a member, and tells the node how it ended.
    pub(super) fn push_pull(&self, member: SocketAddr) {
        let (shared, outgoing) = (Rc::clone(&self.shared), Rc::clone(&self.outgoing));
        spawn_local(async move {
            let _watch = PanicWatch(Rc::clone(&shared));
            let ended = match outgoing.try_acquire() {
                Ok(_permit) => ask(&shared, member).await,
                Err(_) => Err(StreamError::Busy),
            };
            if let Err(error) = &ended {
                debug!(%member, %error, "gossip: push-pull failed");
            }
            let now = shared.now();
            shared.node.borrow_mut().push_pull_ended(ended.is_ok(), now);
            shared.wake.notify_one();
        });
    }
}

/// Tells the driver about a panic in a task, which would otherwise end only the task and leave the node half changed.
struct PanicWatch(Rc<SharedNode>);

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panicked.set(true);
            self.0.wake.notify_one();
        }
    }
}

impl Drop for PushPullStreams {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn ask(shared: &SharedNode, member: SocketAddr) -> Result<(), StreamError> {
    timeout(PUSH_PULL_WITHIN, async {
        let mut stream = timeout(CONNECT_WITHIN, TcpStream::connect(member)).await??;
        stream.set_nodelay(true)?;
        let now = shared.now();
        let (push_pull, hello) = PushPull::client(&mut shared.node.borrow_mut(), member, now);
        write(&mut stream, &[hello]).await?;
        finish(shared, &mut stream, push_pull).await
    })
    .await?
}

/// Takes frames and sends answers until the push-pull is over.
async fn finish(
    shared: &SharedNode,
    stream: &mut TcpStream,
    mut push_pull: PushPull,
) -> Result<(), StreamError> {
    loop {
        let mut frame = read(stream, MAX_FRAME).await?;
        let mut out = Vec::new();
        let now = shared.now();
        let progress = push_pull.take(&mut shared.node.borrow_mut(), &mut frame, &mut out, now);
        shared.wake.notify_one();
        let progress = progress?;
        write(stream, &out).await?;
        if progress == PushPullProgress::Done {
            return Ok(());
        }
    }
}

async fn accept(shared: Rc<SharedNode>, listener: TcpListener) {
    let permits = Rc::new(Semaphore::new(MAX_INCOMING));
    let unverified = Rc::new(RefCell::new(Unverified::default()));
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "gossip: cannot accept a stream");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let (shared, permits) = (Rc::clone(&shared), Rc::clone(&permits));
        let ip = from.ip();
        let Some(number) = unverified.borrow_mut().add(ip) else {
            shared.node.borrow_mut().count_failed_push_pull();
            continue;
        };
        let list = Rc::clone(&unverified);
        let task = spawn_local(async move {
            let _watch = PanicWatch(Rc::clone(&shared));
            let verified = || list.borrow_mut().remove(number);
            let answered = answer(&shared, stream, &permits, verified).await;
            list.borrow_mut().remove(number);
            if let Err(error) = answered {
                shared.node.borrow_mut().count_failed_push_pull();
                debug!(%from, %error, "gossip: incoming push-pull ended early");
            }
        });
        let task = task.abort_handle();
        unverified.borrow_mut().set_task(number, task);
    }
}

/// Unverified streams, the oldest first: number, address, task.
#[derive(Default)]
struct Unverified {
    last: u64,
    streams: VecDeque<(u64, IpAddr, Option<AbortHandle>)>,
}

impl Unverified {
    /// Adds a stream from `ip`, and returns its number; `None` if there are too many from there. The oldest of all
    /// streams is ended if there is no room.
    fn add(&mut self, ip: IpAddr) -> Option<u64> {
        let from_there = self.streams.iter().filter(|(_, from, _)| *from == ip);
        if from_there.count() >= MAX_FROM_ONE {
            return None;
        }
        if self.streams.len() >= MAX_UNVERIFIED
            && let Some((_, _, Some(oldest))) = self.streams.pop_front()
        {
            oldest.abort();
        }
        self.last += 1;
        self.streams.push_back((self.last, ip, None));
        Some(self.last)
    }

    fn set_task(&mut self, number: u64, task: AbortHandle) {
        let entry = self.streams.iter_mut().find(|(of, _, _)| *of == number);
        if let Some(entry) = entry {
            entry.2 = Some(task);
        }
    }

    /// The stream is verified, or has ended.
    fn remove(&mut self, number: u64) {
        self.streams.retain(|(of, _, _)| *of != number);
    }
}

async fn answer(
    shared: &SharedNode,
    mut stream: TcpStream,
    permits: &Semaphore,
    verified: impl FnOnce(),
) -> Result<(), StreamError> {
    let mut push_pull = PushPull::server();
    let out = timeout(VERIFY_WITHIN, async {
        stream.set_nodelay(true)?;
        for most in [MAX_HELLO, MAX_SUMMARY] {
            let mut frame = read(&mut stream, most).await?;
            let mut out = Vec::new();
            let now = shared.now();
            push_pull.take(&mut shared.node.borrow_mut(), &mut frame, &mut out, now)?;
            if most == MAX_SUMMARY {
                return Ok::<_, StreamError>(out);
            }
            write(&mut stream, &out).await?;
        }
        Ok(Vec::new())
    })
    .await??;
    verified();
    let Ok(_permit) = permits.try_acquire() else {
        return Err(StreamError::Busy);
    };
    timeout(PUSH_PULL_WITHIN, async {
        write(&mut stream, &out).await?;
        finish(shared, &mut stream, push_pull).await
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
