//! No server, but the least that one could do: one read and one write for each wake, requests counted by their blank
//! lines and never looked at. What it costs is the kernel's share, and the floor for every server here.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use memchr::memmem;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use peers::{Args, HELLO};

const LISTENER: Token = Token(0);

fn main() -> io::Result<()> {
    let addr: SocketAddr = Args::parse().addr.parse().map_err(io::Error::other)?;
    let length = HELLO.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n{HELLO}"
    );
    let answers = answer.repeat(1024);
    let mut input = vec![0; 32 << 10];
    let blank_line = memmem::Finder::new("\r\n\r\n");

    let mut listener = TcpListener::bind(addr)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: HashMap<Token, TcpStream> = HashMap::new();
    let mut events = Events::with_capacity(1024);
    let mut last = LISTENER;
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut socket, _)) = listener.accept() {
                    socket.set_nodelay(true)?;
                    last = Token(last.0 + 1);
                    poll.registry().register(&mut socket, last, Interest::READABLE)?;
                    connections.insert(last, socket);
                }
            } else if let Some(socket) = connections.get_mut(&event.token()) {
                let served = socket.read(&mut input).and_then(|length| {
                    let requests = blank_line.find_iter(&input[..length]).count();
                    socket.write(&answers.as_bytes()[..requests * answer.len()]).map(|_| length)
                });
                match served {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(0) | Err(_) => {
                        connections.remove(&event.token());
                    }
                    Ok(_) => {}
                }
            }
        }
    }
}
