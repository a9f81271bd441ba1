#!/usr/bin/env python3
"""Our server and its peers side by side: requests per second, p99 and server CPU per request.

    cargo build --release --manifest-path benches/peers/Cargo.toml
    benches/compare.py                                  # every case, every server
    benches/compare.py --only plain,pipelined --servers hyper,may_minihttp --rounds 5 --seconds 3 --json out.json

Needs Linux, wrk, taskset and two cores: each server runs on the first core, the load on the second. A round measures every
server in turn, so that drift hits all alike; figures are medians of rounds, with the lowest and highest beside the CPU.
CPU is that of the whole server process by its CPU clock (user and system time, nanoseconds), so that a busy machine
disturbs the ratio less than it disturbs requests per second; a measurement during which other programs used more than
a tenth of the machine is taken again, as often as `--patience` allows. Before anything is measured every answer is
checked, and a server that does not do what a case is about is left out of it.
"""
import argparse
import contextlib
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BINARIES = Path(__file__).parent / "peers/target/release"
PEERS = ["hyper", "axum", "actix", "ntex", "may_minihttp", "tiny_http"]
SERVER_CORE, LOAD_CORE = "0", "1"
# Not peers: binary, cores, and further arguments. On two cores wrk takes one from the second loop, so that two loops show
# only whether a request costs more than with one.
OURS = {
    "ours": ("ours", SERVER_CORE),
    "two_loops": ("ours", f"{SERVER_CORE},{LOAD_CORE}", "2"),
    "floor": ("floor", SERVER_CORE),
}
FIRST = ["chrt", "--rr", "1"]
HELLO, FILE_BYTES = b"Hello, World!", 1 << 20
DEPTH, STREAMS = 16, 10_000
QUIET_SHARE = 0.1
EVENTS_SHARE_MIN = 0.5
PIPELINE = f"""
local many
init = function() many = string.rep(wrk.format("GET", "/"), {DEPTH}) end
request = function() return many end
"""
# What wrk gets besides its duration; the fan-out has a load tool of its own.
CASES = {
    "plain": ("plain, 64 connections", ["-c64"], "/"),
    "plain_1000": ("plain, 1,000 connections", ["-c1000"], "/"),
    "pipelined": (f"{DEPTH} pipelined, 64 connections", ["-c64", "-s", "PIPELINE"], "/"),
    "json": ("JSON, 64 connections", ["-c64"], "/json"),
    "close": ("a connection for each request, 64 at a time", ["-c64", "-H", "Connection: close"], "/"),
    "file": ("1 MiB file, 16 connections", ["-c16"], "/file"),
    "events": (f"events to {STREAMS:,} streams, 10/s each", None, "/events"),
}


