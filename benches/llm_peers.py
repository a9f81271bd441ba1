#!/usr/bin/env python3
"""Our inference server and llama.cpp side by side on the same model files: the table of benches/RESULTS.md.

    cargo build --release
    benches/llm_peers.py q.q4km.gguf q.q8_0.gguf --llama llama.cpp/build/bin --load llm_load.py
    benches/llm_peers.py q.q4km.gguf --llama … --load … --only forward,busy --rounds 5 --json out.json

A round measures the two in turn, so that drift hits both alike; figures are medians of rounds. Only one of them is loaded
at a time. What is compared:

    serve     three workloads of eight clients over HTTP, and one of tokens only, beside `sconce bench` at that width
    forward   `sconce bench` beside llama-bench (prompt of 512; one stream, also behind 8k tokens) and
              llama-batched-bench (8, 16 and 32 streams)
    avx2      the same with both held to AVX2: ours by SCONCE_KERNELS, llama.cpp by a build of its own (--llama-avx2)
    busy      one stream while a busy loop holds one of the cores
    quota     one stream within one CPU: a cgroup's quota where one may be made, else affinity
    memory    time to ready, and resident memory then
"""
import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parent.parent
CASES = ["serve", "forward", "avx2", "busy", "quota", "memory"]
READY_SECONDS = 120
DEEP = 8192
# What is asked of the first model (the Qwen3-0.6B shape in Q4_K_M); of any other, and with AVX2, the plain ones.
WANTED = {
    "40 requests, 8 at a time": 3,
    "300 distinct words": 2.5,
    "512 shared words": 6,
    "one stream": 1.7,
    "prompt of 512": 2,
    "32 streams": 2.5,
    f"one stream behind {DEEP}": 1.5,
}
WANTED_ELSEWHERE, WANTED_AVX2 = 1.3, 1.2
# Of ours alone.
WANTED_OF_OURS = {
    "300 distinct words: gap p99": "≤ 0.12",
    "8 streams over HTTP, share of the forward pass alone": "≥ 0.97",
    "share that is kept beside it": "≥ 0.6",
    "loading alone": "≤ 2",
}
WORKLOADS = {
    "40 requests, 8 at a time": "-n 40 -c 8 --gen 50",
    "300 distinct words": "-n 16 -c 8 --gen 50 --words 300 --distinct",
    "512 shared words": "-n 24 -c 8 --gen 50 --shared 512 --words 16 --distinct",
}
TOKENS_ONLY = "-n 8 -c 8 --gen 200"


def run(command, environment=None, limit=3600):
    """What the command printed, and the CPUs that it kept busy on average."""
    began, before = time.monotonic(), os.times()
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=limit, env={**os.environ, **(environment or {})}
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    now = os.times()
    used = now.children_user + now.children_system - before.children_user - before.children_system
    return done.stdout, used / (time.monotonic() - began)


# --- the two, as commands


class Ours:
    name = "ours"

    def __init__(self, options, environment=None):
        self.options, self.environment = options, environment or {}

    def serve(self, model, port):
        # Made-up weights repeat themselves, which guesses from the text so far would profit from.
        settings = ["--threads", self.options.threads, "--speculation", "off", "--log", "warn"]
        return [self.options.sconce, "serve", "--port", port, *settings, "--model", model], "/readyz", "native"

    def bench(self, model, prefill=(), decode=(), depth=0, threads=True):
        """(tokens/s by case, CPUs kept busy, the report)"""
        chosen = [f"--{kind}={','.join(map(str, many))}" for kind, many in (("prefill", prefill), ("decode", decode)) if many]
        limit = ["--threads", self.options.threads] if threads else []
        command = [self.options.sconce, "bench", "--json", "--repeat", self.options.repeat, f"--depth={depth}"]
        output, cpus = run([*command, *chosen, *limit, "--model", model], self.environment)
        report = json.loads(output)
        figures = {("prefill", one["tokens"]): one["tokens_per_second"] for one in report["prefill"]}
        figures |= {("decode", one["width"]): one["tokens_per_second"] for one in report["decode"]}
        return figures, cpus, report


