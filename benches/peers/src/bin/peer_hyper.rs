//! hyper on one tokio thread, as its own examples do it: files through tokio's, in pieces.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use peers::{Args, HELLO, MESSAGE, TICK, event};
use tokio::fs::File;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::io::ReaderStream;

type Body = Either<Full<Bytes>, BoxBody<Bytes, io::Error>>;

/// The piece size of tower-http's file service.
const PIECE_BYTES: usize = 64 << 10;

async fn answer(
    request: Request<Incoming>,
    file: Arc<Path>,
    events: broadcast::Sender<Bytes>,
) -> Result<Response<Body>, Infallible> {
    Ok(match request.uri().path() {
        "/" => whole("text/plain; charset=utf-8", Bytes::from_static(HELLO.as_bytes())),
        "/json" => match serde_json::to_vec(&MESSAGE) {
            Ok(json) => whole("application/json", json.into()),
            Err(_) => failed(StatusCode::INTERNAL_SERVER_ERROR),
        },
        "/file" => send_file(&file).await.unwrap_or_else(|_| failed(StatusCode::NOT_FOUND)),
        "/events" => {
            let events = BroadcastStream::new(events.subscribe()).map_ok(Frame::data).map_err(io::Error::other);
            let mut response = typed("text/event-stream", Either::Right(BodyExt::boxed(StreamBody::new(events))));
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        _ => failed(StatusCode::NOT_FOUND),
    })
}

async fn send_file(path: &Path) -> io::Result<Response<Body>> {
    let file = File::open(path).await?;
    let length = file.metadata().await?.len();
    let pieces = ReaderStream::with_capacity(file, PIECE_BYTES).map_ok(Frame::data);
    let mut response = typed("application/octet-stream", Either::Right(BodyExt::boxed(StreamBody::new(pieces))));
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    Ok(response)
}

fn typed(content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn whole(content_type: &'static str, body: Bytes) -> Response<Body> {
    typed(content_type, Either::Left(Full::new(body)))
}

fn failed(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = status;
    response
}

async fn serve(args: Args) -> io::Result<()> {
    let file: Arc<Path> = args.file.into();
    let (events, _) = broadcast::channel(16);
    let ticking = events.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            // Nobody listening is no failure.
            let _ = ticking.send(Bytes::from(event()));
        }
    });
    let listener = TcpListener::bind(args.addr).await?;
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        socket.set_nodelay(true)?;
        let (file, events) = (file.clone(), events.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, file.clone(), events.clone()));
            // A client that goes away is no news in a load test.
            let _ = http1::Builder::new().pipeline_flush(true).serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

fn main() -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(Args::parse()))
}
