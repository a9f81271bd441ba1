//! A server under test: a child process on the first core, and what the kernel tells of it.

use std::io::{self, Error, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

/// Killed when dropped.
pub struct ServerProcess {
    child: Child,
    pub addr: SocketAddr,
}

impl ServerProcess {
    /// Starts a server of this package on a free port, and waits until it listens.
    pub fn start(binary: &str, file: &str) -> io::Result<ServerProcess> {
        let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = Command::new("taskset");
        command.args(["-c", "0", binary, &addr.to_string(), file]).stdout(Stdio::null());
        let server = ServerProcess { child: command.spawn()?, addr };
        for _ in 0..100 {
            if TcpStream::connect(addr).is_ok() {
                return Ok(server);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(Error::other(format!("{binary} does not listen")))
    }

    /// taskset has become the server: one process, one id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Resident memory.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most that was resident since the start or [`forget_peak`](ServerProcess::forget_peak).
    pub fn peak_bytes(&self) -> io::Result<u64> {
        self.status_bytes("VmHWM:")
    }

    pub fn forget_peak(&self) -> io::Result<()> {
        fs::write(format!("/proc/{}/clear_refs", self.pid()), "5")
    }

    fn status_bytes(&self, field: &str) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok());
        kib.map(|kib| kib << 10).ok_or_else(|| Error::other(format!("no {field} the server has ended")))
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> io::Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }

    /// Bytes that the server has allocated, if it tells (`GET /heap`; ours does).
    pub fn heap_bytes(&self) -> io::Result<Option<u64>> {
        let mut socket = TcpStream::connect(self.addr)?;
        socket.write_all(b"GET /heap HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut answer = Vec::new();
        // Peers need not close; what has come until then counts.
        let _ = socket.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        Ok(answer.starts_with("HTTP/1.1 200").then(|| answer.lines().last()?.parse().ok()).flatten())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and system time of all threads of a process so far, also of those that have ended.
pub fn cpu_nanos(pid: i32) -> io::Result<u64> {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one clock id and one timespec, which live here.
    let (named, read) = unsafe {
        let named = libc::clock_getcpuclockid(pid, &mut clock);
        (named, if named == 0 { libc::clock_gettime(clock, &mut time) } else { -1 })
    };
    match (named, read) {
        (0, 0) => Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64),
        _ => Err(Error::other(format!("no CPU clock of process {pid}"))),
    }
}
