//! A warm request takes no memory on its whole way: the program itself, in this process, between a client and a backend
//! that ask for none. The allocator counts for all threads. (The access log, which is off by default, takes some for
//! each batch of lines that it hands to its writer.)

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use crate::alone;
use crate::counting::asked_by_others;

const REQUEST: &[u8] =
    b"GET /items/7?page=2 HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: curl/8.11.0\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";
/// Far longer than anything here should take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Requests before the way counts as warm.
const WARM: u64 = 2_000;
/// Requests that are counted.
const COUNTED: u64 = 5_000;

/// Answers one connection, request by request.
fn answer(listener: TcpListener) {
    let (mut stream, _) = listener.accept().expect("the proxy connects");
    stream.set_nodelay(true).expect("it is a socket");
    let mut buffer = [0; 4096];
    let mut end = 0;
    loop {
        match stream.read(&mut buffer[end..]) {
            Ok(0) | Err(_) => return,
            Ok(read) => end += read,
        }
        if buffer[..end].ends_with(b"\r\n\r\n") {
            end = 0;
            if stream.write_all(ANSWER).is_err() {
                return;
            }
        }
    }
}

/// Starts the proxy before `backend`; it ends with the process.
fn start(backend: SocketAddr, folder: &Path) -> SocketAddr {
    let file = folder.join("lb.toml");
    let text = format!(
        "workers = 1\nwatch = false\n[[listener]]\naddress = \"127.0.0.1:0\"\ncluster = \"web\"\n\
         [cluster.web]\nbackends = [\"{backend}\"]\n"
    );
    std::fs::write(&file, text).expect("a folder of ours");
    let (ready, is_ready) = mpsc::channel();
    std::thread::spawn(move || {
        let on_ready = Box::new(move |snapshot: &lbproxy::internals::snapshot::Snapshot| {
            let _ = ready.send(snapshot.listeners[0].sockets.address().ip());
        });
        lbproxy::internals::app::run_with(&[file], on_ready, None).expect("the file is right");
    });
    let bound = is_ready.recv_timeout(PATIENCE).expect("it starts");
    bound.expect("an address of TCP")
}

#[test]
fn a_warm_request_takes_no_memory_on_its_whole_way() {
    let _one = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let backend = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = backend.local_addr().expect("it is bound");
    std::thread::spawn(move || answer(backend));
    let proxy = start(addr, folder.path());
    let mut client = TcpStream::connect(proxy).expect("it listens");
    client
        .set_read_timeout(Some(PATIENCE))
        .expect("it is a socket");
    client.set_nodelay(true).expect("it is a socket");
    let mut before = asked_by_others();
    let start = before;
    let mut buffer = [0; 4096];
    for turn in 0..WARM + COUNTED {
        if turn == WARM {
            before = asked_by_others();
        }
        client.write_all(REQUEST).expect("it is read");
        let mut end = 0;
        while !buffer[..end].ends_with(b"\r\n\r\nok") {
            let read = client.read(&mut buffer[end..]).expect("it is answered");
            assert!(read > 0, "cut after {turn} requests");
            end += read;
        }
    }
    let calls = asked_by_others() - before;
    println!("{calls} calls for memory in {COUNTED} requests");
    assert!(before > start, "the counter moves");
    // Something that comes from time to time may ask; a request may not.
    assert!(calls < COUNTED / 100, "{calls} calls in {COUNTED} requests");
}
