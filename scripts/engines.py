"""The engines that `compare` runs, each behind the same methods.

    setup()                                   builds or finds it; fills in `version`
    choose(model, threads, depth)             its best flags for a model, from a short pilot after so many tokens; in words
    speeds(model, threads, prompt, generate, depth)
                                              {"pp": tokens per second, "tg": tokens per second} of one run
    decode(model, threads, generate, depths)  {depth: tokens per second} after each, the median of DECODE_RUNS runs of one
                                              process where its benchmark makes several
    first_token(model, threads)               seconds of a program that loads the model and writes one token; None where
                                              there is no such program. `start_flags` are its flags in words
"""

import json
import math
import os
import re
import statistics
import subprocess
import time
from itertools import product

import peers
from peers import ROOT, Failed, output_of, run

HERE = ROOT / "scripts"
# A pilot is short, but long enough for its flags to matter.
PILOT_PROMPT, PILOT_GENERATE = 256, 32
# A part of decode that is kept is a ratio of short runs, which a busy machine makes vary by some percent.
DECODE_RUNS = 5


def timed(*command, **options):
    """Seconds from the start of a program to its end."""
    start = time.perf_counter()
    output_of(*command, stdin=subprocess.DEVNULL, **options)
    return time.perf_counter() - start


def last_line(text):
    return json.loads(text.strip().splitlines()[-1])


def mean(speeds):
    """The geometric mean of what an engine reached."""
    return math.exp(sum(math.log(speed) for speed in speeds.values()) / len(speeds))


class Dunlin:
    name = "Dunlin"
    start_flags = "run -n 1 --raw"

    def __init__(self, program=None):
        self.program = program
        self.tier = None  # known once it has measured something

    def setup(self):
        if not self.program:
            run("cargo", "build", "--locked", "--release", "-p", "dunlin-cli", cwd=ROOT)
            self.program = peers.target() / "release" / "dunlin"
        version = output_of(self.program, "--version").split()[-1]
        commit = output_of("git", "rev-parse", "--short", "HEAD", cwd=ROOT).strip()
        self.version = f"{version} ({commit})"

    def choose(self, model, threads, depth):
        return "defaults"

    def bench(self, model, threads, *arguments, runs=1):
        rows = json.loads(output_of(
            self.program, "bench", model, "-t", threads, "-r", runs, "--no-cold-start", "-o", "json", "--offline",
            "--quiet", *arguments))  # fmt: skip
        self.tier = rows[0]["tier"]
        return rows

    def speeds(self, model, threads, prompt, generate, depth):
        rows = self.bench(model, threads, "-p", prompt, "-n", generate, "-d", depth, "-b", 1)
        return {row["test"][:2]: row["tokens_per_second"]["median"] for row in rows if row["tokens_per_second"]}

    def decode(self, model, threads, generate, depths):
        depths = ",".join(map(str, depths))
        rows = self.bench(model, threads, "-p", 0, "-n", generate, "-d", depths, "-b", 1, runs=DECODE_RUNS)
        return {row["depth"]: row["tokens_per_second"]["median"] for row in rows if row["tokens_per_second"]}

    def first_token(self, model, threads):
        command, *flags = self.start_flags.split()
        return timed(self.program, command, model, *flags, "--threads", threads, "--offline", "--quiet", "Hello")


