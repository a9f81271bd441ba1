//! may_minihttp on one worker. It answers whole bodies only, so there are no events, and a file is read into memory. It
//! ignores `Connection: close`, and offers no way to set TCP_NODELAY.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::BufMut;
use may_minihttp::{HttpService, HttpServiceFactory, Request, Response};
use peers::{Args, HELLO, MESSAGE};

struct Service {
    file: Arc<Path>,
}

impl HttpService for Service {
    fn call(&mut self, request: Request, response: &mut Response) -> io::Result<()> {
        match request.path() {
            "/" => response.header("Content-Type: text/plain; charset=utf-8").body(HELLO),
            "/json" => {
                response.header("Content-Type: application/json");
                serde_json::to_writer(response.body_mut().writer(), &MESSAGE)?;
            }
            "/file" => response.header("Content-Type: application/octet-stream").body_vec(std::fs::read(&self.file)?),
            _ => {
                response.status_code(404, "Not Found");
            }
        }
        Ok(())
    }
}

struct Factory {
    file: Arc<Path>,
}

impl HttpServiceFactory for Factory {
    type Service = Service;

    fn new_service(&self, _: usize) -> Service {
        Service { file: self.file.clone() }
    }
}

fn main() -> io::Result<()> {
    let Args { addr, file, .. } = Args::parse();
    may::config().set_workers(1);
    let server = Factory { file: file.into() }.start(addr)?;
    server.join().map_err(|_| io::Error::other("the server panicked"))
}
