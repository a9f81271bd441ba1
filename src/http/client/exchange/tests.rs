use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn terms(method: Method, framing: BodyFraming) -> Terms {
    let timeouts = Timeouts { connect: SECOND, first_byte: 2 * SECOND, idle: 3 * SECOND, total: None };
    Terms {
        method,
        body_to_come: framing,
        timeouts,
        end: None,
        head_bytes_max: 1000,
        body_bytes_max: 100,
        reused: true,
    }
}

/// A connection that has sent its request, with the input that a test has given it.
struct Driver {
    exchange: Exchange,
    input: Vec<u8>,
    seen: String,
    now: Instant,
}

impl Driver {
    fn new(terms: Terms) -> Driver {
        let now = Instant::now();
        let mut exchange = Exchange::new(terms, 10, now);
        exchange.on_flushed(0, now);
        Driver { exchange, input: Vec::new(), seen: String::new(), now }
    }

    /// Notes what comes of `bytes`: `200`, the body, then `end`, `end close` or the error.
    fn receive(&mut self, bytes: &[u8], ended: bool) {
        self.input.extend_from_slice(bytes);
        loop {
            let mut body = Vec::new();
            let polled = self.exchange.poll(&self.input, ended, &mut body, self.now);
            self.seen.push_str(str::from_utf8(&body).unwrap());
            match polled {
                Ok(Polled { used, event }) => {
                    self.input.drain(..used);
                    match event {
                        Event::More => return,
                        Event::Data => {}
                        Event::Head(head) => self.seen.push_str(&format!("{} ", head.status.code())),
                        Event::End if self.seen.ends_with(['!', '?']) => return,
                        Event::End if self.exchange.is_reusable() => self.seen.push('!'),
                        Event::End => self.seen.push('?'),
                    }
                }
                Err(kind) => {
                    let error = format!(" {kind:?}");
                    if !self.seen.ends_with(&error) {
                        self.seen.push_str(&error);
                    }
                    return;
                }
            }
        }
    }
}

/// `!` is an end after which the connection may be used again, `?` one after which it may not.
#[track_caller]
fn check(terms: &Terms, input: &[u8], expected: &str) {
    for at in 0..=input.len() {
        let mut driver = Driver::new(terms.clone());
        driver.receive(&input[..at], false);
        driver.receive(&input[at..], false);
        driver.receive(b"", true);
        assert_eq!(driver.seen, expected, "{:?} split at {at}", String::from_utf8_lossy(input));
    }
    let mut driver = Driver::new(terms.clone());
    input.iter().for_each(|byte| driver.receive(&[*byte], false));
    driver.receive(b"", true);
    assert_eq!(driver.seen, expected, "{:?} byte by byte", String::from_utf8_lossy(input));
}

const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\n";
const UNTIL_CLOSE: &str = "HTTP/1.1 200 OK\r\n\r\nhello";

#[test]
fn answers_at_every_split() {
    let get = terms(Method::Get, BodyFraming::Empty);
    let continued = |count| "HTTP/1.1 100 Continue\r\n\r\n".repeat(count);
    for (input, expected) in [
        (LENGTH.into(), "200 hello!"),
        (CHUNKED.into(), "200 hello!"),
        (UNTIL_CLOSE.into(), "200 hello?"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into(), "200 !"),
        ("HTTP/1.1 204 No Content\r\n\r\n".into(), "204 !"),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n".into(), "304 !"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi".into(), "200 hi?"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi".into(), "200 hi?"),
        (continued(16) + LENGTH, "200 hello!"),
        (continued(17) + LENGTH, " Protocol(TooManyInterim)"),
        (continued(1), " Closed"),
        ("".into(), " Closed"),
        ("\x16\x03\x01".into(), " Protocol(BadHead)"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n".into(), " TooLarge { bytes_max: 100 }"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\nX".into(), "200 a Protocol(BadChunk)"),
    ] {
        check(&get, input.as_bytes(), expected);
    }
    check(&terms(Method::Head, BodyFraming::Empty), &LENGTH.as_bytes()[..LENGTH.len() - 5], "200 !");
}

