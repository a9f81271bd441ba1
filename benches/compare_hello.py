#!/usr/bin/env python3
"""Server CPU per request of the `hello` example against hyper's, in one interleaved run.

    cargo build --release --no-default-features --example hello
    cargo build --release --manifest-path benches/peers/Cargo.toml
    benches/compare_hello.py target/release/examples/hello benches/peers/target/release/hyper_hello

Needs wrk and two cores. Each server runs on the first core, wrk on the second. CPU is user + system time of the server
from /proc, so that a busy machine disturbs the ratio less than it would disturb requests per second.
"""
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS, SECONDS, CONNECTIONS, DEPTH = 7, 3, 64, 16
PIPELINE = """
init = function(args)
  request_many = string.rep(wrk.format("GET", "/"), %d)
end
request = function() return request_many end
""" % DEPTH


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start(binary):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(["taskset", "-c", "0", binary, f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL)
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return server, f"http://127.0.0.1:{port}/"
        except OSError:
            time.sleep(0.05)
    sys.exit(f"{binary} does not listen")


def measure(pid, url, script):
    before = cpu_seconds(pid)
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}"]
    output = subprocess.run(command + (["-s", script] if script else []) + [url], capture_output=True, text=True).stdout
    requests = int(re.search(r"(\d+) requests in", output).group(1))
    assert "Non-2xx" not in output and "Socket errors" not in output, output
    return (cpu_seconds(pid) - before) / requests * 1e6


def main():
    binaries = sys.argv[1:3]
    servers = [start(binary) for binary in binaries]
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(PIPELINE)
            script.flush()
            for name, lua in [(f"{CONNECTIONS} connections", None), (f"the same, {DEPTH} pipelined", script.name)]:
                rounds = [[measure(server.pid, url, lua) for server, url in servers] for _ in range(ROUNDS)]
                ours, peer = (statistics.median(column) for column in zip(*rounds))
                ratio = statistics.median(ours / peer for ours, peer in rounds)
                print(f"{name}: ours {ours:.2f} µs, peer {peer:.2f} µs, ratio {ratio:.2f} (median of {ROUNDS} rounds)")
    finally:
        for server, _ in servers:
            server.terminate()
            server.wait()


main()
