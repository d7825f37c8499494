"""What a step costs beside the model: scheduling, building the batch, sampling and messages, at 256 running requests.

Rank 0's real loop over real scheduler, batch arrays, sampler and msgpack. Only the model is stood in for, by logits
made before, as wide as those of the 172 M model (32,000), and the sockets, by encoders whose bytes go nowhere. A case
for each way to sample. Each part is measured by itself, as CPU time of the process, and the median of the steps
counts. In the same run the 172 M model (benchmarks/models.py --kind bench-172m) decodes 256 sequences at once; what a
step costs is told as a share of the two together.

It refuses to run on a busy machine. Ends with a JSON line a number. There is no peer.
"""

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from glm_worker.engine.batch import BatchBuilder, StepRoom
from glm_worker.engine.channel import Report
from glm_worker.engine.engine import Engine
from glm_worker.engine.intake import Intake
from glm_worker.engine.lead import LeadRank
from glm_worker.engine.runner import Runner
from glm_worker.engine.sampling.sampler import Sampler
from glm_worker.kernels.cpu.sample import sample_kernel
from glm_worker.messages import StepDone, Submit
from glm_worker.model.config import ModelConfig
from glm_worker.model.kv_cache import KVCache
from glm_worker.model.weights import load_model
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh
from glm_worker.request import EngineRequest, SamplingParams
from glm_worker.scheduler.limits import SchedulerLimits
from glm_worker.scheduler.plan import ScheduledBatch, ScheduledSequence
from glm_worker.scheduler.scheduler import Scheduler

GENERATION, VOCAB_SIZE, BLOCK_SIZE, PROMPT = "bench-1", 32_000, 16, 128
GOAL = 0.05
MOST_LOAD = 0.5
CPU = torch.device("cpu")
KINDS = {
    "greedy": SamplingParams(temperature=0),
    "temperature": SamplingParams(temperature=0.8),
    "temperature and top_p": SamplingParams(temperature=0.8, top_p=0.95),
    "temperature and top_k": SamplingParams(temperature=0.8, top_k=40),
    "frequency penalty": SamplingParams(temperature=0.8, frequency_penalty=0.3),
}


class Meter:
    """CPU seconds by part and step. Parts that run inside of another are taken off it."""

    def __init__(self) -> None:
        self.steps: dict[str, list[float]] = defaultdict(list)
        self._now: dict[str, float] = defaultdict(float)
        self._inner_s = 0.0

    def timed(self, owner: Any, method: str, part: str) -> None:
        """Measure each call of a method of an object."""
        call = getattr(owner, method)

        def measured(*args: Any, **kwargs: Any) -> Any:
            outer_s, self._inner_s, began = self._inner_s, 0.0, time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                took_s = time.process_time() - began
                self._now[part] += took_s - self._inner_s
                self._inner_s = outer_s + took_s

        setattr(owner, method, measured)

    def end_step(self) -> None:
        for part, took_s in self._now.items():
            self.steps[part].append(took_s)
        self._now.clear()


class LogitsRunner:
    """A runner without a model."""

    def __init__(self, num_sequences: int) -> None:
        self._batches = BatchBuilder(BLOCK_SIZE, CPU, StepRoom(4096, num_sequences, 64))
        logits_SV = 2 * torch.randn(num_sequences, VOCAB_SIZE)
        logits_SV[:, torch.randperm(VOCAB_SIZE)[:50]] += 12.0  # as models have it: a few tokens far above the others
        self._logits_SV = logits_SV
        self._num_rows = 0

    def launch(self, plan: ScheduledBatch) -> None:
        self._num_rows = len(self._batches.build(plan.sequences).host.logit_rows_S)

    def wait(self) -> torch.Tensor:
        return self._logits_SV[: self._num_rows]

    def expert_tokens_by_rank(self) -> list[int]:
        return []


class Ends:
    """Server, follower channel and slot of a rank: what comes is given, what goes out is encoded and dropped."""

    def __init__(self) -> None:
        self.commands: list[Submit] = []
        self.last: StepDone | None = None
        self._encoder = msgspec.msgpack.Encoder()

    def receive(self, _timeout_s: float) -> list[Submit]:
        commands, self.commands = self.commands, []
        return commands

    def send(self, message: Any) -> None:
        self._encoder.encode(message)
        self.last = message if isinstance(message, StepDone) else self.last

    def begin(self, plan: ScheduledBatch) -> None:
        pass

    def idle(self) -> None:
        pass

    def reports(self) -> list[tuple[int, Report]]:
        return []


