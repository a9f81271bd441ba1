use std::fs;
use std::time::Duration;

use super::*;
use crate::http::Method;
use crate::http::files::scratch::Scratch;

fn site() -> Scratch {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir_all(path("sub/empty")).unwrap();
    for (name, text) in [
        ("index.html", "<p>home"),
        ("app.js", "let x = 1;"),
        ("app.js.gz", "gzipped"),
        ("app.js.br", "brotli"),
        ("style.css", "p {}"),
        ("sub/index.html", "<p>sub"),
        ("sub/a b", "space"),
        (".env", "secret"),
    ] {
        fs::write(path(name), text).unwrap();
    }
    fs::write(path("large.bin"), (0..=255).cycle().take(100_000).collect::<Vec<u8>>()).unwrap();
    scratch
}

fn router(scratch: &Scratch) -> Router {
    let files = || Files::new(scratch.path()).unwrap();
    Router::new()
        .static_dir("/assets", files().precompressed(true).cache_control("max-age=60"))
        .static_dir("/app", files().fallback("index.html"))
        .static_dir("/", files().cache_control("").hidden(true))
}

fn get(router: &Router, target: &str, lines: &[(&str, &str)]) -> Reply {
    let request = Request::new(Method::Get, target);
    router.handle(lines.iter().fold(request, |request, (name, value)| request.with_header(name, value)))
}

#[test]
fn paths() {
    let scratch = site();
    let router = router(&scratch);
    for (target, status, text) in [
        ("/", 200, "<p>home"),
        ("/app.js", 200, "let x = 1;"),
        ("/.env", 200, "secret"),
        ("/assets/", 200, "<p>home"),
        ("/assets/app.js?v=1", 200, "let x = 1;"),
        ("/assets/sub/", 200, "<p>sub"),
        ("/assets/sub/a%20b", 200, "space"),
        ("/assets/.env", 404, ""),
        ("/assets/app.js/", 404, ""),
        ("/assets/sub/empty/", 404, ""),
        ("/assets/absent", 404, ""),
        ("/assets/../app.js", 404, ""),
        ("/assets/%2e%2e/app.js", 404, ""),
        ("/assets//app.js", 404, ""),
        ("//app.js", 404, ""),
        // Pages of an application, but not scripts that are lost, nor paths that are refused.
        ("/app/users/7", 200, "<p>home"),
        ("/app/users/john.doe", 200, "<p>home"),
        ("/app/sub/empty/", 200, "<p>home"),
        ("/app/app.js", 200, "let x = 1;"),
        ("/app/lost.js", 404, ""),
        ("/app/../secret", 404, ""),
        ("/app/.env", 404, ""),
    ] {
        let reply = get(&router, target, &[]);
        assert_eq!((reply.status().code(), body(reply)), (status, text.to_string()), "{target}");
    }
}

/// The body as text, wherever it is; nothing of an error's.
fn body(reply: Reply) -> String {
    let reply = reply.wait(Duration::from_secs(10)).unwrap();
    if reply.status().code() >= 400 { String::new() } else { String::from_utf8(reply.body().to_vec()).unwrap() }
}

#[test]
fn a_directory_gets_its_slash_and_no_other_host() {
    let scratch = site();
    let router = router(&scratch);
    for (target, location) in [
        ("/sub", "./sub/"),
        ("/assets", "./assets/"),
        ("/assets?a=b", "./assets/?a=b"),
        ("/assets/sub?a=//b", "./sub/?a=//b"),
        ("/assets/sub/empty", "./empty/"),
        ("/%73ub", "./%73ub/"),
    ] {
        let reply = get(&router, target, &[]);
        assert_eq!((reply.status().code(), reply.header_value("location")), (301, Some(location)), "{target}");
    }
    for target in
        ["//sub", "//evil.example/%2e%2e/sub", "/\\evil.example/..", "//evil.example/sub", "/%2fsub", "/./sub"]
    {
        let reply = get(&router, target, &[]);
        assert_eq!((reply.status().code(), reply.header_value("location")), (404, None), "{target}");
    }
}

#[test]
fn what_goes_with_a_file() {
    let scratch = site();
    let reply = get(&router(&scratch), "/assets/style.css", &[]);
    assert_eq!(reply.content_type(), "text/css; charset=utf-8");
    for (name, value) in [
        ("cache-control", Some("max-age=60")),
        ("accept-ranges", Some("bytes")),
        ("x-content-type-options", Some("nosniff")),
        ("vary", None),
        ("content-encoding", None),
    ] {
        assert_eq!(reply.header_value(name), value);
    }
    assert!(reply.header_value("etag").is_some() && reply.header_value("last-modified").is_some());
    assert_eq!(get(&router(&scratch), "/style.css", &[]).header_value("cache-control"), None);
}

