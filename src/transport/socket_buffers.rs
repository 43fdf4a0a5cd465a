//! How much a socket can accept now, and how much of what it accepted has not been acknowledged. This is one of the two
//! modules that call the system without a safe wrapper (the other is [`super::memory`]).
//!
//! A large read pays off only if what is read can be written at once, since the rest has to be buffered. `SO_MEMINFO`
//! (Linux 4.12) has both sides of the kernel's own comparison (`sk_stream_memory_free`); `SIOCOUTQ` does not, since it
//! counts payload while the kernel counts buffers.

#![expect(
    unsafe_code,
    reason = "getsockopt(SO_MEMINFO) and ioctl(TIOCOUTQ) have no safe wrapper"
)]

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

/// Index of the send buffer's size in the kernel's array (`SK_MEMINFO_SNDBUF`, linux/sock_diag.h).
const SNDBUF: usize = 3;
/// Index of the bytes queued for sending (`SK_MEMINFO_WMEM_QUEUED`).
const WMEM_QUEUED: usize = 5;

/// Estimates how many bytes a write would accept; 0 if unknown. The kernel counts its buffers, not payload.
pub(crate) fn send_room(socket: &impl AsFd) -> usize {
    let mut info = [0u32; 9];
    let mut length = size_of::<[u32; 9]>() as libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` is borrowed; `info` and `length` are valid for writes, and the
    // kernel writes at most `length` bytes, which is the size of `info`; any bit pattern is a valid u32.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 || (length as usize) < (WMEM_QUEUED + 1) * size_of::<u32>() {
        return 0;
    }
    info[SNDBUF].saturating_sub(info[WMEM_QUEUED]) as usize
}

/// Bytes that the peer has not acknowledged, including those that are not sent yet; 0 if unknown.
pub(crate) fn send_queue(socket: &impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open while `socket` is borrowed; the kernel writes one int, which `bytes` is.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 {
        usize::try_from(bytes).unwrap_or(0)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_send_buffer_fills_up_if_the_peer_does_not_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (reader, _) = listener.accept().unwrap();
        let empty = send_room(&writer);
        assert!(empty > 0);
        writer.set_nonblocking(true).unwrap();
        while writer.write(&[0; 65536]).is_ok() {}
        assert!(send_room(&writer) < empty.max(65536));
        let mut before = send_queue(&writer);
        assert!(before > 0);
        (&reader).read_exact(&mut vec![0; before]).unwrap();
        while send_queue(&writer) >= before {
            before = send_queue(&writer);
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_descriptor_that_is_not_a_socket_has_no_room() {
        assert_eq!(send_room(&std::io::stdin()), 0);
    }
}