class LlamaCpp:
    name = "llama.cpp"
    start_flags = "llama-completion -n 1 -no-cnv --no-warmup -fit off -c 4096"

    def __init__(self, build=None, flags=None):
        self.build = build
        self.given = flags  # for every model, without a pilot
        self.flags = {}

    def setup(self):
        self.build = self.build or peers.build_llama_cpp("llama-bench", "llama-completion")
        self.version = peers.LLAMA_CPP.split("==")[1].split(".")[0]

    def rows(self, model, threads, prompt, generate, depths, flags, runs=1):
        return json.loads(output_of(
            self.build / "bin" / "llama-bench", "-m", model, "-t", threads, "-p", prompt, "-n", generate,
            "-d", ",".join(map(str, depths)), "-r", runs, "-o", "json", *flags))  # fmt: skip

    def bench(self, model, threads, prompt, generate, depth, flags, runs=1):
        rows = self.rows(model, threads, prompt, generate, [depth], flags, runs)
        return {"pp" if row["n_prompt"] else "tg": row["avg_ts"] for row in rows}

    def choose(self, model, threads, depth):
        choices = [["-fa", fa, "-lm", mode] for fa, mode in product(["off", "on"], ["none", "mmap"])]
        best = lambda flags: mean(self.bench(model, threads, PILOT_PROMPT, PILOT_GENERATE, depth, flags, 2))  # noqa: E731
        self.flags[model] = self.given or max(choices, key=best)
        return " ".join(self.flags[model])

    def speeds(self, model, threads, prompt, generate, depth):
        return self.bench(model, threads, prompt, generate, depth, self.flags[model])

    def decode(self, model, threads, generate, depths):
        rows = self.rows(model, threads, 0, generate, depths, self.flags[model], DECODE_RUNS)
        return {row["n_depth"]: statistics.median(row["samples_ts"]) for row in rows}

    def first_token(self, model, threads):
        program, *flags = self.start_flags.split()
        return timed(self.build / "bin" / program, *flags, "-m", model, "-t", threads, "-p", "Hello")


class IkLlamaCpp:
    name = "ik_llama.cpp"
    start_flags = ""

    def __init__(self, python=None):
        self.python = python
        self.flags = {}

    def setup(self):
        if not self.python:
            self.python = peers.environment()
            peers.install(self.python, peers.IK_LLAMA_CPP)
        self.version = peers.IK_LLAMA_CPP.replace("==", " ")

    def measure(self, model, threads, prompt, generate, depth, flags):
        job = {"model": str(model), "threads": threads, "prompt": prompt, "generate": generate, "depth": depth}
        return last_line(output_of(self.python, HERE / "measure_ik_llama_cpp.py", json.dumps(job | flags)))

    def choose(self, model, threads, depth):
        choices = [{"flash_attn": fa, "repack": repack} for fa, repack in product([False, True], repeat=2)]
        best = lambda flags: mean(self.measure(model, threads, PILOT_PROMPT, PILOT_GENERATE, depth, flags))  # noqa: E731
        self.flags[model] = max(choices, key=best)
        return ", ".join(f"{name} {'on' if value else 'off'}" for name, value in self.flags[model].items())

    def speeds(self, model, threads, prompt, generate, depth):
        return self.measure(model, threads, prompt, generate, depth, self.flags[model])

    def decode(self, model, threads, generate, depths):
        return {depth: self.speeds(model, threads, 0, generate, depth)["tg"] for depth in depths}

    def first_token(self, model, threads):
        return None


class MistralRs:
    name = "mistral.rs"
    start_flags = ""

    def __init__(self, program=None):
        self.program = program

    def setup(self):
        self.program = self.program or peers.build_mistral_rs()
        self.version = f"mistralrs-cli {peers.MISTRAL_RS}"

    def choose(self, model, threads, depth):
        return "compiled for this processor"

    def speeds(self, model, threads, prompt, generate, depth):
        """As its own benchmark reports them, once, after a run that is not counted."""
        if depth:
            raise Failed("its benchmark has no context before a test")
        alone = {**os.environ, "RAYON_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
        table = output_of(self.program, "bench", "--prompt-len", prompt, "--gen-len", generate, "--iterations", 1,
                          "--format", "gguf", "-m", model.parent, "-f", model.name, env=alone)  # fmt: skip
        found = {"pp": r"Prefill[^\d]*\d+ tokens\)\D*?([\d.]+) ±", "tg": r"Decode[^\d]*\d+ tokens\)\D*?([\d.]+) ±"}
        speeds = {test: re.search(pattern, table) for test, pattern in found.items()}
        return {test: float(speed[1]) for test, speed in speeds.items() if speed}

    decode = IkLlamaCpp.decode

    def first_token(self, model, threads):
        return None
