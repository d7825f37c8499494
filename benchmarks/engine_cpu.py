"""How fast the engine is on a CPU beside what else one could run there: llama.cpp and transformers.

The 172 M glm4_moe of benchmarks/models.py with the same weights for all, fp32 and bf16, random prompts, greedy answers.
Batches of 1, 8 and 32 requests of 128 tokens in and 64 out; then 2,048 in and 64 out. Prefill and decode in tokens/s of
all requests together; each engine has the machine to itself and takes its turn in every round, and what is told is the
median of the rounds. llama.cpp is built for this CPU from the source package of llama-cpp-python (once, 3 to 8
minutes); its KV cache is fp16, as it is by default. transformers runs with the fastest of its experts implementations.

Share of the bandwidth: the weights that a token needs, times tokens/s at batch 1, by what the same threads read in a
sum over 512 MB in this run. Load: the checkpoint's bytes by the time from its files, in the page cache, to a model, in
a process that has just started (engines/loading.py), against reading the same files as `cat` does; in both types of
file and of weights. fresh_gb_s beside it: reading the files into new memory, by as many threads.

Ends with a JSON line a number. Exit status 1: a goal was missed, or other work runs on the machine (--anyway: measure
all the same; such numbers say how the script works, and nothing else).
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from engines.llama_cpp import LlamaCpp, PeerMissing
from engines.loading import bf16_copy
from engines.machine import Busy, read_bandwidth, wait_until_quiet
from engines.work import Speed, Work, arguments_of, told

import models
from glm_worker.model.config import ModelConfig
from glm_worker.model.tensor_map import tensor_reads
from glm_worker.parallel.mesh import Mesh

FOLDER = Path(__file__).resolve().parent
WORKS = {
    "short": [Work(128, 64, batch) for batch in (1, 8, 32)],
    "context of 2k": [Work(2048, 64, batch) for batch in (1, 8)],
}
SMOKE = {"short": [Work(32, 4, batch) for batch in (1, 2)]}
DTYPES = ("float32", "bfloat16")
BYTES = {"float32": 4, "bfloat16": 2}
DECODE_GOAL, DECODE_GOAL_ALONE, PREFILL_GOAL, TRANSFORMERS_GOAL = 1.2, 1.0, 1.0, 2.0
BANDWIDTH_GOAL, LOAD_GOAL = 0.75, 0.8
OURS, LLAMA, HF = "ours", "llama.cpp", "transformers"

Key = tuple[str, str, Work]  # engine, dtype, work


class Table:
    """Speeds of each engine at each work, one a round, and what engines said besides."""

    def __init__(self) -> None:
        self._speeds: defaultdict[Key, list[Speed]] = defaultdict(list)
        self.said: defaultdict[tuple[str, str], list[dict[str, object]]] = defaultdict(list)

    def note(self, engine: str, dtype: str, speed: Speed, said: dict[str, object] | None = None) -> None:
        self._speeds[engine, dtype, speed.work].append(speed)
        self.said[engine, dtype].append(said or {})
        print(f"    {engine:12s} {speed.work.name}: prefill {speed.prefill:.0f}, decode {speed.decode:.1f} tokens/s")

    def median(self, engine: str, dtype: str, work: Work, phase: str) -> float | None:
        values = [getattr(speed, phase) for speed in self._speeds[engine, dtype, work]]
        return statistics.median(values) if values else None


def run_script(
    name: str, model: Path, dtype: str, threads: int, works: list[Work]
) -> list[tuple[Speed, dict[str, object]]]:
    """Run an engine in a process of its own."""
    return told(output_of(name, arguments_of(model, dtype, threads, works), threads))


def output_of(name: str, arguments: list[str], threads: int) -> str:
    """Return what a script of engines/ printed; end with what it complained of where it failed."""
    command = [sys.executable, str(FOLDER / "engines" / name), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(FOLDER), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} ended with status {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


def measure(
    table: Table, model: Path, threads: int, works: Sequence[list[Work]], peers: Sequence[str], llama: LlamaCpp | None
) -> None:
    """Give every engine its turn at all works, in both dtypes."""
    for dtype in DTYPES:
        for group in works:
            print(f"==> {dtype}, {group[0].num_prompt} in, {group[0].num_answer} out", flush=True)
            for speed, said in run_script("ours.py", model, dtype, threads, group):
                table.note(OURS, dtype, speed, said)
            if llama is not None:
                for speed in llama.measure(llama.gguf(model, dtype), threads, group):
                    table.note(LLAMA, dtype, speed)
            if HF in peers:
                for speed, said in run_script("hf.py", model, dtype, threads, group):
                    table.note(HF, dtype, speed, said)


def loads(folder: Path, threads: int, rounds: int) -> list[dict[str, object]]:
    """Measure loading: every pair of types in each round, and each file into fresh memory."""
    folders = {"float32": folder, "bfloat16": bf16_copy(folder)}
    jobs = [*itertools.product(DTYPES, DTYPES), *((stored, None) for stored in DTYPES)]
    said: defaultdict[tuple[str, str | None], list[dict[str, float]]] = defaultdict(list)
    for number in range(rounds):
        print(f"==> load, round {number + 1}", flush=True)
        for stored, dtype in jobs:
            how = ["--fresh"] if dtype is None else ["--dtype", dtype]
            arguments = ["--model", str(folders[stored]), "--threads", str(threads), *how]
            said[stored, dtype].append(json.loads(output_of("loading.py", arguments, threads)))
            last = said[stored, dtype][-1]
            speed, cat, cpu_s = last["gb"] / last["seconds"], last["gb"] / last["cat_s"], last["cpu_s"]
            what = "fresh memory" if dtype is None else f"weights of {dtype}"
            print(f"    {stored} file into {what}: {speed:.2f} GB/s, {cpu_s:.2f} s of CPUs; cat {cat:.2f} GB/s")

    def median(key: tuple[str, str | None], name: str) -> float:
        return statistics.median(each["gb"] / each[name] for each in said[key])

    return [
        line(
            f"load of {stored} weights as {dtype} against cat, GB/s",
            median((stored, dtype), "seconds"),
            median((stored, dtype), "cat_s"),
            LOAD_GOAL,
            fresh_gb_s=round(median((stored, None), "seconds"), 3),
            cpu_s=round(statistics.median(each["cpu_s"] for each in said[stored, dtype]), 3),
        )
        for stored, dtype in jobs
        if dtype is not None
    ]


def bytes_of_token(config: ModelConfig, dtype: str) -> float:
    """Return the bytes of weights that decoding one token reads: its own experts, all of the rest, one embedding."""
    share = config.num_experts_per_tok / config.n_routed_experts
    total = 0.0
    for read in tensor_reads(config, Mesh()):
        size = 1
        for length in read.shape:
            size *= length
        is_fp32 = "norm" in read.name or read.name.endswith("bias") or ".mlp.gate." in read.name
        num_bytes = size * (4 if is_fp32 else BYTES[dtype])
        if "embed_tokens" in read.name:
            num_bytes //= config.vocab_size
        total += num_bytes * (share if ".mlp.experts." in read.name else 1)
    return total


def line(metric: str, ours: float, peer: float | None, goal: float | None, **more: object) -> dict[str, object]:
    ratio = None if peer is None else ours / peer
    measured = ours if peer is None else ratio
    return {
        "bench": "engine_cpu",
        "metric": metric,
        "ours": round(ours, 3),
        "peer": None if peer is None else round(peer, 3),
        "ratio": None if ratio is None else round(ratio, 3),
        "goal": goal,
        "met": None if goal is None or measured is None else measured >= goal,
        **more,
    }


def lines_of(table: Table, works: Sequence[list[Work]], say: Callable[[str, Work], str]) -> list[dict[str, object]]:
    lines = []
    for dtype in DTYPES:
        for group in works:
            for work in group:
                for phase in ("decode", "prefill"):
                    ours = table.median(OURS, dtype, work, phase)
                    assert ours is not None
                    alone = DECODE_GOAL_ALONE if work.batch == 1 else DECODE_GOAL
                    goals = {LLAMA: alone if phase == "decode" else PREFILL_GOAL, HF: TRANSFORMERS_GOAL}
                    for engine, goal in goals.items():
                        peer = table.median(engine, dtype, work, phase)
                        if peer is not None:
                            lines.append(line(f"{phase}, {say(dtype, work)}, against {engine}", ours, peer, goal))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", choices=(LLAMA, HF), action="append", help="may be repeated; without: both")
    parser.add_argument("--only-load", action="store_true", help="measure loading, and nothing else")
    parser.add_argument("--anyway", action="store_true", help="measure beside other work")
    parser.add_argument("--smoke", action="store_true", help="tiny works and one round: does the script work")
    arguments = parser.parse_args()
    peers, threads = arguments.peer or [LLAMA, HF], arguments.threads
    works = list((SMOKE if arguments.smoke else WORKS).values())
    kind = models.KINDS["bench-172m"]
    folder = models.CACHE / kind.name
    models.make(kind, folder)
    rounds = 1 if arguments.smoke else arguments.rounds
    if arguments.only_load:
        try:
            if not arguments.anyway:
                wait_until_quiet()
        except Busy as error:
            sys.exit(f"engine_cpu: {error}")
        return tell(loads(folder, threads, rounds))
    config = ModelConfig.read(folder)
    try:
        llama = LlamaCpp.get(threads) if LLAMA in peers else None
        for dtype in DTYPES:
            if llama is not None:
                llama.gguf(folder, dtype)
        if not arguments.anyway:
            wait_until_quiet()
        bandwidth = read_bandwidth(threads)
        print(f"==> {threads} threads read {bandwidth / 1e9:.1f} GB/s; load {os.getloadavg()[0]:.2f}", flush=True)
        loaded = loads(folder, threads, rounds)
        table = Table()
        for number in range(rounds):
            print(f"==> round {number + 1}", flush=True)
            measure(table, folder, threads, works, peers, llama)
    except (Busy, PeerMissing) as error:
        sys.exit(f"engine_cpu: {error}")
    lines = lines_of(table, works, lambda dtype, work: f"{dtype}, {work.name}")
    for dtype in DTYPES:
        alone = works[0][0]
        decode = table.median(OURS, dtype, alone, "decode")
        assert decode is not None
        share = decode * bytes_of_token(config, dtype) / bandwidth
        metric = f"share of the bandwidth, {dtype}, {alone.name}"
        lines.append(line(metric, share, None, BANDWIDTH_GOAL, read_gb_s=round(bandwidth / 1e9, 1)))
    return tell(lines + loaded)


def tell(lines: list[dict[str, object]]) -> int:
    """Print the numbers; return the exit status."""
    for each in lines:
        print(json.dumps(each))
    return 0 if all(each["met"] is not False for each in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