class Llama:
    name = "llama.cpp"

    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        paths = [str(folder), os.environ.get("LD_LIBRARY_PATH", "")]
        self.environment = {"LD_LIBRARY_PATH": ":".join(filter(None, paths))}

    def serve(self, model, port):
        threads = ["-t", self.options.threads, "-tb", self.options.threads]
        command = [self.folder / "llama-server", "-m", model, *threads, "-np", 8, "-c", 16384, "--port", port]
        return command, "/health", "llama"

    def bench(self, model, prefill=(), decode=(), depth=0, threads=True):
        figures, cpus = {}, []
        common = ["-m", model, *(["-t", self.options.threads] if threads else [])]
        tokens = 16 if depth else 64
        alone = [("-p", length, "-n", 0) for length in prefill] + [("-p", 0, "-n", tokens)] * (1 in decode)
        for kind in alone:
            command = [self.folder / "llama-bench", *common, *kind, "-d", depth, "-r", self.options.repeat, "-o", "json"]
            output, cpu = run(command, self.environment)
            one = json.loads(output)[0]
            key = ("prefill", one["n_prompt"]) if one["n_prompt"] else ("decode", 1)
            figures[key] = statistics.median(one["samples_ts"])
            cpus.append(cpu)
        if wide := [width for width in decode if width > 1]:
            command = [self.folder / "llama-batched-bench", *common, "-tb", self.options.threads, "-c", 4096]
            command += ["-npp", 16, "-ntg", 32, "-npl", ",".join(map(str, wide)), "--output-format", "jsonl"]
            output, cpu = run(command, self.environment)
            for line in filter(lambda line: "speed_tg" in line, output.splitlines()):
                one = json.loads(line[line.index("{") :])
                figures["decode", one["pl"]] = one["speed_tg"]
            cpus.append(cpu)
        return figures, statistics.mean(cpus), None


