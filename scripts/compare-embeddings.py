#!/usr/bin/env python3
"""Embeddings a second of Dunlin and onnxruntime on the same machine, in alternating runs.

    scripts/compare-embeddings.py MINILM_FOLDER [--threads 2] [--rounds 5] [--reference FILE.json]

MINILM_FOLDER is a BERT in Hugging Face's layout (all-MiniLM-L6-v2: config.json, model.safetensors). From its weights the script
writes an ONNX graph with onnxruntime's own fused operators (Attention, SkipLayerNormalization, BiasGelu), which is the fastest
form that onnxruntime has for such a model, and the same quantized by `quantize_dynamic`; and with `dunlin convert` a Q8_0 and
an F32 file. It needs a built Dunlin (`cargo build --release --bins --examples`), and in Python numpy, onnx and onnxruntime.

Dunlin's time includes tokenization, onnxruntime's does not: it gets the same number of token ids.

--reference names a file of sentences with their token ids and embeddings ({"sentences": [{"text", "ids", "embedding"}]}); the
smallest cosine to them is printed for each.
"""
import argparse
import json
import pathlib
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

ROOT = pathlib.Path(__file__).resolve().parent.parent
MICROSOFT = "com.microsoft"


def read_safetensors(path):
    """The f32 tensors of a safetensors file by name."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, info in header.items():
        if name == "__metadata__" or info["dtype"] != "F32":
            continue
        first, last = info["data_offsets"]
        values = np.frombuffer(data[8 + length + first : 8 + length + last], dtype="<f4")
        tensors[name] = values.reshape(info["shape"])
    return tensors


class Graph:
    """A list of nodes and weights in the making."""

    def __init__(self):
        self.nodes, self.weights, self.count = [], [], 0

    def weight(self, name, values):
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, op, inputs, domain="", **attributes):
        self.count += 1
        out = f"{op}_{self.count}"
        name = f"node_{self.count}"
        self.nodes.append(helper.make_node(op, inputs, [out], name=name, domain=domain, **attributes))
        return out


def bert_graph(config, tensors):
    """[batch, tokens] ids and mask to the hidden states of a BERT."""
    eps = config["layer_norm_eps"]
    graph = Graph()

    def weight(name, transpose=False):
        values = tensors[name]
        return graph.weight(name, values.T if transpose else values)

    def embedding(name, ids):
        return graph.node("Gather", [weight(f"embeddings.{name}.weight"), ids])

    words = embedding("word_embeddings", "ids")
    # The types are all 0: their row joins that of the positions.
    positions = tensors["embeddings.position_embeddings.weight"] + tensors["embeddings.token_type_embeddings.weight"][0]
    shape = graph.node("Shape", ["ids"])
    zero, one = (graph.weight(f"number{n}", np.array([n], np.int64)) for n in (0, 1))
    tokens = graph.node("Gather", [shape, one])
    positions = graph.node("Slice", [graph.weight("positions", positions), zero, tokens, zero])
    x = graph.node("Add", [words, positions])
    norm = [weight("embeddings.LayerNorm.weight"), weight("embeddings.LayerNorm.bias")]
    x = graph.node("LayerNormalization", [x, *norm], epsilon=eps, axis=-1)
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}."
        parts = [f"{name}attention.self.{part}" for part in ("query", "key", "value")]
        qkv = np.concatenate([tensors[f"{part}.weight"].T for part in parts], axis=1)
        bias = np.concatenate([tensors[f"{part}.bias"] for part in parts])
        inputs = [x, graph.weight(f"{name}qkv", qkv), graph.weight(f"{name}qkv.bias", bias), "mask"]
        y = graph.node("Attention", inputs, MICROSOFT, num_heads=config["num_attention_heads"])

        def dense(y, part):
            return graph.node("MatMul", [y, weight(f"{name}{part}.dense.weight", transpose=True)])

        def add_and_norm(y, x, part):
            inputs = [y, x, *(weight(f"{name}{part}.LayerNorm.{of}") for of in ("weight", "bias"))]
            inputs.append(weight(f"{name}{part}.dense.bias"))
            return graph.node("SkipLayerNormalization", inputs, MICROSOFT, epsilon=eps)

        x = add_and_norm(dense(y, "attention.output"), x, "attention.output")
        y = dense(x, "intermediate")
        y = graph.node("BiasGelu", [y, weight(f"{name}intermediate.dense.bias")], MICROSOFT)
        x = add_and_norm(dense(y, "output"), x, "output")
    graph.nodes[-1].output[0] = "states"
    made = helper.make_graph(
        graph.nodes,
        "bert",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"]),
            helper.make_tensor_value_info("mask", TensorProto.INT32, ["batch", "tokens"]),
        ],
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, ["batch", "tokens", config["hidden_size"]])],
        graph.weights,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8)


def quantize(path, target):
    """Weights in int8, activations quantized as they come."""
    # The types of what the fused operators give are not inferred.
    options = {"DefaultTensorType": TensorProto.FLOAT}
    quantize_dynamic(path, target, weight_type=QuantType.QInt8, extra_options=options)


class Onnx:
    """An ONNX file with mean pooling and vectors of length 1."""

    def __init__(self, path, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def embed(self, ids):
        ids = np.asarray(ids, np.int64)
        mask = np.ones(ids.shape, np.int32)
        (states,) = self.session.run(["states"], {"ids": ids, "mask": mask})
        vectors = states.mean(axis=1)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def speed(self, tokens, batch, runs):
        ids = np.random.default_rng(0).integers(1000, 20000, (batch, tokens))
        start = time.perf_counter()
        self.embed(ids)
        self.embed(ids)
        rounds = int(np.ceil(2 / (time.perf_counter() - start)))
        speeds = []
        for _ in range(runs):
            start = time.perf_counter()
            for _ in range(rounds):
                self.embed(ids)
            speeds.append(rounds * batch / (time.perf_counter() - start))
        return speeds


class Dunlin:
    """A GGUF file in Dunlin."""

    def __init__(self, path, threads, build):
        self.path, self.threads, self.build = path, threads, build

    def embed_texts(self, texts):
        command = [self.build / "dunlin", "embed", self.path, "--json", "--truncate"]
        command += ["--threads", self.threads, "--", *texts]
        return np.array(json.loads(output(command))["embeddings"])

    def speed(self, tokens, batch, runs):
        command = [self.build / "examples" / "embed_speed", self.path, self.threads, tokens, batch, runs]
        return [float(line) for line in output(command).split()]


def output(command):
    """What a program prints; what it complains about is shown."""
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def smallest_cosine(engine, sentences):
    cosines = []
    for sentence in sentences:
        if isinstance(engine, Onnx):
            found = engine.embed([sentence["ids"]])[0]
        else:
            found = engine.embed_texts([sentence["text"]])[0]
        wanted = np.array(sentence["embedding"])
        cosines.append(float(found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted)))
    return min(cosines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds; medians are printed")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, nargs="+", default=[20, 256])
    parser.add_argument("--reference", type=pathlib.Path)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "target" / "release", help="Dunlin's binaries")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        config = json.loads((arguments.folder / "config.json").read_text())
        model = bert_graph(config, read_safetensors(arguments.folder / "model.safetensors"))
        onnx.save(model, folder / "f32.onnx")
        quantize(folder / "f32.onnx", folder / "int8.onnx")
        for kind in ("q8_0", "f32"):
            command = ["convert", arguments.folder, "--out", folder / f"{kind}.gguf", "--type", kind]
            output([arguments.build / "dunlin", *command])
        version = f"onnxruntime {onnxruntime.__version__}"
        engines = {
            f"{version}, f32": Onnx(folder / "f32.onnx", arguments.threads),
            f"{version}, int8 dynamic": Onnx(folder / "int8.onnx", arguments.threads),
            "Dunlin, Q8_0": Dunlin(folder / "q8_0.gguf", arguments.threads, arguments.build),
            "Dunlin, F32": Dunlin(folder / "f32.gguf", arguments.threads, arguments.build),
        }
        speeds = {(name, tokens): [] for name in engines for tokens in arguments.tokens}
        for _ in range(arguments.rounds):
            for tokens in arguments.tokens:
                for name, engine in engines.items():
                    (speed,) = engine.speed(tokens, arguments.batch, 1)
                    speeds[name, tokens].append(speed)
                    print(f"{name}, {tokens} tokens: {speed:.1f}", file=sys.stderr)
        sentences = json.loads(arguments.reference.read_text())["sentences"] if arguments.reference else []

        base = next(iter(engines))
        columns = [f"{tokens} tokens" for tokens in arguments.tokens]
        print(f"Sentences a second (batch {arguments.batch}, {arguments.threads} threads, medians of {arguments.rounds} alternating")
        print("runs, spread in brackets; x: against onnxruntime f32 in the same round)\n")
        print("| engine |", " | ".join(columns), "| smallest cosine |")
        print("|---" * (len(columns) + 2) + "|")
        for name, engine in engines.items():
            cells = []
            for tokens in arguments.tokens:
                these = speeds[name, tokens]
                ratio = statistics.median(a / b for a, b in zip(these, speeds[base, tokens]))
                cells.append(f"{statistics.median(these):.1f} [{min(these):.1f} to {max(these):.1f}], {ratio:.2f} x")
            cosine = f"{smallest_cosine(engine, sentences):.7f}" if sentences else "-"
            print(f"| {name} |", " | ".join(cells), f"| {cosine} |")


if __name__ == "__main__":
    main()
