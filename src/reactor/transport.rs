//! A socket with its input and its output: bytes in, bytes out, until the kernel says `WouldBlock`.
//!
//! Knows no protocol. mio is edge-triggered: `readable` stays set until a read has shown that nothing is left, so a
//! connection that was left alone in between loses nothing.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use super::buffer::{BLOCK_BYTES, Buffer, Pool};
#[cfg(not(target_os = "linux"))]
use super::copy_file::send_file;
use super::output::{Output, Sink, Written};
#[cfg(target_os = "linux")]
use super::sendfile::send_file;

/// Bytes written for one connection in one turn, so that a large download leaves time for the others.
const WRITE_BYTES_PER_TURN: usize = 1 << 20;

/// Tells the kernel that a file follows, so that a head does not leave as a packet of its own.
#[cfg(target_os = "linux")]
const MORE: i32 = libc::MSG_MORE;
#[cfg(not(target_os = "linux"))]
const MORE: i32 = 0;

pub(crate) struct Transport {
    socket: TcpStream,
    pub input: Buffer,
    pub output: Output,
    /// A read may give something.
    pub readable: bool,
    /// The kernel announced the end or an error: read until it shows.
    pub hung_up: bool,
    /// The peer has finished sending, and all that it sent has been read.
    pub ended: bool,
    /// What the poll has been asked to announce.
    watched: Option<Interest>,
}

/// What came of filling the input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// So many bytes; none is the end.
    Some(usize),
    /// Nothing new.
    Nothing,
}

impl Transport {
    /// A socket that may have something to read and is not watched.
    pub fn new(socket: TcpStream) -> Transport {
        Transport {
            socket,
            input: Buffer::default(),
            output: Output::default(),
            readable: true,
            hung_up: false,
            ended: false,
            watched: None,
        }
    }

    /// Asks for events, unless that was done. What is true already is announced at once, so it is never too late for
    /// this: a connection that closes in the turn that took it in is never watched at all.
    pub fn watch(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        match self.watched {
            Some(watched) if watched == interest | watched => return Ok(()),
            Some(_) => registry.reregister(&mut self.socket, token, interest)?,
            None => registry.register(&mut self.socket, token, interest)?,
        }
        self.watched = Some(interest);
        Ok(())
    }

    /// Whether a connection that is being opened is there now.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub fn is_connected(&mut self) -> io::Result<bool> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        match self.socket.peer_addr() {
            Ok(_) => {
                self.socket.set_nodelay(true)?;
                Ok(true)
            }
            Err(e) if e.kind() == ErrorKind::NotConnected => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Whether nothing is known to be unread, here or in the kernel: closing now costs the peer nothing.
    pub fn is_drained(&self) -> bool {
        self.ended || (self.input.is_empty() && !self.readable)
    }

    /// Whether a read may give something and there is room for it.
    pub fn can_fill(&self, input_bytes_max: usize) -> bool {
        self.readable && !self.ended && self.input.len() < input_bytes_max
    }

    /// Reads once into the input.
    pub fn fill(&mut self, input_bytes_max: usize, pool: &mut Pool) -> io::Result<Filled> {
        if !self.can_fill(input_bytes_max) {
            return Ok(Filled::Nothing);
        }
        pool.lend(&mut self.input);
        let room = self.input.room(input_bytes_max);
        let room_bytes = room.len();
        match retry(|| self.socket.read(room)) {
            Ok(0) => {
                (self.ended, self.readable) = (true, false);
                Ok(Filled::Some(0))
            }
            Ok(count) => {
                // A short read has emptied the socket: what comes later is announced anew. Only an end that was
                // announced with the bytes is not announced again.
                self.readable = count == room_bytes || self.hung_up;
                self.input.commit(count);
                Ok(Filled::Some(count))
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                pool.settle(&mut self.input);
                Ok(Filled::Nothing)
            }
            Err(e) => Err(e),
        }
    }

    /// Reads once and forgets what came. `true` when the end was reached.
    pub fn discard(&mut self) -> io::Result<bool> {
        let mut waste = [0; BLOCK_BYTES];
        match retry(|| self.socket.read(&mut waste)) {
            Ok(0) => Ok(true),
            Ok(_) => Ok(false),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    /// Writes until the output is empty, the kernel takes no more, or this turn's share has gone. Asks for writability
    /// only when the kernel takes no more.
    pub fn flush(&mut self, registry: &Registry, token: Token, pool: &mut Pool) -> io::Result<Written> {
        let written = self.output.write_to(&mut self.socket, WRITE_BYTES_PER_TURN)?;
        if written == Written::Blocked {
            self.watch(registry, token, Interest::READABLE | Interest::WRITABLE)?;
        }
        pool.settle(self.output.buffer());
        Ok(written)
    }

    /// Tells the peer that nothing more will come.
    pub fn finish(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// Makes the coming close a reset, which the peer cannot take for an orderly end.
    pub fn reset_on_close(&self) {
        if let Err(e) = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)) {
            log::debug!("cannot reset a connection: {e}");
        }
    }
}

impl Sink for TcpStream {
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        retry(|| self.write(bytes))
    }

    fn send_parts(&mut self, parts: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        match (parts, more) {
            ([part], false) => self.send(part),
            (_, false) => retry(|| self.write_vectored(parts)),
            (_, true) => retry(|| SockRef::from(&*self).send_vectored_with_flags(parts, MORE)),
        }
    }

    fn send_file(&mut self, file: &File, offset: u64, len: usize) -> io::Result<usize> {
        retry(|| send_file(self, file, offset, len))
    }
}

/// Repeats a system call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