/// What is left behind an answer was not asked for: it stays in the input, and the caller sees it there.
#[test]
fn bytes_behind_an_answer_are_left_alone() {
    for answer in [LENGTH, CHUNKED] {
        let mut driver = Driver::new(terms(Method::Get, BodyFraming::Empty));
        driver.receive(&[answer, "HTTP/1.1 200"].concat().into_bytes(), false);
        assert_eq!((&*driver.seen, &*driver.input), ("200 hello!", &b"HTTP/1.1 200"[..]));
    }
}

#[test]
fn an_answer_that_is_cut_is_never_complete() {
    for answer in [LENGTH, CHUNKED] {
        for at in 0..answer.len() {
            let mut driver = Driver::new(terms(Method::Get, BodyFraming::Empty));
            driver.receive(&answer.as_bytes()[..at], true);
            assert!(driver.seen.ends_with(" Closed"), "{at}: {}", driver.seen);
        }
    }
}

/// Whatever bytes come, and however they are cut, the outcome is the same and the body stays within its bound.
#[test]
fn mutated_answers_have_one_outcome() {
    let mut ends = 0;
    for seed in 1..4000u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = |bound: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as usize % bound
        };
        let mut input = [LENGTH, CHUNKED, UNTIL_CLOSE][next(3)].as_bytes().to_vec();
        for _ in 0..1 + next(3) {
            let at = next(input.len().max(1));
            match next(4) {
                _ if input.is_empty() => {}
                0 => input[at] = b"\r\n \t:;,0159afZ\0\x7f-"[next(17)],
                1 => input.insert(at, b"\r\n 0:,"[next(6)]),
                2 => drop(input.remove(at)),
                _ => input.truncate(at + 1),
            }
        }
        let get = terms(Method::Get, BodyFraming::Empty);
        let mut whole = Driver::new(get.clone());
        whole.receive(&input, false);
        whole.receive(b"", true);
        let mut cut = Driver::new(get);
        let mut rest = &input[..];
        while !rest.is_empty() {
            let (part, after) = rest.split_at(1 + next(rest.len()));
            cut.receive(part, false);
            rest = after;
        }
        cut.receive(b"", true);
        assert_eq!(whole.seen, cut.seen, "seed {seed}: {:?}", String::from_utf8_lossy(&input));
        assert!(whole.seen.len() < 200, "seed {seed}: {}", whole.seen);
        ends += u32::from(whole.seen.ends_with(['!', '?']));
    }
    assert!(ends > 100, "only {ends} answers survived: the test tests little");
}

#[test]
fn request_bodies_keep_their_length() {
    for (framing, pieces, expected) in [
        (BodyFraming::Chunked, &["he", "", "llo"][..], Ok("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")),
        (BodyFraming::Chunked, &[], Ok("0\r\n\r\n")),
        (BodyFraming::Length(5), &["he", "", "llo"], Ok("hello")),
        (BodyFraming::Length(5), &["he", "ll"], Err(ErrorKind::RequestBody)),
        (BodyFraming::Length(5), &["hello", "!"], Err(ErrorKind::RequestBody)),
        (BodyFraming::Length(5), &["hello!"], Err(ErrorKind::RequestBody)),
        (BodyFraming::Length(0), &[], Ok("")),
        (BodyFraming::Length(0), &["x"], Err(ErrorKind::RequestBody)),
    ] {
        let (mut driver, mut out) = (Driver::new(terms(Method::Post, framing)), Vec::new());
        let sent = pieces.iter().try_for_each(|piece| driver.exchange.send_piece(piece.as_bytes(), &mut out));
        let sent = sent.and_then(|()| driver.exchange.send_end(&mut out)).map(|()| str::from_utf8(&out).unwrap());
        assert_eq!(sent, expected, "{framing:?} {pieces:?}");
        assert!(expected.is_err() || matches!(driver.exchange.outbound, Outbound::Sent));
    }
}

#[test]
fn an_answer_before_the_end_of_the_request_ends_the_connection() {
    let mut driver = Driver::new(terms(Method::Post, BodyFraming::Chunked));
    driver.receive(LENGTH.as_bytes(), false);
    assert_eq!(driver.seen, "200 hello?");
    let mut driver = Driver::new(terms(Method::Post, BodyFraming::Length(1)));
    driver.exchange.send_piece(b"x", &mut Vec::new()).unwrap();
    driver.receive(LENGTH.as_bytes(), false);
    assert_eq!(driver.seen, "200 hello?", "the kernel has not taken the request");
}