class Server:
    """One of the two, serving; ended on leaving."""

    def __init__(self, side, model):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command, self.ready_path, self.api = side.serve(model, self.port)
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [str(word) for word in command], env={**os.environ, **side.environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def __enter__(self):
        while time.monotonic() < self.began + READY_SECONDS:
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self.ready_path}", timeout=1):
                    self.ready_seconds = time.monotonic() - self.began
                    return self
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.process.args[0]} ended with {self.process.returncode}")
            time.sleep(0.02)
        self.__exit__()
        raise RuntimeError(f"{self.process.args[0]} was not ready within {READY_SECONDS} s")

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def resident_mb(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6

    def load(self, options, workload):
        words = workload.split()
        if options.scale < 1:
            at = words.index("-n") + 1
            words[at] = str(max(1, round(int(words[at]) * options.scale)))
        command = [sys.executable, options.load, f"http://127.0.0.1:{self.port}", "--api", self.api, *words]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        told = json.loads(done.stdout) if done.returncode == 0 else {"failed": "all"}
        if told["failed"]:
            raise RuntimeError(f"{told['failed']} of the requests failed ({workload}): {done.stderr.strip() or 'no reason'}")
        return told


# --- cases: each gives rows of (what, figure of llama.cpp, figure of ours)


class Table:
    """Figures of all rounds, by row and side."""

    def __init__(self):
        self.rows = {}

    def add(self, row, side, figure):
        self.rows.setdefault(row, {}).setdefault(side, []).append(figure)

    def median(self, row, side):
        known = [figure for figure in self.rows[row].get(side, []) if figure is not None]
        return statistics.median(known) if known else None


def case_serve(table, side, model, options):
    for name, workload in WORKLOADS.items():
        # A server of its own for each: nothing is cached from the workload before.
        with Server(side, model) as server:
            told = server.load(options, workload)
        table.add((name, "tok/s"), side.name, told["gen_tok_s"])
        table.add((f"{name}: gap p99", "s"), side.name, (told["itl_ms_p99"] or 0) / 1e3)
        table.add((f"{name}: first token p50", "s"), side.name, told["ttft_ms_p50"] / 1e3)
    with Server(side, model) as server:
        served = server.load(options, TOKENS_ONLY)["gen_tok_s"]
    table.add(("8 streams over HTTP", "tok/s"), side.name, served)
    if side.name == "ours":
        alone = side.bench(model, decode=[8])[0]["decode", 8]
        table.add(("8 streams over HTTP, share of the forward pass alone", ""), side.name, served / alone)


def case_forward(table, side, model, options):
    figures, _, _ = side.bench(model, prefill=[512], decode=[1, 8, 16, 32])
    for (kind, count), figure in figures.items():
        what = f"prompt of {count}" if kind == "prefill" else "one stream" if count == 1 else f"{count} streams"
        table.add((what, "tok/s"), side.name, figure)
    if options.deep:
        figures, _, _ = side.bench(model, decode=[1], depth=DEEP)
        table.add((f"one stream behind {DEEP}", "tok/s"), side.name, figures.get(("decode", 1)))


@contextlib.contextmanager
def busy_core(seconds):
    """A loop that holds the first of this process's CPUs, for some time at most."""
    cpu = min(os.sched_getaffinity(0))
    code = f"import os,time\nos.sched_setaffinity(0,{{{cpu}}})\nend=time.monotonic()+{seconds}\nwhile time.monotonic()<end: pass"
    hog = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        hog.kill()
        hog.wait()


def case_busy(table, side, model, options):
    free = side.bench(model, decode=[1])[0]["decode", 1]
    with busy_core(600):
        held = side.bench(model, decode=[1])[0]["decode", 1]
    table.add(("one stream beside a busy loop on one core", "tok/s"), side.name, held)
    table.add(("share that is kept beside it", ""), side.name, held / free)


@contextlib.contextmanager
def one_cpu():
    """Children of this process get one CPU's time; says by what."""
    folder = Path("/sys/fs/cgroup/sconce_bench")
    own = os.sched_getaffinity(0)
    try:
        if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
            raise OSError("no cgroup v2")
        folder.mkdir()
        try:
            (folder / "cpu.max").write_text("100000 100000")
            (folder / "cgroup.procs").write_text(str(os.getpid()))
            yield "a cgroup's quota"
        finally:
            with contextlib.suppress(OSError):
                Path("/sys/fs/cgroup/cgroup.procs").write_text(str(os.getpid()))
            folder.rmdir()
    except OSError:
        os.sched_setaffinity(0, {min(own)})
        try:
            yield "affinity"
        finally:
            os.sched_setaffinity(0, own)


def case_quota(table, side, model, options):
    with one_cpu() as means:
        # Nobody says how many threads: that is for them to find out.
        figures, cpus, report = side.bench(model, decode=[1], threads=False)
    table.add((f"one stream within one CPU ({means})", "tok/s"), side.name, figures["decode", 1])
    table.add(("CPUs used by it", ""), side.name, cpus)
    table.add(("threads it chose", ""), side.name, report["machine"]["threads"] if report else None)


def case_memory(table, side, model, options):
    with Server(side, model) as server:
        table.add(("time to ready, warm", "s"), side.name, server.ready_seconds)
        table.add(("resident memory when ready", "MB"), side.name, server.resident_mb())
    if side.name == "ours":
        model = side.bench(model, prefill=[32])[2]["model"]
        table.add(("loading alone", "s"), side.name, model["load_seconds"])
        table.add(("packed weights", "MB"), side.name, model["packed_bytes"] / 1e6)


RUN = {"serve": case_serve, "forward": case_forward, "avx2": case_forward, "busy": case_busy, "quota": case_quota, "memory": case_memory}


# --- tables


def shown(figure):
    if figure is None:
        return "–"
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


def print_table(model, case, table, is_first):
    print(f"\n### {model.name}: {case}\n\n| | llama.cpp | ours | ours / llama.cpp | wanted |\n|---|---|---|---|---|")
    for row in table.rows:
        what, unit = row
        theirs, ours = table.median(row, "llama.cpp"), table.median(row, "ours")
        ratio = f"{ours / theirs:.2f}" if theirs and ours else ""
        wanted = WANTED_OF_OURS.get(what, "")
        if unit == "tok/s" and case in ("serve", "forward", "avx2"):
            least = WANTED_AVX2 if case == "avx2" else WANTED.get(what, "") if is_first else WANTED_ELSEWHERE
            wanted = f"≥ {least} ×" if least else ""
        print(f"| {what}{', ' + unit if unit else ''} | {shown(theirs)} | {shown(ours)} | {ratio} | {wanted} |")
    sys.stdout.flush()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, help="GGUF files; the first is the one that most is asked of")
    parser.add_argument("--llama", type=Path, required=True, help="folder of llama.cpp's programs and libraries")
    parser.add_argument("--llama-avx2", type=Path, help="the same, built without AVX-512 and VNNI")
    parser.add_argument("--load", type=Path, help="the load tool, llm_load.py; needed for serve")
    parser.add_argument("--sconce", type=Path, default=ROOT / "target/release/sconce")
    parser.add_argument("--only", type=lambda text: text.split(","), default=CASES, help=f"of {','.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=3, help="runs within one measurement of the forward pass")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--scale", type=float, default=1, help="share of the requests, to try the script")
    parser.add_argument("--no-deep", dest="deep", action="store_false", help=f"leave out {DEEP} tokens of context")
    parser.add_argument("--json", type=Path, help="also write every figure there")
    options = parser.parse_args()
    if unknown := set(options.only) - set(CASES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if "serve" in options.only and not options.load:
        parser.error("serve needs --load")
    if missing := [path for path in [*options.models, options.llama, options.sconce] if not path.exists()]:
        parser.error(f"no such file: {missing[0]}")
    if not shutil.which(str(options.sconce)):
        parser.error(f"{options.sconce} is no program: cargo build --release")
    return options


def main():
    options = arguments()
    found = {}
    for model in options.models:
        for case in options.only:
            sides = [Llama(options, options.llama), Ours(options)]
            if case == "avx2":
                if not options.llama_avx2:
                    continue
                sides = [Llama(options, options.llama_avx2), Ours(options, {"SCONCE_KERNELS": "avx2"})]
            table = Table()
            for number in range(options.rounds):
                for side in sides:
                    print(f"{model.name}, {case}, round {number + 1}: {side.name}", file=sys.stderr)
                    try:
                        RUN[case](table, side, model, options)
                    except (RuntimeError, subprocess.TimeoutExpired) as problem:
                        print(f"{side.name} has no figure: {problem}", file=sys.stderr)
                sides.reverse()
            print_table(model, case, table, model == options.models[0])
            found.setdefault(model.name, {})[case] = [
                {"what": what, "unit": unit, **sides} for (what, unit), sides in table.rows.items()
            ]
            if options.json:
                options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False))


main()
