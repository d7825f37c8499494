"""transformers at some work: its own model and cache, with whichever of its experts implementations is the fastest.

A prompt of each request goes through at once, then one token a step for all; only the logits that are wanted are
computed. The implementation that decodes each batch the fastest is found in a short first round and told with its
speed; prefill is the best of all of them.
"""

import time
from typing import Any

import torch
from engines.work import Speed, Work, of_command_line, tell
from transformers import AutoModelForCausalLM, DynamicCache

IMPLEMENTATIONS = ("grouped_mm", "eager")
GATHERS, MOST_GATHERED = "batched_mm", 128  # it copies the experts of each token of a step: many GB for long prompts
TRIAL_TOKENS = 8


@torch.inference_mode()
def measure(model: Any, work: Work, seed: int) -> Speed:
    generator = torch.Generator().manual_seed(seed)
    vocab_size = model.config.vocab_size
    ids = torch.randint(3, vocab_size, (work.batch, work.num_prompt), generator=generator)
    cache = DynamicCache(config=model.config)
    began_s = time.perf_counter()
    for step in range(work.num_answer + 1):
        out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        ids = out.logits[:, -1].argmax(dim=-1, keepdim=True)
        if step == 0:
            prefilled_s = time.perf_counter()
    ended_s = time.perf_counter()
    num_prompt, num_answer = work.batch * work.num_prompt, work.batch * work.num_answer
    return Speed(work, num_prompt / (prefilled_s - began_s), num_answer / (ended_s - prefilled_s))


def main() -> None:
    folder, name, threads, works = of_command_line(__doc__)
    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    for work in works:
        trial = Work(work.num_prompt, min(TRIAL_TOKENS, work.num_answer), work.batch)
        allowed = [*IMPLEMENTATIONS, *([GATHERS] if work.batch * work.num_prompt <= MOST_GATHERED else [])]
        trials = {}
        for implementation in allowed:
            model.set_experts_implementation(implementation)
            measure(model, trial, seed=0)
            trials[implementation] = measure(model, trial, seed=1)
        best = max(allowed, key=lambda implementation: trials[implementation].decode)
        model.set_experts_implementation(best)
        speed = measure(model, work, seed=2)
        prefill = max(speed.prefill, *(trial.prefill for trial in trials.values()))
        tell(Speed(work, prefill, speed.decode), experts=best)


if __name__ == "__main__":
    main()