def of_kind(sampling: SamplingParams, num_running: int, num_steps: int) -> dict[str, float]:
    """Return the median CPU seconds of each part of a step in which all requests decode, and of all of it."""
    blocks_each = (PROMPT + num_steps + num_running) // BLOCK_SIZE + 2
    limits = SchedulerLimits(
        max_model_len=blocks_each * BLOCK_SIZE,
        max_batch_tokens=4096,
        max_num_seqs=num_running,
        num_blocks=(num_running + 2) * blocks_each,
        block_size=BLOCK_SIZE,
    )
    runner, ends, meter = LogitsRunner(num_running), Ends(), Meter()
    sampler = Sampler(sample_kernel(1))
    channel = Ends()
    scheduler = Scheduler(limits)
    engine = Engine(scheduler, runner)  # type: ignore[arg-type]
    lead = LeadRank(engine, sampler, Intake(None, sampler, VOCAB_SIZE), ends, channel, ends, GENERATION)  # type: ignore[arg-type]
    meter.timed(engine, "plan", "plan")
    meter.timed(runner, "launch", "batch")
    meter.timed(sampler, "sample", "sampling")
    meter.timed(engine, "commit", "commit")
    meter.timed(channel, "send", "to followers")
    meter.timed(ends, "send", "to the server")
    meter.timed(lead, "turn", "the rest")
    ends.commands = [
        Submit(
            GENERATION,
            EngineRequest(
                request_id=f"request-{number:06d}",
                prompt_token_ids=[random.randrange(VOCAB_SIZE) for _ in range(PROMPT)],
                max_tokens=limits.max_model_len - PROMPT,
                stop_token_ids=[VOCAB_SIZE + 1],
                sampling=msgspec.structs.replace(sampling, seed=number),
            ),
        )
        for number in range(num_running)
    ]
    while scheduler.num_running < num_running or scheduler.num_prompt_tokens_left:
        lead.turn()
    lead.turn()
    meter.end_step()
    meter.steps.clear()
    for _ in range(num_steps):
        lead.turn()
        meter.end_step()
        assert ends.last is not None
        assert ends.last.decode_tokens == num_running
    parts = {part: statistics.median(steps) for part, steps in meter.steps.items()}
    return {**parts, "all": statistics.median(map(sum, zip(*meter.steps.values(), strict=True)))}


def of_model(folder: Path, num_running: int, num_threads: int, num_steps: int) -> float:
    """Return the seconds of a decode step of the model: of CPU time, by threads, so that others do not count."""
    torch.set_num_threads(num_threads)
    config, mesh = ModelConfig.read(folder), Mesh()
    model = load_model(folder, config, mesh, Communicator.single(), CPU, torch.float32)
    use_kernels: Callable[[int], None] | None = getattr(model, "use_kernels", None)
    if use_kernels is not None:
        use_kernels(num_threads)
    blocks_each = PROMPT // BLOCK_SIZE + 1
    kv_cache = KVCache.allocate(config, mesh, num_running * blocks_each, BLOCK_SIZE, torch.float32, CPU)
    runner = Runner(model, kv_cache, Communicator.single(), CPU)
    sequences = tuple(
        ScheduledSequence(
            f"r{n}", PROMPT, [n + 5], list(range(n * blocks_each, (n + 1) * blocks_each)), True, KINDS["greedy"], True
        )
        for n in range(num_running)
    )
    times = []
    for _ in range(num_steps + 1):
        began = time.process_time()
        runner.run(ScheduledBatch(1, sequences, (), ()))
        times.append((time.process_time() - began) / num_threads)
    return statistics.median(times[1:])


def line(metric: str, ours: float, goal: float | None = None, digits: int = 3) -> dict[str, object]:
    return {
        "bench": "scheduler",
        "metric": metric,
        "ours": round(ours, digits),
        "peer": None,
        "ratio": None,
        "goal": goal,
        "met": None if goal is None else ours <= goal,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of the 172 M model; without: no shares, only times")
    parser.add_argument("--running", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2, help="of the model's step")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--model-steps", type=int, default=5)
    parser.add_argument("--kind", choices=KINDS, action="append", help="may be repeated; without: all")
    parser.add_argument("--busy", action="store_true", help="run beside other load; times then say little")
    arguments = parser.parse_args()
    if not arguments.busy and os.getloadavg()[0] > MOST_LOAD:
        print(f"the load is {os.getloadavg()[0]:.1f}; wait until it is below {MOST_LOAD}, or give --busy")
        return 2
    random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    kinds = {name: of_kind(KINDS[name], arguments.running, arguments.steps) for name in arguments.kind or KINDS}
    lines = []
    step_s = None
    if arguments.model is not None:
        step_s = of_model(arguments.model, arguments.running, arguments.threads, arguments.model_steps)
        lines.append(
            line(f"ms a step of the model, {arguments.running} decode, {arguments.threads} threads", step_s * 1e3)
        )
    for name, parts in kinds.items():
        print(f"{name}: " + ", ".join(f"{part} {took_s * 1e3:.2f}" for part, took_s in parts.items()) + " ms")
        lines.append(line(f"ms a step beside the model, {arguments.running} running, {name}", parts["all"] * 1e3))
        if step_s is not None:
            share = parts["all"] / (parts["all"] + step_s)
            lines.append(line(f"share of a step, {arguments.running} running, {name}", share, GOAL, digits=4))
    for each in lines:
        print(json.dumps(each))
    return 0 if all(each["met"] is not False for each in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
