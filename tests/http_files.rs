//! Files over real sockets: conditions, ranges and large bodies as clients see them.

mod http_support;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process;

use http_support::{Answer, Client, serve};
use sconce::http::{Files, Router};

/// A directory of one test, removed with the value.
struct Site(PathBuf);

impl Site {
    fn new(name: &str) -> Site {
        let path = std::env::temp_dir().join(format!("sconce-http-files-{name}-{}", process::id()));
        fs::create_dir_all(path.join("root/sub")).unwrap();
        fs::write(path.join("secret"), "secret").unwrap();
        fs::write(path.join("root/small.txt"), "0123456789").unwrap();
        fs::write(path.join("root/sub/index.html"), "<p>").unwrap();
        fs::write(path.join("root/large.bin"), large()).unwrap();
        Site(path)
    }

    fn router(&self) -> Router {
        Router::new().static_dir("/files", Files::new(self.0.join("root")).unwrap())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// 5 MiB that differ at every offset modulo a prime.
fn large() -> Vec<u8> {
    (0..5_u32 << 20).map(|at| (at % 251) as u8).collect()
}

fn ask(client: &mut Client, method: &str, target: &str, lines: &[(&str, &str)]) -> Answer {
    let lines: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes());
    if method == "HEAD" { client.answer_to_head() } else { client.answer() }
}

#[test]
fn whole_files_small_and_large_and_their_heads() {
    let site = Site::new("whole");
    let server = serve(site.router());
    let mut client = Client::connect(&server);
    for (target, body) in [("/files/small.txt", b"0123456789".to_vec()), ("/files/large.bin", large())] {
        let head = ask(&mut client, "HEAD", target, &[("Range", "bytes=0-1")]);
        let length = body.len().to_string();
        assert_eq!((head.status, head.header("content-length")), (200, Some(&*length)));
        // Again and again on one connection: the second time from the cache.
        for _ in 0..3 {
            let answer = client.get(target);
            assert_eq!((answer.status, answer.header("etag")), (200, head.header("etag")));
            assert!(answer.body == body, "{target}: {} bytes", answer.body.len());
        }
        let answer = ask(&mut client, "POST", target, &[("Content-Length", "0")]);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD, OPTIONS")));
    }
    server.handle().stop();
}

#[test]
fn ranges() {
    let site = Site::new("ranges");
    let server = serve(site.router());
    let mut client = Client::connect(&server);
    let whole = large();
    let len = whole.len();
    for (range, expected) in [
        ("bytes=0-0", 0..1),
        ("bytes=1000000-3999999", 1_000_000..4_000_000),
        ("bytes=-7", len - 7..len),
        ("bytes=5000000-", 5_000_000..len),
    ] {
        let answer = ask(&mut client, "GET", "/files/large.bin", &[("Range", range)]);
        let content_range = format!("bytes {}-{}/{len}", expected.start, expected.end - 1);
        assert_eq!((answer.status, answer.header("content-range")), (206, Some(&*content_range)), "{range}");
        assert!(answer.body == whole[expected], "{range}");
    }
    let answer = ask(&mut client, "GET", "/files/large.bin", &[("Range", "bytes=99999999-")]);
    assert_eq!((answer.status, answer.header("content-range")), (416, Some(&*format!("bytes */{len}"))));

    let answer = ask(&mut client, "GET", "/files/small.txt", &[("Range", "bytes=1-2,8-")]);
    let boundary = answer.header("content-type").unwrap().strip_prefix("multipart/byteranges; boundary=").unwrap();
    let part = |range: &str, text: &str| {
        format!(
            "\r\n--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes {range}/10\r\n\r\n{text}"
        )
    };
    assert_eq!(answer.text(), format!("{}{}\r\n--{boundary}--\r\n", part("1-2", "12"), part("8-9", "89")));
    server.handle().stop();
}

/// With files that were there long before: a tag is strong only once its file has settled.
#[test]
fn conditions() {
    let server =
        serve(Router::new().static_dir("/", Files::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap()));
    let mut client = Client::connect(&server);
    let target = "/http/mod.rs";
    let first = client.get(target);
    let (tag, modified) = (first.header("etag").unwrap(), first.header("last-modified").unwrap());
    assert!(tag.starts_with('"'), "{tag}");
    for (lines, status) in [
        (vec![("If-None-Match", tag)], 304),
        (vec![("If-None-Match", "\"other\"")], 200),
        (vec![("If-Modified-Since", modified)], 304),
        (vec![("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT")], 200),
        (vec![("If-None-Match", "\"other\""), ("If-Modified-Since", modified)], 200),
        (vec![("If-Match", tag)], 200),
        (vec![("If-Match", "\"other\"")], 412),
        (vec![("If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:00 GMT")], 412),
        (vec![("Range", "bytes=0-4"), ("If-Range", tag)], 206),
        (vec![("Range", "bytes=0-4"), ("If-Range", modified)], 206),
        (vec![("Range", "bytes=0-4"), ("If-Range", "\"other\"")], 200),
        (vec![("Range", "bytes=0-4"), ("If-None-Match", tag)], 304),
    ] {
        let answer = ask(&mut client, "GET", target, &lines);
        assert_eq!(answer.status, status, "{lines:?}");
        let body = match status {
            200 => &first.body[..],
            206 => &first.body[..5],
            304 => &[],
            _ => continue,
        };
        assert_eq!(answer.body, body, "{lines:?}");
        assert_eq!(answer.header("etag"), Some(tag));
    }
    server.handle().stop();
}

/// The connection's own reading of targets and the routes' in front of the files.
#[test]
fn no_path_leaves_the_directory() {
    let site = Site::new("paths");
    let server = serve(site.router());
    for target in [
        "/files/../secret",
        "/files/%2e%2e/secret",
        "/files/..%2fsecret",
        "/files/..%5csecret",
        "/files/%2e%2e%2fsecret",
        "/files/sub/../../secret",
        "/files/sub/%2e%2e/%2E%2E/secret",
        "/files/%252e%252e/secret",
        "/files//secret",
        "/files//../secret",
        "/files/small.txt%00.html",
        "/files/./small.txt",
        "/files/.",
        "/files/..",
        "//files/small.txt",
        "/files/small.txt/",
        "/files%2f..%2fsecret",
    ] {
        let answer = Client::connect(&server).get(target);
        assert!(matches!(answer.status, 400 | 404), "{target}: {}", answer.status);
        assert!(!answer.text().contains("secret") || answer.text().contains("no such path"), "{target}");
    }
    let mut client = Client::connect(&server);
    let answer = client.get("/files/sub?a=b");
    assert_eq!((answer.status, answer.header("location")), (301, Some("./sub/?a=b")));
    assert_eq!(client.get("/files/sub/").text(), "<p>");
    server.handle().stop();
}

/// What is kept open is not taken for what is there.
#[test]
fn a_change_is_seen_by_the_next_request() {
    let site = Site::new("change");
    let server = serve(site.router());
    let mut client = Client::connect(&server);
    assert_eq!(client.get("/files/large.bin").body.len(), 5 << 20);
    fs::write(site.0.join("root/large.bin"), &large()[..1 << 20]).unwrap();
    assert!(client.get("/files/large.bin").body == large()[..1 << 20]);
    fs::remove_file(site.0.join("root/large.bin")).unwrap();
    assert_eq!(client.get("/files/large.bin").status, 404);
    server.handle().stop();
}

/// A file that shrinks while it is sent cuts its connection: no stall, no made-up bytes.
#[test]
fn a_file_that_shrinks_on_its_way_cuts_the_connection() {
    const LEN: u64 = 64 << 20;
    let site = Site::new("shrink");
    let file = File::create(site.0.join("root/huge.bin")).unwrap();
    file.set_len(LEN).unwrap();
    let server = serve(site.router());
    let mut client = Client::connect(&server);
    client.send(b"GET /files/huge.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.answer_to_head();
    assert_eq!(head.header("content-length"), Some(&*LEN.to_string()));
    file.set_len(1 << 20).unwrap();
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = client.socket.read_to_end(&mut bytes);
    assert!((bytes.len() as u64) < LEN && bytes.iter().all(|byte| *byte == 0), "{} bytes", bytes.len());
    assert_eq!(Client::connect(&server).get("/files/huge.bin").body.len(), 1 << 20);
    server.handle().stop();
}
