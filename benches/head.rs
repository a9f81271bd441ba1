//! Time per request head, ours beside what httparse alone takes for the same bytes: `cargo bench --bench head`.
//!
//! The parser is private to the library, so its files are compiled into this program as well.

use std::hint::black_box;
use std::time::Instant;

#[path = "../src/http"]
#[expect(dead_code, unused_imports, reason = "of the modules included here only the parser is measured")]
mod http {
    pub mod limits;
    pub mod types;
    #[path = "h1"]
    pub mod h1 {
        mod bytes;
        mod fields;
        pub mod head;
        mod lines;
        mod target;
        pub mod violation;
    }
}

use http::h1::head::{Head, Slots};
use http::limits::Limits;

const WRK: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";
const CURL: &[u8] =
    b"GET /items/42?q=a HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";
const POST: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:8080\r\nAccept: application/json\r\n\
    Content-Type: application/json\r\nAuthorization: Bearer sk-0123456789abcdef\r\nUser-Agent: OpenAI/Python 1.99.1\r\n\
    Content-Length: 0\r\nConnection: keep-alive\r\n\r\n";
const BROWSER: &[u8] = b"GET /chat/index.html?model=demo HTTP/1.1\r\nHost: localhost:8080\r\nConnection: keep-alive\r\n\
    Cache-Control: max-age=0\r\nsec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"\r\nsec-ch-ua-mobile: ?0\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\r\n";

const ROUNDS: u32 = 10_000;
const REPEATS: u32 = 200;

/// The least over the repeats, in nanoseconds per call: what else runs on the machine only adds to it.
fn measure(mut once: impl FnMut()) -> f64 {
    let repeats = (0..REPEATS).map(|_| {
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| once());
        start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS)
    });
    repeats.fold(f64::INFINITY, f64::min)
}

fn main() {
    let limits = Limits::default();
    // One table serves all requests of a turn; httparse's holds references, so it is made anew, without being cleared.
    let mut slots = Slots::default();
    println!("{:<10} {:>6} {:>10} {:>14}", "head", "bytes", "ours", "httparse alone");
    for (name, head) in [("wrk", WRK), ("curl", CURL), ("post", POST), ("browser", BROWSER)] {
        let ours = measure(|| {
            black_box(Head::parse(black_box(head), &mut slots, &limits).is_ok_and(|head| head.is_some()));
        });
        let httparse = measure(|| {
            let mut slots = [const { std::mem::MaybeUninit::uninit() }; 100];
            let mut request = httparse::Request::new(&mut []);
            black_box(request.parse_with_uninit_headers(black_box(head), &mut slots).is_ok());
        });
        println!("{name:<10} {:>6} {ours:>7.0} ns {httparse:>11.0} ns", head.len());
    }
}
