//! A server on a free port, and a client that reads answers byte-exactly. Blocking and plain, so that it is an oracle.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use sconce::http::{Router, Running, Server, ServerConfig};

/// Nothing in these tests takes that long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn serve(router: Router) -> Running {
    serve_with(router, ServerConfig { threads: 1, ..ServerConfig::default() })
}

pub fn serve_with(router: Router, config: ServerConfig) -> Running {
    Server::bind("127.0.0.1:0", config).unwrap().start(router).unwrap()
}

/// Waits for something that another thread brings about.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::yield_now();
    }
}

pub struct Client {
    pub socket: TcpStream,
    /// Bytes read but not used.
    pub ahead: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

impl Client {
    pub fn connect(server: &Running) -> Client {
        Client::of(TcpStream::connect(server.local_addr()).unwrap())
    }

    /// From another address of this machine.
    pub fn connect_from(address: &str, server: &Running) -> Client {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(address.parse().unwrap(), 0).into()).unwrap();
        socket.connect(&server.local_addr().into()).unwrap();
        Client::of(socket.into())
    }

    fn of(socket: TcpStream) -> Client {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Client { socket, ahead: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    pub fn get(&mut self, target: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        self.answer()
    }

    /// The next answer with its body.
    pub fn answer(&mut self) -> Answer {
        let mut answer = self.answer_to_head();
        answer.body = match (answer.header("content-length"), answer.header("transfer-encoding")) {
            (Some(length), _) => self.exactly(length.parse().unwrap()),
            (None, Some("chunked")) => self.chunks(),
            (None, _) if answer.status == 204 || answer.status == 304 => Vec::new(),
            (None, _) => self.rest(),
        };
        answer
    }

    /// The head of the next answer, for answers without a body.
    pub fn answer_to_head(&mut self) -> Answer {
        let status = self.line();
        let code = status.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("no status line: {status:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                return Answer { status: code[..3].parse().unwrap(), headers, body: Vec::new() };
            }
            let (name, value) = line.split_once(": ").unwrap();
            headers.push((name.to_string(), value.to_string()));
        }
    }

    /// The next chunk; empty is the last one.
    pub fn chunk(&mut self) -> Vec<u8> {
        let size = usize::from_str_radix(&self.line(), 16).unwrap();
        let chunk = self.exactly(size);
        assert_eq!(self.line(), "");
        chunk
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk();
            if chunk.is_empty() {
                return body;
            }
            body.extend(chunk);
        }
    }

    /// Everything until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.ahead);
        self.socket.read_to_end(&mut rest).unwrap();
        rest
    }

    pub fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.ahead.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).unwrap();
            }
            self.read();
        }
    }

    /// The next `count` bytes.
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count {
            self.read();
        }
        self.ahead.drain(..count).collect()
    }

    fn read(&mut self) {
        let mut bytes = [0; 64 << 10];
        let count = self.socket.read(&mut bytes).unwrap();
        assert!(count > 0, "the server closed in the middle of {:?}", String::from_utf8_lossy(&self.ahead));
        self.ahead.extend_from_slice(&bytes[..count]);
    }
}
