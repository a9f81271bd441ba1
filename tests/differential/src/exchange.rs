//! One connection: sends the bytes of a case and a probe behind them, and reads what comes back until the server closes.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// The request behind each case. It ends the connection, if it is one.
const PROBE: &[u8] = b"GET /probe HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n";
/// What comes back when the probe was taken for a request of its own.
const PROBE_ECHO: &str = "GET /probe \"\"";

/// Longer than any server waits after the client has said that it sends no more.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a server made of a case.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The echoes of what it took, in order.
    pub taken: Vec<String>,
    /// The status with which it refused something, or what it did instead.
    pub refused: Option<String>,
    /// Whether it took the probe for a request.
    pub goes_on: bool,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken = self.taken.iter().map(|echo| format!("`{echo}`"));
        let refused = self.refused.iter().cloned();
        let rest = if self.goes_on { "goes on" } else { "closes" };
        let parts: Vec<String> = taken.chain(refused).chain([rest.to_string()]).collect();
        f.write_str(&parts.join(", "))
    }
}

pub fn outcome(addr: SocketAddr, input: &[u8]) -> Outcome {
    let mut outcome = Outcome { taken: Vec::new(), refused: None, goes_on: false };
    let bytes = match exchange(addr, input) {
        Ok(bytes) => bytes,
        Err(error) => {
            outcome.refused = Some(format!("hangs ({error})"));
            return outcome;
        }
    };
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        match answer(&mut rest) {
            Some(Answer::Echo(echo)) if echo == PROBE_ECHO => outcome.goes_on = true,
            Some(Answer::Echo(echo)) => outcome.taken.push(echo),
            Some(Answer::Status(status)) => outcome.refused = Some(status),
            None => {
                outcome.refused = Some("no HTTP/1 answer".into());
                break;
            }
        }
    }
    outcome
}

/// Everything that comes back. A reset after some bytes is an end: a server may close before it has read all.
fn exchange(addr: SocketAddr, input: &[u8]) -> Result<Vec<u8>, std::io::Error> {
    let mut socket = TcpStream::connect(addr)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // A server that has refused the beginning may be gone before the end arrives.
    let _ = socket.write_all(&[input, PROBE].concat()).and_then(|()| socket.shutdown(Shutdown::Write));
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match socket.read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(bytes),
            Err(error) => return Err(error),
        }
    }
}

enum Answer {
    Echo(String),
    Status(String),
}

/// Takes the next answer from the front of `rest`, without interim ones.
fn answer(rest: &mut &[u8]) -> Option<Answer> {
    loop {
        let end = rest.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let (head, body) = rest.split_at(end);
        let head = String::from_utf8_lossy(head);
        let mut lines = head.lines();
        let status = lines.next()?.strip_prefix("HTTP/1.").and_then(|line| line.get(2..5))?.to_string();
        let field = |wanted: &str| {
            let mut fields = lines.clone().filter_map(|line| line.split_once(": "));
            fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.to_string())
        };
        let length: usize = field("content-length").map_or(0, |value| value.parse().unwrap_or_default());
        *rest = body.get(length..).unwrap_or_default();
        if !status.starts_with('1') {
            return Some(field("x-read").map_or(Answer::Status(status), Answer::Echo));
        }
    }
}
