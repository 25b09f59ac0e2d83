"""Compares `dunlin search` over a folder with brute force: numpy on the vectors of the index file, in float64.

    python scripts/search-recall.py DUNLIN FOLDER        (pip install numpy)

Asks questions that are lines of the folder's own files, and prints how many of the ten nearest pieces were found, and in
which order. Exits with 1 where one is missing.
"""

import json
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

MODEL = "all-minilm:l6-v2"
TOP_K = 10
QUESTIONS = [
    "how do I undo the last commit?",
    "which files are not tracked",
    "sign a tag with a key",
    "move commits to another branch",
    "what must a package declare about its dependencies",
    "find the commit that introduced a bug",
    "conflicts during a merge",
    "shared libraries and their symbols",
]
LINES = 22


def read_index(path):
    """Vectors and ids, by the format as crates/dunlin/src/search/file.rs describes it."""
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<8sIQ", data)
    assert (magic, version) == (b"DUNLINDX", 1)
    at = 20 + length
    header = json.loads(data[20:at])
    shape = header["documents"], header["dimensions"]
    vectors = np.frombuffer(data, "<f4", shape[0] * shape[1], at).reshape(shape)
    at += vectors.nbytes
    ids = []
    for _ in range(shape[0]):
        parts = []
        for _ in range(3):
            (length,) = struct.unpack_from("<I", data, at)
            parts.append(data[at + 4 : at + 4 + length])
            at += 4 + length
        ids.append(parts[0].decode())
    return vectors.astype(np.float64), np.array(ids)


def questions(folder):
    lines = set()
    for path in sorted(folder.rglob("*.txt")):
        text = path.read_text(encoding="utf-8", errors="ignore")
        lines.update(line.strip() for line in text.splitlines() if 40 < len(line.strip()) < 90)
    chosen = random.Random(1).sample(sorted(lines), min(LINES, len(lines)))
    return QUESTIONS + [line.lstrip("-") for line in chosen]


def main():
    dunlin, folder = sys.argv[1], Path(sys.argv[2])
    asked = questions(folder)
    run = lambda *args: json.loads(subprocess.run([dunlin, *args], check=True, stdout=subprocess.PIPE).stdout)
    embedded = run("embed", MODEL, "--as", "query", "--json", "--", *asked)["embeddings"]
    with tempfile.TemporaryDirectory() as temporary:
        index = Path(temporary) / "recall.index"
        found, wanted, same_order = 0, 0, 0
        for question, query in zip(asked, embedded):
            args = ["--model", MODEL, "--index", str(index), "--top-k", str(TOP_K), "--json"]
            hits = run("search", *args, "--", str(folder), question)["hits"]
            hits = [f"{hit['path']}#{hit['start']}-{hit['end']}" for hit in hits]
            vectors, ids = read_index(index)
            query = np.array(query, np.float64)
            cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
            # Pieces of the same text have the same cosine: any of them is right.
            least = np.sort(cosines)[-TOP_K]
            right = set(ids[cosines >= least - 1e-12])
            found += sum(hit in right for hit in hits)
            wanted += min(TOP_K, len(ids))
            order = cosines[[list(ids).index(hit) for hit in hits]]
            same_order += bool(np.all(np.diff(order) <= 1e-12))
    print(f"{len(ids)} pieces, {len(asked)} questions: recall at {TOP_K} is {found / wanted} ({found} of {wanted}),")
    print(f"in the order of brute force for {same_order} of {len(asked)}")
    sys.exit(found != wanted)


if __name__ == "__main__":
    main()
