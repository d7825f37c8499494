"""What a request pays for what it asks of its tokens: microseconds of CPU time at rank 0 for a row of a step.

Rows of 151,552 logits, as wide as those of GLM-4.5, in batches of 8 and 64, one thread. Of each feature: the time of a
batch in which every row asks for it, less that of a plain batch, by rows. The plain batch itself is measured against
the bare draw, which is all that the engine did before it had these features. The process keeps memory that it had once:
what is measured is the work. Page faults come on top of everything, also of the plain row: up to 2.5 ms a row.

With --decode also the promise for structured output: mask, draw and matching of 8 rows against one decode step of the
172 M model (benchmarks/models.py --kind bench-172m) at batch 8 with the same thread, on that model's vocabulary.

Ends with a JSON line a number. There is no peer.
"""

import argparse
import json
import os
import random
import statistics
import string
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import torch

from glm_worker.engine.sampling.draw import draw
from glm_worker.engine.sampling.matcher import AnswerMatcher
from glm_worker.engine.sampling.sampler import Sampler
from glm_worker.kernels.cpu.sample import sample_kernel
from glm_worker.model.grammar_vocabulary import grammar_vocabulary, load_xgrammar
from glm_worker.request import AnswerGrammar, EngineRequest, SamplingParams, Thought
from glm_worker.scheduler.sequence import SequenceState

load_xgrammar()
import xgrammar  # noqa: E402

VOCAB_SIZE = 151_552
EOS = VOCAB_SIZE - 1
PROMPT, ANSWER = 2000, 500  # tokens that a row has, for penalties and bad words
GOAL_PLAIN, GOAL_GRAMMAR = 1.02, 0.05
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33), "OMP_NUM_THREADS": "1"}
KERNEL = sample_kernel(1)  # as ranks on CPUs have it
WARM = SamplingParams(temperature=0.8, seed=1)
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "count": {"type": "integer"},
        "kind": {"enum": ["first", "second", "third"]},
    },
    "required": ["name", "tags", "count", "kind"],
}


def features() -> dict[str, EngineRequest]:
    random.seed(0)
    prompt = [random.randrange(VOCAB_SIZE) for _ in range(PROMPT)]
    plain = EngineRequest(request_id="", prompt_token_ids=prompt, max_tokens=10**6, stop_token_ids=[EOS], sampling=WARM)

    def penalised(**penalties: float) -> EngineRequest:
        return msgspec.structs.replace(plain, sampling=msgspec.structs.replace(WARM, **penalties))

    thought = Thought(open_id=1, close_id=2, begins_open=True, max_tokens=10**6, forced_ids=[2])
    bias = dict.fromkeys(random.sample(range(VOCAB_SIZE), 300), 1.0)
    bad_words = [random.sample(range(VOCAB_SIZE), 3) for _ in range(100)]
    return {
        "top_p": msgspec.structs.replace(plain, sampling=msgspec.structs.replace(WARM, top_p=0.9)),
        "frequency and presence penalty": penalised(frequency_penalty=0.5, presence_penalty=0.5),
        "repetition penalty": penalised(repetition_penalty=1.1),
        "logit_bias of 300 tokens": msgspec.structs.replace(
            plain, sampling=msgspec.structs.replace(WARM, logit_bias=bias)
        ),
        "100 bad words": msgspec.structs.replace(plain, bad_words=bad_words),
        "min_tokens": msgspec.structs.replace(plain, min_tokens=10**6),
        "thinking budget": msgspec.structs.replace(plain, thought=thought),
        "logprobs": msgspec.structs.replace(plain, num_logprobs=0),
        "20 top logprobs": msgspec.structs.replace(plain, num_logprobs=20),
        "grammar": msgspec.structs.replace(plain, grammar=AnswerGrammar(key="k", compiled=b"")),
        "plain": plain,
    }


