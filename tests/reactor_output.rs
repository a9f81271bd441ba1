//! Large output over real sockets: copied bytes, shared bytes and files arrive in order, and a broken promise shows.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sconce::reactor::{self, Config, FileRange, Io, Listener, Protocol};

/// Sends each client the same things, and then its end.
#[derive(Clone)]
struct Giver {
    shared: Arc<[u8]>,
    range: FileRange,
}

impl Protocol for Giver {
    type Connection = ();
    type Message = ();

    fn on_open(&mut self, _: SocketAddr, _: Instant) {}

    fn on_readable(&mut self, _: &mut (), io: &mut Io<'_, Self>) {
        if !io.input.is_empty() {
            io.input.consume(usize::MAX);
            io.output.push(b"head");
            io.output.push_file(self.range.clone());
            io.output.push(b"between");
            io.output.push_shared(Arc::clone(&self.shared));
            io.output.push_shared(Arc::clone(&self.shared));
            io.output.push(b"tail");
            io.close();
        }
    }
}

/// An open file of `bytes`, whose name is gone.
fn file_of(name: &str, bytes: &[u8]) -> Arc<File> {
    let path = std::env::temp_dir().join(format!("sconce-{name}-{}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    Arc::new(file)
}

fn ask(addr: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket.write_all(b"?").unwrap();
    socket
}

#[test]
fn a_large_file_between_other_bytes_arrives_whole() {
    let content: Vec<u8> = (0..20_000_000u32).map(|n| (n ^ (n >> 9)) as u8).collect();
    let (offset, len) = (1_000_003, content.len() - 2_000_000);
    let range = FileRange { file: file_of("large", &content), offset: offset as u64, len: len as u64 };
    let giver = Giver { shared: content[..100_000].into(), range };
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr();
    let loops = reactor::start(listener, &Config::default(), |_| giver.clone()).unwrap();
    let shared = &content[..100_000];
    let expected = [b"head", &content[offset..offset + len], b"between", shared, shared, b"tail"].concat();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut received = Vec::new();
                ask(addr).read_to_end(&mut received).unwrap();
                assert!(received == expected, "{} of {} bytes", received.len(), expected.len());
            });
        }
    });
    loops.control().drain(Duration::from_secs(30));
    loops.join().unwrap();
}

#[test]
fn a_file_that_is_shorter_than_promised_ends_in_a_reset() {
    let range = FileRange { file: file_of("short", &[1; 5000]), offset: 0, len: 5001 };
    let giver = Giver { shared: [1; 5000].into(), range };
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr();
    let loops = reactor::start(listener, &Config::default(), |_| giver.clone()).unwrap();
    let mut received = Vec::new();
    let error = ask(addr).read_to_end(&mut received).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(received.len() <= 5004);
    loops.control().stop();
    loops.join().unwrap();
}