#[test]
fn only_what_is_safe_is_retried() {
    let cases = [
        (Method::Get, true, "", ErrorKind::Closed, true),
        (Method::Put, true, "", ErrorKind::Closed, true),
        (Method::Delete, true, "", ErrorKind::Closed, true),
        (Method::Post, true, "", ErrorKind::Closed, false),
        (Method::Patch, true, "", ErrorKind::Closed, false),
        (Method::Get, false, "", ErrorKind::Closed, false),
        (Method::Get, true, "H", ErrorKind::Closed, false),
        (Method::Get, true, "HTTP/1.1 100 x\r\n\r\n", ErrorKind::Closed, false),
        (Method::Get, true, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", ErrorKind::Closed, false),
        (Method::Get, true, "", ErrorKind::Timeout(Phase::FirstByte), false),
    ];
    for (method, reused, input, kind, expected) in cases {
        let mut driver = Driver::new(Terms { reused, ..terms(method, BodyFraming::Empty) });
        driver.receive(input.as_bytes(), false);
        driver.receive(b"", true);
        assert_eq!(driver.exchange.may_retry(&kind), expected, "{method} {reused} {input:?} {kind:?}");
    }
}

#[test]
fn each_phase_has_its_time() {
    let start = Instant::now();
    let at = |seconds| start + seconds * SECOND;
    let timeout = |phase| Some(ErrorKind::Timeout(phase));

    // Nothing is taken, then a part, then all, then nothing comes.
    let mut exchange = Exchange::new(terms(Method::Get, BodyFraming::Empty), 10, start);
    assert_eq!(exchange.deadline(), Some(at(3)));
    exchange.on_flushed(5, at(1));
    exchange.on_flushed(5, at(2));
    assert_eq!(exchange.deadline(), Some(at(4)));
    assert_eq!(exchange.on_deadline(at(3)), None);
    exchange.on_flushed(0, at(2));
    assert_eq!(exchange.deadline(), Some(at(4)));
    assert_eq!(exchange.on_deadline(at(4)), timeout(Phase::FirstByte));
    assert_eq!((exchange.deadline(), exchange.on_deadline(at(9))), (None, None));
    assert!(exchange.poll(LENGTH.as_bytes(), false, &mut Vec::new(), at(9)).is_err(), "a failure stays");

    let mut stuck = Exchange::new(terms(Method::Get, BodyFraming::Empty), 10, start);
    assert_eq!(stuck.on_deadline(at(3)), timeout(Phase::Send));

    // The producer of the request is slow, the reader of the answer too, then the server.
    let mut exchange = Exchange::new(terms(Method::Post, BodyFraming::Chunked), 10, start);
    exchange.on_flushed(0, at(1));
    assert_eq!(exchange.deadline(), None);
    exchange.send_piece(b"x", &mut Vec::new()).unwrap();
    exchange.on_flushed(0, at(10));
    exchange.send_end(&mut Vec::new()).unwrap();
    exchange.on_flushed(0, at(20));
    assert_eq!(exchange.deadline(), Some(at(22)));
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert!(exchange.poll(head, false, &mut Vec::new(), at(21)).is_ok());
    assert_eq!(exchange.deadline(), Some(at(24)));
    exchange.set_paused(true, at(22));
    assert_eq!(exchange.deadline(), None);
    exchange.set_paused(false, at(50));
    assert_eq!(exchange.deadline(), Some(at(53)));
    assert!(exchange.poll(b"he", false, &mut Vec::new(), at(51)).is_ok());
    assert_eq!(exchange.on_deadline(at(53)), None);
    assert_eq!(exchange.on_deadline(at(54)), timeout(Phase::Idle));

    // All of it together.
    let total = Terms { end: Some(at(5)), ..terms(Method::Post, BodyFraming::Chunked) };
    let mut exchange = Exchange::new(total, 10, start);
    exchange.on_flushed(0, at(1));
    assert_eq!(exchange.deadline(), Some(at(5)));
    assert_eq!(exchange.on_deadline(at(5)), timeout(Phase::Total));
}
