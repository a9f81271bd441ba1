//! The real binary as a child process on a port that it chose itself.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use super::{
    client::{self, Answer, Client},
    model,
};

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

/// The binary with a clean environment and a directory without a models.toml.
pub fn sconce() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sconce"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SCONCE_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").current_dir(env!("CARGO_TARGET_TMPDIR"));
    command
}

impl Server {
    /// Serves the tiny model with these flags beside.
    pub fn start(flags: &[&str]) -> Server {
        let mut command = sconce();
        command.args(["--port", "0", "--log", "warn", "--model"]).arg(model::tiny()).args(flags);
        Server::spawn(command)
    }

    /// Serves the embedded model, as it does when nobody says otherwise.
    pub fn demo() -> Server {
        let mut command = sconce();
        command.args(["--port", "0", "--log", "warn"]);
        Server::spawn(command)
    }

    /// Runs a command that serves, and waits until it says where.
    pub fn spawn(mut command: Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = match lines.next() {
                Some(line) => line.unwrap(),
                None => panic!("the server ended without an address: {:?}", child.wait()),
            };
            if let Some((_, rest)) = line.split_once("http://") {
                break rest.split_whitespace().next().unwrap().trim_end_matches('/').parse().unwrap();
            }
        };
        // Read on, so that the server never writes into a closed or full pipe.
        std::thread::spawn(move || for _ in lines {});
        Server { child, address }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.client().request("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.client().request("POST", path, &[], body.as_bytes())
    }

    /// The value of a series of `/metrics`.
    pub fn metric(&self, series: &str) -> f64 {
        let page = self.get("/metrics").text();
        let line = page.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("no {series} in\n{page}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for the process to end; panics after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        eventually(limit, "the server ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks again until `condition` holds; panics when it does not within `limit`.
#[track_caller]
pub fn eventually(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Runs a command to its end: exit code, stdout, stderr. Killed after `client::TIMEOUT`.
pub fn run(mut command: Command) -> (Option<i32>, String, String) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipes = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let out = std::thread::spawn(move || read_all(&mut pipes.0));
    let err = std::thread::spawn(move || read_all(&mut pipes.1));
    let deadline = Instant::now() + client::TIMEOUT;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                let _ = child.kill();
                panic!("{command:?} did not end");
            }
            None => std::thread::park_timeout(Duration::from_millis(5)),
        }
    };
    (status.code(), out.join().unwrap(), err.join().unwrap())
}

fn read_all(pipe: &mut impl Read) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).unwrap();
    text
}
