//! The pages, at `/` and `/api.html`: plain files, embedded.

use crate::http::{File, Reply};

const fn file(path: &'static str, content_type: &'static str, bytes: &'static [u8]) -> File {
    // Kept by browsers, but asked for each time: a new binary brings new files.
    File { path, content_type, cache_control: "no-cache", bytes }
}

/// Everything under `static/`.
pub static FILES: [File; 7] = [
    file("/", "text/html; charset=utf-8", include_bytes!("../../static/index.html")),
    file("/app.js", "text/javascript; charset=utf-8", include_bytes!("../../static/app.js")),
    file("/style.css", "text/css; charset=utf-8", include_bytes!("../../static/style.css")),
    file("/api.html", "text/html; charset=utf-8", include_bytes!("../../static/api.html")),
    file("/api.js", "text/javascript; charset=utf-8", include_bytes!("../../static/api.js")),
    file("/api.css", "text/css; charset=utf-8", include_bytes!("../../static/api.css")),
    file("/icon.svg", "image/svg+xml", include_bytes!("../../static/icon.svg")),
];

/// No script, style or connection but our own; no frame around the page; nothing that turns text into markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// Adds what browsers should enforce. JSON answers need it as little as they mind it.
pub fn guarded(reply: Reply) -> Reply {
    reply
        .header("Content-Security-Policy", POLICY)
        .header("Referrer-Policy", "no-referrer")
        .header("Cross-Origin-Opener-Policy", "same-origin")
}
