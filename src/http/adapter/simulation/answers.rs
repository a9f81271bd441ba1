//! What a client makes of the bytes that it got: a parser that is naive and strict, so that it can judge the encoder.

use std::fmt;

#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub framing: Framing,
    /// 100 Continue came before it.
    pub continued: bool,
    /// All of it is there. Where the end of the connection ends the body, an orderly end was seen.
    pub complete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length,
    Chunked,
    UntilClose,
    /// Another protocol follows.
    Switched,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Which request it says it answers.
    pub fn id(&self) -> Option<usize> {
        self.header("x-id").map(|id| id.parse().unwrap())
    }

    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer { status, headers, body, framing, continued, complete } = self;
        write!(f, "{status} {framing:?}, {} bytes, complete {complete}, continued {continued}, ", body.len())?;
        f.debug_list().entries(headers.iter().map(|(name, value)| format!("{name}: {value}"))).finish()
    }
}

/// What a client has got so far.
pub struct Got<'a> {
    pub bytes: &'a [u8],
    /// The server ended its side in an orderly way.
    pub ended: bool,
}

impl Got<'_> {
    /// Reads the answers to requests of which `head_only` says whether the n-th was HEAD. Panics on anything that is no
    /// answer.
    pub fn answers(&self, head_only: impl Fn(usize) -> bool) -> Vec<Answer> {
        let (mut answers, mut rest, mut continued) = (Vec::<Answer>::new(), self.bytes, false);
        while let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
            let (status, headers) = head(&rest[..end]);
            rest = &rest[end + 4..];
            if status == 100 {
                assert!(!continued && headers.is_empty(), "100 Continue is said once, and alone");
                continued = true;
                continue;
            }
            let mut answer =
                Answer { status, headers, body: Vec::new(), framing: Framing::None, continued, complete: false };
            continued = false;
            // A refusal answers no request: it was not even known to be HEAD.
            let head_only = answer.id().is_some() && head_only(answers.len());
            rest = self.body(&mut answer, rest, head_only);
            let last = !answer.complete || answer.closes() || answer.framing == Framing::Switched;
            answers.push(answer);
            if last {
                assert!(rest.is_empty(), "bytes behind the last answer: {:?}", rest.escape_ascii().to_string());
                return answers;
            }
        }
        assert!(rest.len() < 1000, "no head: {}", rest.escape_ascii());
        answers
    }

    /// Reads a body off the front of `rest`.
    fn body<'b>(&self, answer: &mut Answer, mut rest: &'b [u8], head_only: bool) -> &'b [u8] {
        let length = answer.header("content-length").map(|length| length.parse::<usize>().unwrap());
        let chunked = answer.header("transfer-encoding").is_some_and(|coding| coding == "chunked");
        assert!(!(chunked && length.is_some()), "both kinds of framing: {answer:?}");
        let bodiless = matches!(answer.status, 204 | 304);
        assert!(!(bodiless && (chunked || length.is_some())), "framing without a body: {answer:?}");
        if answer.status == 101 {
            (answer.framing, answer.complete) = (Framing::Switched, true);
            answer.body = rest.to_vec();
            return &[];
        }
        if bodiless || head_only {
            answer.complete = true;
            return rest;
        }
        if let Some(length) = length {
            answer.framing = Framing::Length;
            let count = length.min(rest.len());
            answer.body = rest[..count].to_vec();
            answer.complete = count == length;
            return &rest[count..];
        }
        if !chunked {
            assert!(answer.closes(), "nothing says where this ends: {answer:?}");
            (answer.framing, answer.complete) = (Framing::UntilClose, self.ended);
            answer.body = rest.to_vec();
            return &[];
        }
        answer.framing = Framing::Chunked;
        while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
            let size = usize::from_str_radix(str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
            let Some(chunk) = rest.get(end + 2..end + 2 + size + 2) else {
                let data = &rest[end + 2..];
                answer.body.extend_from_slice(&data[..data.len().min(size)]);
                break;
            };
            assert!(chunk.ends_with(b"\r\n"), "a chunk without its end");
            answer.body.extend_from_slice(&chunk[..size]);
            rest = &rest[end + 2 + size + 2..];
            if size == 0 {
                answer.complete = true;
                return rest;
            }
        }
        &[]
    }
}

fn head(bytes: &[u8]) -> (u16, Vec<(String, String)>) {
    let text = str::from_utf8(bytes).unwrap();
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap();
    let code = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split_once(' ')).map(|(code, _)| code);
    let code: u16 = code.filter(|code| code.len() == 3).unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("{line:?}")))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_string()))
        .collect();
    let count = |wanted: &str| headers.iter().filter(|(name, _)| name == wanted).count();
    for name in ["content-length", "transfer-encoding", "connection", "x-id"] {
        assert!(count(name) <= 1, "{name} twice: {text}");
    }
    assert_eq!(count("date"), usize::from(code != 100), "{text}");
    (code, headers)
}
