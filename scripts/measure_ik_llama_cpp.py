"""Speed of ik_llama.cpp through its C library: run by `compare` in the peers' environment.

    measure_ik_llama_cpp.py '{"model": PATH, "threads": N, "flash_attn": BOOL, "repack": BOOL,
                              "prompt": N, "generate": N, "depth": N}'

Prints {"pp": tokens per second, "tg": tokens per second} as the last line. What is timed is what llama-bench times: a
prompt in steps of 512 tokens, then single tokens; both after `depth` tokens, and after a warm-up.
"""

import json
import sys
import time

from ik_llama_cpp import _ctypes_api as api

UBATCH = 512


class Engine:
    def __init__(self, job):
        api.llama_backend_init()
        params = api.llama_model_default_params()
        params.use_mmap = False
        params.repack_tensors = job["repack"]
        self.model = api.llama_model_load_from_file(job["model"].encode(), params)
        params = api.llama_context_default_params()
        params.n_ctx = job["depth"] + max(job["prompt"], job["generate"], 1) + 32
        params.n_batch, params.n_ubatch = 2048, UBATCH
        params.n_threads = params.n_threads_batch = job["threads"]
        params.flash_attn = job["flash_attn"]
        self.context = self.model and api.llama_init_from_model(self.model, params)
        if not self.context:
            sys.exit("ik_llama.cpp cannot load the model")
        self.vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))
        self.batch = api.llama_batch_init(UBATCH, 0, 1)

    def step(self, start, count):
        """Appends `count` tokens; the scores after the last one are computed."""
        batch = self.batch
        batch.n_tokens = count
        for i in range(count):
            batch.token[i] = (start + i) * 7919 % self.vocabulary
            batch.pos[i] = start + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = i == count - 1
        if api.llama_decode(self.context, batch) != 0:
            sys.exit("ik_llama.cpp cannot compute")
        # Waits for the result.
        api.llama_get_logits_ith(self.context, count - 1)

    def feed(self, start, count):
        for at in range(start, start + count, UBATCH):
            self.step(at, min(UBATCH, start + count - at))

    def at_depth(self, depth):
        api.llama_kv_cache_clear(self.context)
        self.feed(0, depth)


def speed(engine, depth, count, work):
    engine.at_depth(depth)
    start = time.perf_counter()
    work(count)
    return count / (time.perf_counter() - start)


def main():
    job = json.loads(sys.argv[1])
    engine, depth = Engine(job), job["depth"]
    engine.feed(0, min(UBATCH, job["prompt"] or 16))
    engine.step(job["prompt"] and min(UBATCH, job["prompt"]) or 16, 1)
    found = {}
    if job["prompt"]:
        found["pp"] = speed(engine, depth, job["prompt"], lambda count: engine.feed(depth, count))
    if job["generate"]:
        one_by_one = lambda count: [engine.step(depth + i, 1) for i in range(count)]  # noqa: E731
        found["tg"] = speed(engine, depth, job["generate"], one_by_one)
    print(json.dumps(found))


main()