def wide_vocabulary() -> xgrammar.TokenizerInfo:
    """Return a vocabulary like that of GLM-4.5 in size and lengths: bytes, and words with and without a space."""
    random.seed(0)
    tokens = [bytes([byte]) for byte in range(256)]
    known = set(tokens)
    marks = string.ascii_letters + string.digits + "     " + '"{}[],:._-\n'
    while len(tokens) < EOS:
        length = min(1 + int(random.expovariate(0.18)), 20)
        kind = random.random()
        if kind < 0.2:
            text = "".join(random.choice(marks) for _ in range(length))
        elif kind < 0.35:
            text = chr(random.randint(0x4E00, 0x9FFF)) + chr(random.randint(0x4E00, 0x9FFF))
        else:
            text = " " * (kind < 0.7) + "".join(random.choice(string.ascii_lowercase) for _ in range(length))
        token = text.encode()
        if token not in known:
            known.add(token)
            tokens.append(token)
    return xgrammar.TokenizerInfo([*tokens, b""], xgrammar.VocabType.RAW, vocab_size=VOCAB_SIZE, stop_token_ids=[EOS])


class Batch:
    """The same request many times over, each with its own tokens."""

    def __init__(
        self, request: EngineRequest, num_rows: int, grammar: xgrammar.CompiledGrammar, vocab_size: int
    ) -> None:
        self.sampler = Sampler(KERNEL)
        self.sequences = []
        for number in range(num_rows):
            own = msgspec.structs.replace(
                request, request_id=f"r{number}", sampling=msgspec.structs.replace(request.sampling, seed=number)
            )
            sequence = SequenceState(own, arrival=number)
            if own.grammar is None:
                sequence.token_ids.extend([random.randrange(vocab_size - 1) for _ in range(ANSWER)])
            else:
                self.sampler.expect(own.request_id, AnswerMatcher(grammar, own))
            self.sequences.append(sequence)

    def step(self, logits_SV: torch.Tensor) -> float:
        """Sample a token for each row; return the CPU seconds of it."""
        began = time.process_time()
        sampled = self.sampler.sample(logits_SV, self.sequences)
        took_s = time.process_time() - began
        assert not sampled.failed, sampled.failed
        for sequence, token_id in zip(self.sequences, sampled.token_ids, strict=True):
            sequence.token_ids.append(token_id)
        return took_s


def logits_like(num_rows: int, vocab_size: int) -> torch.Tensor:
    """Return logits of a shape that models have, a few tokens far above the others, with an end that never comes."""
    logits_SV = 2 * torch.randn(num_rows, vocab_size)
    logits_SV[:, torch.randperm(vocab_size)[:50]] += 12.0
    logits_SV[:, vocab_size - 1] = -100.0
    return logits_SV


def alternated(steps: Sequence[Callable[[torch.Tensor], float]], logits_SV: torch.Tensor, rounds: int) -> list[float]:
    """Return the median seconds of each, taken in turn, so that a busy machine is as busy for all of them."""
    seconds: list[list[float]] = [[] for _ in steps]
    for number in range(rounds + 2):
        for times, step in zip(seconds, steps, strict=True):
            took_s = step(logits_SV.clone())
            if number >= 2:  # the first make what is kept
                times.append(took_s)
    return [statistics.median(times) for times in seconds]


def of_features(num_rows: int, rounds: int, grammar: xgrammar.CompiledGrammar) -> list[dict[str, object]]:
    asked = features()
    batches = {name: Batch(request, num_rows, grammar, VOCAB_SIZE) for name, request in asked.items()}
    logits_SV = logits_like(num_rows, VOCAB_SIZE)
    plain = batches.pop("plain")
    params = [sequence.request.sampling for sequence in plain.sequences]

    def bare(logits_SV: torch.Tensor) -> float:
        began = time.process_time()
        draw(logits_SV, params, [sequence.num_tokens for sequence in plain.sequences], KERNEL)
        return time.process_time() - began

    first_s, second_s, third_s, last_s = alternated([bare, plain.step, plain.step, bare], logits_SV, 2 * rounds)
    bare_s, plain_s = (first_s + last_s) / 2, (second_s + third_s) / 2  # what comes after a pause is a little slower
    lines = [
        line(f"plain batch of {num_rows} against the bare draw", plain_s / bare_s, GOAL_PLAIN),
        line(f"microseconds a row, plain, batch {num_rows}", plain_s / num_rows * 1e6),
    ]
    for name, batch in batches.items():
        plain_s, asking_s = alternated([plain.step, batch.step], logits_SV, rounds)
        lines.append(line(f"microseconds a row more, {name}, batch {num_rows}", (asking_s - plain_s) / num_rows * 1e6))
    return lines


