//! A plain request on a kept-alive connection allocates nothing. This binary counts every allocation of the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};

use sconce::http::{Request, Router, Server, ServerConfig};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Sends requests and reads their answers without allocating anything itself.
fn exchange(socket: &mut TcpStream, request: &[u8], answer: &mut [u8], count: usize) {
    for _ in 0..count {
        socket.write_all(request).unwrap();
        socket.read_exact(answer).unwrap();
    }
}

#[test]
fn plain_requests_allocate_nothing() {
    let config = ServerConfig { threads: 1, ..ServerConfig::default() };
    let router = Router::new().get("/", |_: &Request<'_>| "Hello, World!").get("/{name}", |_: &Request<'_>| "Hello");
    let server = Server::bind("127.0.0.1:0", config).unwrap().start(router).unwrap();
    let mut socket = TcpStream::connect(server.local_addr()).unwrap();
    for (path, body_bytes) in [("/", 13), ("/you?q=1", 5)] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nUser-Agent: test\r\n\r\n");
        // The first exchanges give buffers and lists their memory; they also show how long an answer is.
        let mut first = [0; 1024];
        socket.write_all(request.as_bytes()).unwrap();
        let mut length = 0;
        while !first[..length].windows(4).any(|end| end == b"\r\n\r\n") {
            length += socket.read(&mut first[length..]).unwrap();
        }
        let head = first[..length].windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        socket.read_exact(&mut first[length..head + body_bytes]).unwrap();
        let mut answer = vec![0; head + body_bytes];
        exchange(&mut socket, request.as_bytes(), &mut answer, 100);

        let before = ALLOCATIONS.load(Ordering::Relaxed);
        exchange(&mut socket, request.as_bytes(), &mut answer, 2000);
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        // The Date line is made anew each second, and the test harness may do something of its own.
        assert!(allocations < 100, "{allocations} allocations in 2000 requests for {path}");
    }
}
