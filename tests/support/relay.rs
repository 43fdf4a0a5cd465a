//! A relay before a member of the peer set: datagrams and streams to its advertised address go through it, and it may
//! lose them, delay them, or take none of one sender. It keeps what it has carried.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::port::Port;
use super::runtime;

/// What a relay does to what it carries.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    /// Share of datagrams that are lost.
    pub loss: f64,
    /// Time that each datagram takes more.
    pub delay: Duration,
    /// Senders whose datagrams and streams are not carried.
    pub deaf_to: Vec<SocketAddr>,
}

/// See the module.
pub struct Relay {
    /// Where it is reached: what its member advertises.
    pub addr: SocketAddr,
    weather: Arc<Mutex<Weather>>,
    carried: Arc<Mutex<Vec<u8>>>,
    _port: Port,
}

impl Relay {
    /// At a free port of `ip`, before the member that is bound to `member`.
    pub fn start(ip: &str, member: SocketAddr) -> Self {
        let port = Port::reserve(ip);
        let relay = Self {
            addr: port.addr,
            weather: Arc::default(),
            carried: Arc::default(),
            _port: port,
        };
        relay.carry_datagrams(member);
        relay.carry_streams(member);
        relay
    }

    /// Changes the weather from now on.
    pub fn set(&self, weather: Weather) {
        *self.weather.lock().unwrap() = weather;
    }

    /// All bytes that went through, both ways.
    pub fn carried(&self) -> Vec<u8> {
        self.carried.lock().unwrap().clone()
    }

    fn carry_datagrams(&self, member: SocketAddr) {
        let socket = UdpSocket::bind(self.addr).unwrap();
        socket.set_nonblocking(true).unwrap();
        let (weather, carried) = (Arc::clone(&self.weather), Arc::clone(&self.carried));
        runtime().spawn(async move {
            let socket = Arc::new(tokio::net::UdpSocket::from_std(socket).unwrap());
            let mut random = fastrand::Rng::with_seed(7);
            let mut buffer = vec![0; 65_536];
            loop {
                // A refusal is an answer to something sent earlier: the member is not there.
                let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
                    continue;
                };
                let datagram = buffer[..length].to_vec();
                carried.lock().unwrap().extend_from_slice(&datagram);
                let now = weather.lock().unwrap().clone();
                if random.f64() < now.loss || now.deaf_to.contains(&from) {
                    continue;
                }
                let socket = Arc::clone(&socket);
                tokio::spawn(async move {
                    tokio::time::sleep(now.delay).await;
                    let _ = socket.send_to(&datagram, member).await;
                });
            }
        });
    }

    fn carry_streams(&self, member: SocketAddr) {
        let listener = super::port::listen(self.addr);
        let carried = Arc::clone(&self.carried);
        runtime().spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                let carried = Arc::clone(&carried);
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(member).await else {
                        return;
                    };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let there = pump(from_client, to_server, Arc::clone(&carried));
                    let back = pump(from_server, to_client, carried);
                    tokio::join!(there, back);
                });
            }
        });
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    carried: Arc<Mutex<Vec<u8>>>,
) {
    let mut buffer = vec![0; 65_536];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => {
                carried.lock().unwrap().extend_from_slice(&buffer[..length]);
                if to.write_all(&buffer[..length]).await.is_err() {
                    break;
                }
            }
        }
    }
    let _ = to.shutdown().await;
}
