"""Speed of mistral.rs through its Python package: run by `compare` in the peers' environment.

    RAYON_NUM_THREADS=N measure_mistralrs.py '{"model": PATH, "prompt": N, "generate": N}'

Prints {"pp": tokens per second, "tg": tokens per second} as the last line, as the engine itself reports them: it takes text,
so that the prompt has about as many tokens as asked for.
"""

import json
import sys
from pathlib import Path

from mistralrs import CompletionRequest, Runner, Which


def ask(runner, prompt, tokens):
    request = CompletionRequest(
        prompt=prompt, model="default", max_tokens=tokens, temperature=0.0, ignore_eos=True
    )
    return runner.send_completion_request(request).usage


def main():
    job = json.loads(sys.argv[1])
    path = Path(job["model"])
    which = Which.GGUF(quantized_model_id=str(path.parent), quantized_filename=path.name)
    runner = Runner(which=which, prefix_cache_n=0, max_seqs=1)
    ask(runner, "Hello", 4)
    found = {}
    if job["prompt"]:
        usage = ask(runner, " one" * job["prompt"], 1)
        found["pp"] = usage.prompt_tokens / usage.total_prompt_time_sec
    if job["generate"]:
        usage = ask(runner, "Hello", job["generate"])
        found["tg"] = usage.completion_tokens / usage.total_completion_time_sec
    print(json.dumps(found))


main()