def of_decode(folder: Path, rounds: int) -> list[dict[str, object]]:
    """The grammar's share of a decode step at batch 8."""
    from glm_worker.engine.runner import Runner
    from glm_worker.model.config import ModelConfig
    from glm_worker.model.kv_cache import KVCache
    from glm_worker.model.weights import load_model
    from glm_worker.parallel.groups import Communicator
    from glm_worker.parallel.mesh import Mesh
    from glm_worker.scheduler.plan import ScheduledBatch, ScheduledSequence

    config, mesh, cpu, num_rows = ModelConfig.read(folder), Mesh(), torch.device("cpu"), 8
    model = load_model(folder, config, mesh, Communicator.single(), cpu, torch.float32)
    kv_cache = KVCache.allocate(config, mesh, num_rows * 32, 16, torch.float32, cpu)
    runner = Runner(model, kv_cache, Communicator.single(), cpu)
    plan = ScheduledBatch(
        1,
        tuple(
            ScheduledSequence(f"r{i}", 255, [i], list(range(32 * i, 32 * i + 16)), True, WARM, True)
            for i in range(num_rows)
        ),
        (),
        (),
    )

    def decode(_: torch.Tensor) -> float:
        began = time.process_time()
        runner.run(plan)
        return time.process_time() - began

    vocabulary = grammar_vocabulary(folder)
    grammar = xgrammar.GrammarCompiler(vocabulary, max_threads=1).compile_json_schema(SCHEMA)
    plain = msgspec.structs.replace(features()["plain"], prompt_token_ids=[1], stop_token_ids=[config.eos_token_ids[0]])
    asking = msgspec.structs.replace(plain, grammar=AnswerGrammar(key="k", compiled=b""))
    steps = [Batch(request, num_rows, grammar, config.vocab_size).step for request in (plain, asking)]
    logits_SV = logits_like(num_rows, config.vocab_size)
    logits_SV[:, list(config.eos_token_ids)] = -100.0
    decode_s, plain_s, asking_s = alternated([decode, *steps], logits_SV, rounds)
    print(f"ms: decode {decode_s * 1e3:.1f}, sampling {plain_s * 1e3:.2f}, with grammars {asking_s * 1e3:.2f}")
    share = (asking_s - plain_s) / (decode_s + plain_s)
    return [line("share of a decode step that grammars add, 172 M model, batch 8", share, GOAL_GRAMMAR, digits=4)]


def line(metric: str, ours: float, goal: float | None = None, digits: int = 3) -> dict[str, object]:
    return {
        "bench": "sampling",
        "metric": metric,
        "ours": round(ours, digits),
        "peer": None,
        "ratio": None,
        "goal": goal,
        "met": None if goal is None else ours <= goal,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="of each comparison")
    parser.add_argument("--decode", type=Path, help="folder of the 172 M model; without: only the rows")
    arguments = parser.parse_args()
    if not KEEP_MEMORY.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP_MEMORY})  # malloc reads it once
    torch.set_num_threads(1)
    grammar = xgrammar.GrammarCompiler(wide_vocabulary(), max_threads=1).compile_json_schema(SCHEMA)
    lines = [line for num_rows in (8, 64) for line in of_features(num_rows, arguments.rounds, grammar)]
    if arguments.decode is not None:
        lines += of_decode(arguments.decode, arguments.rounds)
    for each in lines:
        print(json.dumps(each))
    return 0 if all(each["met"] is not False for each in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
