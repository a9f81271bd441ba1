#!/usr/bin/env python3
"""Are our predictions those of llama.cpp? Teacher-forced over a text, the whole distribution at each position.

    benches/quality.py q.q4km.gguf --f16 q.f16.gguf --text text.txt --llama llama.cpp/build/bin

llama-perplexity writes its distributions over the text (--kl-divergence-base), and `sconce bench --score` holds ours
against them: perplexity of both on the same tokens, and the Kullback–Leibler divergence. The yardstick is what
llama.cpp itself loses by quantising: the divergence of its own figures for MODEL from those for the same weights in F16.
Each chunk of 512 tokens gives 255 positions; 8 chunks are 2,040. The files of distributions take 300 KB a position.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PERPLEXITY_TOLERANCE = 0.003


def perplexity(options, model, *arguments):
    environment = {**os.environ, "LD_LIBRARY_PATH": f"{options.llama}:{os.environ.get('LD_LIBRARY_PATH', '')}"}
    command = [options.llama / "llama-perplexity", "-m", model, "-t", options.threads, "-c", options.context, *arguments]
    done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"llama-perplexity ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout + done.stderr


def distributions(options, model, path):
    perplexity(options, model, "-f", options.text, "--chunks", options.chunks, "--kl-divergence-base", path)


def theirs(options, model, base):
    """What llama.cpp finds for a model beside a file of distributions."""
    output = perplexity(options, model, "--kl-divergence", "--kl-divergence-base", base)
    find = lambda what: float(re.search(what + r"\s*:?\s*(-?[\d.]+)", output).group(1))
    return {"kl_mean": find(r"Mean\s+KLD"), "perplexity": find(r"Mean PPL\(Q\)"), "base_perplexity": find(r"Mean PPL\(base\)")}


def ours(options, base):
    command = [options.sconce, "bench", "--score", base, "--threads", options.threads, "--model", options.model]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"sconce bench --score: {done.stderr}")
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--f16", type=Path, help="the same weights in F16, for the yardstick")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--llama", type=Path, required=True, help="folder of llama.cpp's programs and libraries")
    parser.add_argument("--sconce", type=Path, default=ROOT / "target/release/sconce")
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--context", type=int, default=512, help="tokens of a chunk")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, help="where the distributions are written; a temporary one otherwise")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        base = Path(folder) / "base"
        distributions(options, options.model, base)
        score = ours(options, base)
        yardstick = None
        if options.f16:
            distributions(options, options.f16, base)
            yardstick = theirs(options, options.model, base)["kl_mean"]

    ratio = score["perplexity"] / score["base_perplexity"]
    print(f"| {options.model.name}, {score['positions']:,} positions | llama.cpp | ours |\n|---|---|---|")
    print(f"| perplexity | {score['base_perplexity']:.4f} | {score['perplexity']:.4f} ({100 * (ratio - 1):+.3f} %) |")
    print(f"| divergence from llama.cpp on the same file, nats | 0 | {score['kl_mean']:.6f} (p99 {score['kl_99th']:.6f}) |")
    if yardstick is not None:
        print(f"| divergence of llama.cpp on this file from itself in F16 | {yardstick:.6f} | |")
    print(f"| same likeliest token | 100 % | {100 * score['same_top']:.2f} % |")
    good = abs(ratio - 1) <= PERPLEXITY_TOLERANCE and (yardstick is None or score["kl_mean"] < yardstick)
    print("\nwithin bounds" if good else "\nOUT OF BOUNDS")
    sys.exit(not good)


main()
