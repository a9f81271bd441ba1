use std::io::{ErrorKind, Read};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn bytes_cross_threads_whole_and_in_order() {
    let (stream, mut body) = pipe(None);
    let text = (0..=250).collect::<Vec<u8>>().repeat(if cfg!(miri) { 2_000 } else { 12_000 });
    let sent = text.clone();
    let writer = thread::spawn(move || {
        for piece in sent.chunks(7_001) {
            assert!(stream.wait_until_ready(SOON));
            stream.write(piece).unwrap();
        }
        stream.close().unwrap();
    });
    let mut read = Vec::new();
    body.read_to_end(&mut read).unwrap();
    writer.join().unwrap();
    assert!(read == text);
}

#[test]
fn a_stream_is_complete_only_when_closed() {
    for close in [true, false] {
        let (stream, body) = pipe(None);
        stream.write(b"half").unwrap();
        if close {
            stream.close().unwrap()
        } else {
            drop(stream)
        }
        match body.collect(100) {
            Ok(bytes) => assert!(close && bytes == b"half"),
            Err(e) => assert!(!close && e.kind() == ErrorKind::UnexpectedEof),
        }
    }
}

/// A client that has ended its side is thought to have gone, yet may wait: what it is sent must be whole.
#[test]
fn a_reader_that_seems_gone_loses_nothing() {
    let (stream, body) = pipe(None);
    stream.set_closed();
    assert!(stream.is_closed());
    stream.write(b"before anybody has looked").unwrap();
    stream.close().unwrap();
    assert_eq!(body.collect(100).unwrap(), b"before anybody has looked");
}

#[test]
fn a_declared_length_is_kept() {
    let (stream, body) = pipe(Some(5));
    assert_eq!(stream.write(b"hello!"), Err(StreamError::TooLong));
    stream.write(b"hello").unwrap();
    stream.close().unwrap();
    assert_eq!((body.length(), body.collect(10).unwrap()), (Some(5), b"hello".to_vec()));

    let (stream, body) = pipe(Some(5));
    stream.write(b"hell").unwrap();
    assert_eq!(stream.close(), Err(StreamError::TooShort));
    assert_eq!(body.collect(10).unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn the_backlog_is_bounded() {
    let (stream, body) = pipe(None);
    let piece = [b'x'; 64 << 10];
    let mut written = 0;
    while stream.write(&piece).is_ok() {
        assert_eq!(stream.is_behind(), written + piece.len() > BACKLOG_HIGH_WATER_BYTES);
        written += piece.len();
        assert!(written <= BACKLOG_BYTES_MAX + 2 * piece.len());
    }
    assert!(stream.is_closed());
    assert!(body.collect(usize::MAX - 1).is_err(), "a stream that was cut is not complete");
}

#[test]
fn a_reader_that_goes_frees_the_writer() {
    let (stream, body) = pipe(None);
    while !stream.is_behind() {
        stream.write(&[0; 64 << 10]).unwrap();
    }
    let writer = thread::spawn(move || (stream.wait_until_ready(SOON), stream.write(b"x"), stream.backlog_bytes()));
    drop(body);
    assert_eq!(writer.join().unwrap(), (false, Err(StreamError::Gone), 0));
}

#[test]
fn a_reader_that_goes_wakes_a_writer_that_has_nothing_to_write() {
    for leave in [|body: Body| drop(body), |body: Body| body.set_closed()] {
        let (stream, body) = pipe(None);
        let (ready, watches) = std::sync::mpsc::channel();
        let writer = thread::spawn(move || {
            stream.watch_reader(Ear::Thread(thread::current()));
            ready.send(()).unwrap();
            let deadline = Instant::now() + SOON;
            while !stream.is_closed() && Instant::now() < deadline {
                thread::park_timeout(SOON);
            }
            Instant::now() < deadline
        });
        watches.recv().unwrap();
        leave(body);
        assert!(writer.join().unwrap());
    }
}

#[test]
fn a_body_has_a_bound_for_its_collector() {
    assert_eq!(Body::whole("hello").collect(5).unwrap(), b"hello");
    assert_eq!(Body::whole("hello").collect(4).unwrap_err().kind(), ErrorKind::FileTooLarge);
}
