//! A long-lived upgraded connection that echoes when a test asks for it.

use std::io;
use std::net::SocketAddr;

use super::client::Client;

/// The request that opens a WebSocket (RFC 6455 4.1).
pub fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// An open tunnel.
pub struct Tunnel {
    /// The connection.
    pub client: Client,
    /// Id of the backend at its end.
    pub backend: String,
    rounds: u64,
}

impl Tunnel {
    /// Opens it and checks the answer.
    #[track_caller]
    pub fn open(addr: SocketAddr, path: &str) -> Self {
        let mut client = Client::connect(addr);
        client.send(handshake(path));
        let head = client.read_head("GET").unwrap().response;
        assert_eq!(head.status, 101, "{head:?}");
        assert!(head.fields.lists("upgrade", "websocket"), "{head:?}");
        assert!(head.fields.lists("connection", "upgrade"), "{head:?}");
        Self {
            backend: head.backend().to_owned(),
            client,
            rounds: 0,
        }
    }

    /// Sends something new and reads it back.
    pub fn try_echo(&mut self) -> io::Result<()> {
        self.rounds += 1;
        let message = format!("message {} \0\r\n\r\n", self.rounds);
        io::Write::write_all(&mut self.client.stream, message.as_bytes())?;
        match self.client.read_exactly(message.len())? {
            same if same == message.as_bytes() => Ok(()),
            other => Err(io::Error::other(format!("{other:?} is no echo"))),
        }
    }

    /// The same, where it must work.
    #[track_caller]
    pub fn echo(&mut self) {
        self.try_echo().unwrap();
    }
}