#[test]
fn compressed_twins() {
    let scratch = site();
    let router = router(&scratch);
    let mut tags = Vec::new();
    for (accept, coding, body) in [
        ("identity", None, "let x = 1;"),
        ("gzip", Some("gzip"), "gzipped"),
        ("gzip, br", Some("br"), "brotli"),
        ("zstd", None, "let x = 1;"),
    ] {
        let reply = get(&router, "/assets/app.js", &[("Accept-Encoding", accept)]);
        assert_eq!(
            (reply.header_value("content-encoding"), reply.header_value("vary")),
            (coding, Some("Accept-Encoding"))
        );
        assert_eq!((reply.content_type(), reply.body()), ("text/javascript; charset=utf-8", body.as_bytes()));
        tags.push(reply.header_value("etag").unwrap().to_string());
        let own = tags.last().unwrap();
        let again = get(&router, "/assets/app.js", &[("Accept-Encoding", accept), ("If-None-Match", own)]);
        assert_eq!((again.status().code(), again.header_value("vary")), (304, Some("Accept-Encoding")));
    }
    assert!(tags[0] != tags[1] && tags[1] != tags[2] && tags[0] != tags[2] && tags[0] == tags[3]);
    // Not asked for: not looked for.
    let reply = get(&router, "/app.js", &[("Accept-Encoding", "gzip, br")]);
    assert_eq!((reply.header_value("content-encoding"), reply.header_value("vary")), (None, None));
}

#[test]
fn a_change_is_seen_at_once() {
    let scratch = site();
    let router = router(&scratch);
    let path = |name: &str| scratch.path().join(name);
    let style = || body(get(&router, "/style.css", &[]));
    assert_eq!((style(), style()), ("p {}".into(), "p {}".into()));
    fs::write(path("style.css"), "b {}").unwrap();
    assert_eq!(style(), "b {}");
    fs::write(path("next"), "i {}").unwrap();
    fs::rename(path("next"), path("style.css")).unwrap();
    assert_eq!(style(), "i {}");
    fs::remove_file(path("style.css")).unwrap();
    assert_eq!(get(&router, "/style.css", &[]).status(), Status::NOT_FOUND);
}

#[test]
fn several_ranges_say_what_they_are_parts_of() {
    let scratch = site();
    let reply = get(&router(&scratch), "/large.bin", &[("Range", "bytes=1-2, 99999-")]);
    assert_eq!(reply.status(), Status::PARTIAL_CONTENT);
    let boundary = reply.content_type().strip_prefix("multipart/byteranges; boundary=").unwrap().to_string();
    let part = "Content-Type: application/octet-stream\r\nContent-Range: bytes";
    let mut expected = format!("\r\n--{boundary}\r\n{part} 1-2/100000\r\n\r\n").into_bytes();
    expected.extend([1, 2]);
    expected.extend(format!("\r\n--{boundary}\r\n{part} 99999-99999/100000\r\n\r\n").into_bytes());
    expected.extend([159]);
    expected.extend(format!("\r\n--{boundary}--\r\n").into_bytes());
    assert_eq!(reply.body(), expected);
    assert_eq!(reply.header_value("content-range"), None);
}

#[test]
fn head_has_no_ranges_and_other_methods_are_refused() {
    let scratch = site();
    let router = router(&scratch);
    let request = |method| Request::new(method, "/large.bin").with_header("Range", "bytes=0-0");
    assert_eq!(router.handle(request(Method::Get)).status(), Status::PARTIAL_CONTENT);
    assert_eq!(router.handle(request(Method::Head)).status(), Status::OK);
    let reply = router.handle(request(Method::Put));
    assert_eq!((reply.status().code(), reply.header_value("allow")), (405, Some("GET, HEAD, OPTIONS")));
}

#[test]
fn a_nested_router_serves_files_too() {
    let scratch = site();
    let router =
        Router::new().nest("/v1/{tenant}", Router::new().static_dir("/docs", Files::new(scratch.path()).unwrap()));
    assert_eq!(body(get(&router, "/v1/a/docs/sub/a%20b", &[])), "space");
    let reply = get(&router, "/v1/a/docs/sub", &[]);
    assert_eq!((reply.status().code(), reply.header_value("location")), (301, Some("./sub/")));
    assert_eq!(get(&router, "/v1/a/docs/..%2fsub/", &[]).status(), Status::NOT_FOUND);
}

#[test]
#[should_panic(expected = "cannot be sent")]
fn a_header_that_cannot_be_sent_is_a_mistake_at_the_call() {
    let _ = Files::new(site().path()).unwrap().cache_control("a\r\nb: c");
}
