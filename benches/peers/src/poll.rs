//! The little that the backends, the floor and the load generator share: an epoll instance, non-blocking sockets on
//! loopback, and a table of connections by number. Everything here is edge-triggered where the caller says so; an
//! event for a number that was given to a new connection meanwhile is harmless, because all readers take "nothing
//! there" for an answer.

use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

pub(crate) use rustix::event::epoll::EventFlags;
use rustix::event::{Timespec, epoll};
use socket2::{Domain, Protocol, Socket, Type};

/// What most connections are registered for, once and for good.
pub(crate) const BOTH_WAYS: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// Events of one wait, at the most.
const EVENTS: usize = 512;

/// An epoll instance and the events of its last wait.
pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<(usize, bool)>,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
        })
    }

    pub(crate) fn add(&self, fd: impl AsFd, number: usize, flags: EventFlags) -> io::Result<()> {
        let data = epoll::EventData::new_u64(number as u64);
        Ok(epoll::add(&self.epoll, fd, data, flags)?)
    }

    /// Waits for events, or until the time is over (`None`: for ever), and says how many there are.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map(|time| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        });
        self.events.clear();
        let mut room = [MaybeUninit::uninit(); EVENTS];
        let events = match epoll::wait(&self.epoll, &mut room, timeout.as_ref()) {
            Ok((events, _)) => &*events,
            Err(rustix::io::Errno::INTR) => &[],
            Err(error) => return Err(error.into()),
        };
        let over = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        self.events.extend(events.iter().map(|event| {
            let epoll::Event { flags, data } = *event;
            (data.u64() as usize, flags.intersects(over))
        }));
        Ok(self.events.len())
    }

    /// One event of the last wait: the number it was registered under, and whether the other side has ended. If it
    /// has, no further event says so, and a reader that stops at an empty socket would miss the end.
    pub(crate) fn event(&self, index: usize) -> (usize, bool) {
        self.events[index]
    }
}

/// Lets time pass.
pub(crate) fn pause(time: Duration) -> io::Result<()> {
    Poll::new()?.wait(Some(time)).map(drop)
}

/// A listening socket on a free port of 127.0.0.1. With `everywhere` on every address of the loopback device, so that
/// one socket can stand for thousands of backends; other devices do not reach it then either.
pub(crate) fn listen(everywhere: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    let address = if everywhere {
        socket.bind_device(Some(b"lo"))?;
        Ipv4Addr::UNSPECIFIED
    } else {
        Ipv4Addr::LOCALHOST
    };
    socket.bind(&SocketAddr::from((address, 0)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Begins to connect; the first write may have to wait. `from` is the local address, if it matters.
pub(crate) fn connect(to: SocketAddr, from: Option<SocketAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(from) = from {
        socket.set_reuse_address(true)?;
        socket.bind(&from.into())?;
    }
    match socket.connect(&to.into()) {
        Err(error)
            if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
        {
            Err(error)
        }
        _ => Ok(socket.into()),
    }
}

/// Accepts one connection, ready for use, if one is waiting.
pub(crate) fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            Ok(Some(stream))
        }
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::ConnectionAborted
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// `None` for "not now", so that only real failures are errors.
pub(crate) fn attempt(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(None)
        }
        // A socket whose handshake is still under way.
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(None),
        Err(error) => Err(error),
    }
}

/// Things by number; a number that became free is used again.
pub(crate) struct Numbered<T> {
    places: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Numbered<T> {
    pub(crate) fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(crate) fn insert(&mut self, thing: T) -> usize {
        if let Some(number) = self.free.pop() {
            self.places[number] = Some(thing);
            number
        } else {
            self.places.push(Some(thing));
            self.places.len() - 1
        }
    }

    pub(crate) fn get(&mut self, number: usize) -> Option<&mut T> {
        self.places.get_mut(number).and_then(Option::as_mut)
    }

    pub(crate) fn remove(&mut self, number: usize) -> Option<T> {
        let thing = self.places.get_mut(number).and_then(Option::take);
        if thing.is_some() {
            self.free.push(number);
        }
        thing
    }
}
