//! The three servers. Each answers with what it has read, in the field `X-Read`, as the corpus writes it.

use std::convert::Infallible;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sconce::http::{Limits, Reply, Request, Router, Running, Server, ServerConfig, Status};

pub struct Servers {
    ours: Running,
    peers: Vec<Peer>,
    /// It ends with this.
    nginx: Option<Nginx>,
}

pub struct Peer {
    pub name: String,
    pub addr: SocketAddr,
}

impl Servers {
    pub fn start() -> Servers {
        let nginx = Nginx::start();
        let mut peers = vec![Peer { name: "hyper".into(), addr: hyper() }];
        if let Some(nginx) = &nginx {
            peers.push(Peer { name: nginx.version.clone(), addr: nginx.addr });
        }
        Servers { ours: ours(), peers, nginx }
    }

    pub fn ours(&self) -> SocketAddr {
        self.ours.local_addr()
    }

    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// What could not be compared with.
    pub fn missing(&self) -> Option<&'static str> {
        self.nginx.is_none().then_some("nginx is not in PATH")
    }
}

fn echo(method: &str, target: &str, body: &[u8]) -> String {
    format!("{method} {target} {:?}", String::from_utf8_lossy(body))
}

/// With the small limits that the corpus counts on.
fn ours() -> Running {
    let limits = Limits {
        target_bytes_max: 200,
        head_bytes_max: 1000,
        headers_max: 30,
        body_bytes_max: 100,
        chunk_overhead_bytes_max: 500,
        ..Limits::default()
    };
    let router = Router::new().fallback(|request: &Request<'_>| {
        let query = request.query_string().map_or(String::new(), |query| format!("?{query}"));
        let target = format!("{}{query}", request.path());
        Reply::empty(Status::OK).header("X-Read", echo(request.method().name(), &target, request.body()))
    });
    let config = ServerConfig { threads: 1, limits, ..ServerConfig::default() };
    Server::bind("127.0.0.1:0", config).and_then(|server| server.start(router)).expect("our server starts")
}

fn hyper() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("a bound port");
    listener.set_nonblocking(true).expect("tokio wants it so");
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            while let Ok((socket, _)) = listener.accept().await {
                let serving =
                    http1::Builder::new().half_close(true).serve_connection(TokioIo::new(socket), service_fn(answer));
                // The connection must not wait for the ones before it: a case may leave it open.
                drop(tokio::task::spawn(serving));
            }
        });
    });
    addr
}

async fn answer(request: hyper::Request<Incoming>) -> Result<hyper::Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("", |target| target.as_str()).to_string();
    let mut response = hyper::Response::new(Empty::new());
    // A service that gets half a body has nothing to answer; this makes visible that it was refused.
    match body.collect().await.map(|body| echo(head.method.as_str(), &target, &body.to_bytes()).try_into()) {
        Ok(Ok(echo)) => drop(response.headers_mut().insert("x-read", echo)),
        Ok(Err(_)) | Err(_) => *response.status_mut() = hyper::StatusCode::BAD_REQUEST,
    }
    Ok(response)
}

/// nginx in front of a server that understands only what nginx sends.
struct Nginx {
    addr: SocketAddr,
    version: String,
    child: Child,
    directory: PathBuf,
}

impl Nginx {
    /// `None` where there is no nginx.
    fn start() -> Option<Nginx> {
        let version = Command::new("nginx").arg("-v").output().ok()?.stderr;
        let version = String::from_utf8_lossy(&version).trim().rsplit(' ').next().unwrap_or_default().replace('/', " ");
        let directory = std::env::temp_dir().join(format!("differential-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a temporary directory");
        // nginx cannot take a bound socket, so its port is one that was free a moment ago.
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = free.local_addr().expect("a bound port");
        drop(free);
        let config = format!(
            "daemon off; master_process off; pid nginx.pid; error_log error.log;
            events {{ worker_connections 256; }}
            http {{
                access_log off; proxy_ignore_client_abort on;
                client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
                uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                server {{ listen {addr}; location / {{ proxy_pass http://{upstream}; }} }}
            }}",
            upstream = upstream(),
        );
        fs::write(directory.join("nginx.conf"), config).expect("a configuration");
        let child = Command::new("nginx")
            .args(["-p", directory.to_str()?, "-c", "nginx.conf", "-e", "error.log"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let start = Instant::now();
        while TcpStream::connect(addr).is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "nginx did not start, see {}", directory.display());
            thread::yield_now();
        }
        Some(Nginx { addr, version, child, directory })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Answers each connection's one request, which has a length if it has a body: nginx sends no others.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("a bound port");
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let _ = answer_nginx(socket);
        }
    });
    addr
}

fn answer_nginx(socket: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(&socket);
    let (mut line, mut length) = (Vec::new(), 0);
    reader.read_until(b'\n', &mut line)?;
    let request = String::from_utf8_lossy(&line).into_owned();
    loop {
        line.clear();
        reader.read_until(b'\n', &mut line)?;
        let text = String::from_utf8_lossy(&line).to_ascii_lowercase();
        if let Some(value) = text.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or_default();
        }
        if text.trim_end().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let read = echo(method, target, &body);
    (&socket).write_all(format!("HTTP/1.0 200 OK\r\nX-Read: {read}\r\nContent-Length: 0\r\n\r\n").as_bytes())
}
