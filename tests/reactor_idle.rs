//! What an idle connection costs in memory. This binary counts every byte that the process holds.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sconce::reactor::{self, Config, Io, Listener, Protocol};

struct Counting;

static HELD_BYTES: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD_BYTES.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD_BYTES.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Answers each full stop; what comes before one waits.
struct Patient;

impl Protocol for Patient {
    type Connection = ();
    type Message = ();

    fn on_open(&mut self, _: SocketAddr, _: Instant) {}

    fn on_readable(&mut self, _: &mut (), io: &mut Io<'_, Self>) {
        if io.input.as_slice().ends_with(b".") {
            io.input.consume(usize::MAX);
            io.output.push(b"ok");
        }
        io.set_deadline(Some(io.now + Duration::from_secs(60)));
    }
}

#[test]
fn idle_and_half_heard_connections_hold_little() {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr();
    let loops = reactor::start(listener, &Config::default(), |_| Patient).unwrap();
    // Both ends are in this process, which may have as few as 1024 descriptors.
    let count = 480;
    let mut sockets = Vec::with_capacity(count);
    let exchange = |mut socket: &TcpStream| {
        socket.write_all(b"hello.").unwrap();
        socket.read_exact(&mut [0; 2]).unwrap();
    };
    // The first one gives lists and pools their memory.
    let first = TcpStream::connect(addr).unwrap();
    exchange(&first);

    let before = HELD_BYTES.load(Ordering::Relaxed);
    for _ in 0..count {
        let socket = TcpStream::connect(addr).unwrap();
        exchange(&socket);
        sockets.push(socket);
    }
    // The loop has finished with all of them when it answers the first again.
    exchange(&first);
    // Slots come in blocks of 256, and the first one gave a block its memory.
    let idle = (HELD_BYTES.load(Ordering::Relaxed) - before) / (count as isize - 255);
    assert!(idle <= 350, "{idle} bytes for each idle connection");

    let control = loops.control();
    let heard = || control.counters()[0].bytes_in();
    let all = heard() + 100 * count as u64;
    sockets.iter().for_each(|mut socket| socket.write_all(&[b'x'; 100]).unwrap());
    let start = Instant::now();
    while heard() < all {
        assert!(start.elapsed() < Duration::from_secs(30));
        thread::yield_now();
    }
    let waiting = (HELD_BYTES.load(Ordering::Relaxed) - before) / count as isize;
    assert!(waiting <= 350 + 100 + 64 * (32 << 10) / count as isize, "{waiting} bytes for each, with a full pool");
    loops.control().stop();
    loops.join().unwrap();
}