def cpu_nanos(pid):
    """User and system time of all threads of a process, also of those that have ended (clock_getcpuclockid)."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def machine_busy_seconds():
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class Server:
    def __init__(self, name, file, first):
        self.name = name
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        binary, cores, *more = OURS.get(name, (f"peer_{name}", SERVER_CORE))
        pinned = [*FIRST * first, "taskset", "-c", cores]
        command = [*pinned, BINARIES / binary, f"127.0.0.1:{self.port}", file, *more]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.pid = self.process.pid
        for _ in range(100):
            with contextlib.suppress(OSError):
                return self.connect().close()
            time.sleep(0.05)
        sys.exit(f"{binary} does not listen")

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    def stop(self):
        self.process.kill()
        self.process.wait()


# --- is the answer right?


def get(server, path):
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    client.request("GET", path)
    answer = client.getresponse()
    assert answer.status == 200, f"status {answer.status}"
    assert answer.getheader("date"), "no Date"
    return client, answer


def check_whole(server, path, content_type, body):
    client, answer = get(server, path)
    for _ in range(2):
        told = answer.getheader("content-type", "no type")
        assert told.startswith(content_type or told), f"{path} is {told}"
        assert answer.read() == body, "wrong body"
        client.request("GET", path)
        answer = client.getresponse()
    client.close()


def check_pipelined(server):
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with server.connect() as client:
        client.sendall(request)
        one = len(client.recv(1 << 16))
        client.sendall(request * DEPTH)
        seen = b""
        while len(seen) < DEPTH * one:
            seen += client.recv(1 << 16)
        assert seen.count(HELLO) == seen.count(b"HTTP/1.1 200") == DEPTH and len(seen) == DEPTH * one, "wrong answers"


def check_close(server):
    with server.connect() as client:
        client.settimeout(2)
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        seen = b""
        try:
            while piece := client.recv(1 << 16):
                seen += piece
        except TimeoutError:
            raise AssertionError("keeps the connection open") from None
        assert seen.endswith(HELLO) and b"connection: close" in seen.lower(), "no Connection: close in the answer"


def check_events(server):
    client, answer = get(server, "/events")
    told = answer.getheader("content-type", "no type")
    assert told.startswith("text/event-stream"), f"/events is {told}"
    lines = [answer.readline() for _ in range(4)]
    assert all(re.fullmatch(rb"data: ?\d{20}\n", line) for line in lines[::2]) and lines[1] == lines[3] == b"\n", lines
    client.close()


def check(server, case, file_body):
    """Why a server has no part in a case, or None."""
    try:
        match case:
            case "json":
                check_whole(server, "/json", "application/json", b'{"message":"Hello, World!"}')
            case "file":
                check_whole(server, "/file", "", file_body)
            case "pipelined":
                check_pipelined(server)
            case "close":
                check_close(server)
            case "events":
                check_events(server)
            case _:
                check_whole(server, "/", "text/plain", HELLO)
    except (AssertionError, OSError, http.client.HTTPException) as problem:
        return str(problem) or type(problem).__name__
    return None


# --- how fast is it?


def load(command, first):
    done = subprocess.run([*FIRST * first, "taskset", "-c", LOAD_CORE, *command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


def p99_millis(output):
    """None where wrk has none: with pipelining, its correction for late sends leaves the upper percentiles empty."""
    found = re.search(r"99%\s+([\d.]+)(us|ms|s|m)\n", output)
    value = float(found[1]) * {"us": 1e-3, "ms": 1, "s": 1e3, "m": 6e4}[found[2]] if found else 0
    return value or None


def run_wrk(server, case, options, script):
    _, flags, path = CASES[case]
    flags = [script if flag == "PIPELINE" else flag for flag in flags]
    command = ["wrk", "-t1", f"-d{options.seconds}", "--latency", *flags, f"http://127.0.0.1:{server.port}{path}"]
    before = cpu_nanos(server.pid)
    output = load(command, options.first)
    cpu = cpu_nanos(server.pid) - before
    requests = int(re.search(r"(\d+) requests in", output).group(1))
    trouble = re.search(r"Socket errors.*|Non-2xx.*", output)
    return {
        "per_second": float(re.search(r"Requests/sec:\s*([\d.]+)", output).group(1)),
        "p99_ms": p99_millis(output),
        "cpu_us": cpu / max(requests, 1) / 1e3,
        "trouble": trouble.group(0) if trouble else None,
    }


def run_fanout(server, options):
    counts = [str(STREAMS), str(options.seconds), str(server.pid)]
    told = json.loads(load([BINARIES / "fanout_load", f"127.0.0.1:{server.port}", *counts], options.first))
    missed = told["events"] < 0.99 * told["events_due"]
    return {
        "per_second": told["events_per_second"],
        "p99_ms": told["p99_ms"],
        "cpu_us": told["server_cpu_us_per_event"],
        "trouble": f"{told['events']} of {told['events_due']} events" if missed else None,
    }


def measure(server, case, options, script, deadline):
    quietest = None
    while True:
        began, busy, own = time.monotonic(), machine_busy_seconds(), os.times()
        cpu = cpu_nanos(server.pid)
        figures = run_fanout(server, options) if case == "events" else run_wrk(server, case, options, script)
        now = os.times()
        ours = (cpu_nanos(server.pid) - cpu) / 1e9 + sum(now[:4]) - sum(own[:4])
        others = (machine_busy_seconds() - busy - ours) / (time.monotonic() - began) / os.cpu_count()
        figures["others_share"] = round(max(others, 0), 3)
        quietest = min(figures, quietest or figures, key=lambda one: one["others_share"])
        if others < QUIET_SHARE or time.monotonic() > deadline:
            return quietest
        time.sleep(2)


# --- tables


def median(rounds, key):
    known = [figures[key] for figures in rounds if figures[key] is not None]
    return statistics.median(known) if known else None


def print_table(case, results, left_out):
    print(f"\n### {CASES[case][0]}\n")
    unit = "event" if case == "events" else "request"
    print(f"| | {unit}s/s | p99 ms | server CPU µs per {unit} (lowest–highest) | ours / this |\n|---|---|---|---|---|")
    ours = results.get("ours")
    for name, rounds in sorted(results.items(), key=lambda entry: median(entry[1], "cpu_us")):
        cpu = [figures["cpu_us"] for figures in rounds]
        ratio = statistics.median(a["cpu_us"] / b["cpu_us"] for a, b in zip(ours, rounds)) if ours else float("nan")
        label = f"**{name}**" if name == "ours" else name
        spread = f"{statistics.median(cpu):.2f} ({min(cpu):.2f}–{max(cpu):.2f})"
        versus = "" if name == "ours" else f"{ratio:.2f}"
        p99 = median(rounds, "p99_ms")
        late = "–" if p99 is None else f"{p99:.2f}"
        print(f"| {label} | {median(rounds, 'per_second'):,.0f} | {late} | {spread} | {versus} |")
    for name, reason in left_out.items():
        print(f"\n{name} has no part in this: {reason}.")
    for name, rounds in results.items():
        for trouble in sorted({figures["trouble"] for figures in rounds} - {None}):
            print(f"\n{name}: {trouble}")
    loud = [figures["others_share"] for rounds in results.values() for figures in rounds]
    print(f"\nOther programs used {statistics.median(loud):.0%} of the machine in the median measurement, at most {max(loud):.0%}.")


def arguments():
    words = lambda text: text.split(",")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=words, default=list(CASES), help=f"cases, of {','.join(CASES)}")
    servers = [*PEERS, "floor", "two_loops"]
    parser.add_argument("--servers", type=words, default=[*PEERS, "floor"], help=f"of {','.join(servers)}; ours is always there")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="each measurement")
    parser.add_argument("--patience", type=int, default=120, help="seconds for repeating disturbed measurements, for each case")
    parser.add_argument("--first", action="store_true", help="servers and load go before other programs (chrt, root)")
    parser.add_argument("--json", type=Path, help="also write every figure there")
    options = parser.parse_args()
    if unknown := set(options.only) - set(CASES) | set(options.servers) - set(servers):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return options


def main():
    options = arguments()
    found = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        file, script = folder / "file", folder / "pipeline.lua"
        body = os.urandom(FILE_BYTES)
        file.write_bytes(body)
        script.write_text(PIPELINE)
        servers = [Server(name, file, options.first) for name in ["ours", *options.servers]]
        for server in servers:
            stack.callback(server.stop)
        for case in options.only:
            left_out = {server.name: reason for server in servers if (reason := check(server, case, body))}
            if "ours" in left_out:
                sys.exit(f"ours, {case}: {left_out['ours']}")
            running = [server for server in servers if server.name not in left_out]
            results = {server.name: [] for server in running}
            deadline = time.monotonic() + options.patience
            for _ in range(options.rounds):
                for server in running:
                    results[server.name].append(measure(server, case, options, script, deadline))
                running.append(running.pop(0))
            for name, rounds in list(results.items()):
                # What a server pays for an event says little when most events never arrive.
                if case == "events" and (share := median(rounds, "per_second") / (STREAMS * 10)) < EVENTS_SHARE_MIN:
                    left_out[name] = f"delivers {share:.0%} of the events"
                    del results[name]
            print_table(case, results, left_out)
            sys.stdout.flush()
            found[case] = {"results": results, "left_out": left_out}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


main()
