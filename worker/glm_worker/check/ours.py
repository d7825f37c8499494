"""Our side of the comparison: the scheduler, the runner and the kernels that serve, heard at every layer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from glm_worker.check.states import States, Text
from glm_worker.engine.engine import Engine
from glm_worker.engine.runner import Runner
from glm_worker.errors import ConfigError
from glm_worker.messages import Submit
from glm_worker.model.config import ModelConfig
from glm_worker.model.glm_moe import build
from glm_worker.model.kv_cache import KVCache
from glm_worker.model.tensor_map import is_mtp, tensor_names, tensor_reads
from glm_worker.model.weights import Checkpoint, fill
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh
from glm_worker.request import EngineRequest, SamplingParams
from glm_worker.scheduler.limits import SchedulerLimits
from glm_worker.scheduler.plan import ScheduledBatch
from glm_worker.scheduler.scheduler import Scheduler

BLOCK_SIZE = 16
STEP_TOKENS = 256  # so that longer prompts are computed in chunks, as when they are served
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Computed:
    """What was generated for the prompts, the states on the way, and what computed them: torch, or kernels by name."""

    texts: list[Text]
    states: States
    kernels: str


def check_names(folder: Path, config: ModelConfig) -> None:
    """Raise ConfigError for a tensor that the whole checkpoint lacks, or has and should not. Reads no weights."""
    names, expected = Checkpoint(folder).names, tensor_names(config)
    missing = sorted(expected - names)
    unknown = sorted(name for name in names - expected if not is_mtp(name, config))
    for found, what in ((missing, "missing; config.json asks for it"), (unknown, "unknown to config.json")):
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise ConfigError(f"{folder}: tensor {found[0]}{more} is {what}")


def computed_here(
    folder: Path,
    config: ModelConfig,
    prompts: list[list[int]],
    *,
    num_generated: int,
    dtype: torch.dtype,
    kv_dtype: torch.dtype,
    device: torch.device,
    fixed_order: bool,
    num_threads: int,
    by_triton: bool,
    progress: Progress,
) -> Computed:
    """Return what is generated for the prompts, all at once, and every hidden state on the way. config: as cut."""
    mesh, comm = Mesh(), Communicator.single()
    model = build(config, mesh, comm, device, dtype, fixed_order=fixed_order)
    fill(model, Checkpoint(folder), tensor_reads(config, mesh), progress)
    model.use_kernels(num_threads)
    if by_triton:
        model.use_triton()
    limits = _limits(prompts, num_generated)
    kv_cache = KVCache.allocate(config, mesh, limits.num_blocks, BLOCK_SIZE, kv_dtype, device)
    engine = Engine(Scheduler(limits), Runner(model, kv_cache, comm, device))
    spans = _spans([len(prompt) + num_generated - 1 for prompt in prompts])
    listener = _Listener(num_rows=spans[-1].stop)
    model.hear = listener.keep
    logits: list[list[Tensor]] = [[] for _ in prompts]
    generated: list[list[int]] = [[] for _ in prompts]
    engine.obey([Submit("check", _request(i, prompt, num_generated)) for i, prompt in enumerate(prompts)])
    while engine.scheduler.has_work:
        plan = engine.plan()
        listener.rows = _rows(plan, spans)
        engine.launch(plan)
        logits_SV = engine.wait().float().cpu()
        ids = logits_SV.argmax(dim=-1).tolist()
        for sequence, row, token_id in zip(plan.sampled, logits_SV, ids, strict=True):
            logits[int(sequence.request_id)].append(row)
            generated[int(sequence.request_id)].append(token_id)
        engine.commit([[token_id] for token_id in ids])
    texts = [Text(prompt, after) for prompt, after in zip(prompts, generated, strict=True)]
    states = States(listener.hidden_TD, torch.stack([row for rows in logits for row in rows]))
    return Computed(texts, states, model.kernels)


class _Listener:
    """Keeps what enters the first layer and what each layer returns, in rows that are set before each step."""

    def __init__(self, num_rows: int) -> None:
        self.rows: list[int] = []
        self.hidden_TD: list[Tensor] = []
        self._num_rows = num_rows

    def keep(self, number: int, x_TD: Tensor) -> None:
        if number == len(self.hidden_TD):
            self.hidden_TD.append(torch.empty(self._num_rows, x_TD.shape[-1], dtype=x_TD.dtype))
        # A step may have rows beyond its tokens, that fill it up
        self.hidden_TD[number][self.rows] = x_TD[: len(self.rows)].cpu()


def _limits(prompts: list[list[int]], num_generated: int) -> SchedulerLimits:
    longest = max(len(prompt) for prompt in prompts) + num_generated
    return SchedulerLimits(
        max_model_len=longest,
        max_batch_tokens=STEP_TOKENS,
        max_num_seqs=len(prompts),
        num_blocks=len(prompts) * -(-longest // BLOCK_SIZE),
        block_size=BLOCK_SIZE,
    )


def _request(number: int, prompt: list[int], num_generated: int) -> EngineRequest:
    return EngineRequest(
        request_id=str(number),
        prompt_token_ids=prompt,
        max_tokens=num_generated,
        stop_token_ids=[],
        sampling=SamplingParams(temperature=0),
    )


def _spans(lengths: list[int]) -> list[range]:
    spans, start = [], 0
    for length in lengths:
        spans.append(range(start, start + length))
        start += length
    return spans


def _rows(plan: ScheduledBatch, spans: list[range]) -> list[int]:
    """Return the row of each token of a step."""
    return [
        row for sequence in plan.sequences for row in spans[int(sequence.request_id)][sequence.start : sequence.end]
    ]
