"""How fast is a decode step on a GPU, at GLM-4.5-Air's full width in bf16, against what the memory allows?

As many layers as fit, random weights; time of a step at batch 1, 8, 64, 256 and contexts of 1k and 8k: torch as it is
today, kernels in Triton, these as CUDA graphs, and transformers with its experts in grouped products and its own cache.
The roofline is what a step must read (weights that its tokens touch, and KV) by the bandwidth measured in the same run;
a prefill of 4,096 tokens is held against the matrix rate measured here.

NO GPU HAS RUN IT YET. For one that is lent for minutes it ends by itself after --minutes. Refuses to run where others
use the GPU or the CPUs; --anyway runs all the same. --smoke: a tiny model on the CPU, without Triton, which says that
the script works and nothing else. Ends with a JSON line a number. Goals are for graphs, and of prefill for Triton; one
of which nothing was measured is missed.

    python benchmarks/engine_gpu.py --minutes 8 --anyway
"""

import argparse
import gc
import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from engines.machine import Busy, wait_until_quiet

from glm_worker.model.config import ModelConfig
from glm_worker.model.decode_graphs import GraphRoom
from glm_worker.model.forward_batch import HostBatch
from glm_worker.model.glm_moe import GlmMoe, build
from glm_worker.model.kv_cache import KVCache
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh

BLOCK_SIZE = 16
BATCHES, CONTEXTS = (1, 8, 64, 256), (1024, 8192)
PREFILL = 4096
AIR = {
    "model_type": "glm4_moe",
    "architectures": ["Glm4MoeForCausalLM"],
    "vocab_size": 151552,
    "hidden_size": 4096,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "num_attention_heads": 96,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "partial_rotary_factor": 0.5,
    "n_routed_experts": 128,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "n_group": 1,
    "topk_group": 1,
    "attention_bias": True,
    "use_qk_norm": False,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000,
    "max_position_embeddings": 131072,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "eos_token_id": [151329],
}


TINY = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "moe_intermediate_size": 64,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
}
OURS, PEER = ("torch", "triton", "graphs"), "transformers"
DECODE_GOALS = {1: 0.5, 64: 0.7, 256: 0.7}  # of the roofline, by batch
PREFILL_GOAL = 0.5  # of the matrix rate
OF_MEMORY = 0.6  # that the weights take; the rest is for KV
FREE_SHARE = 0.95  # of a GPU that nobody else uses


@dataclass(frozen=True)
class Machine:
    """What this run has. bandwidth: bytes/s read; rate: operations/s of a product in bf16."""

    device: torch.device
    bandwidth: float
    rate: float
    ends_s: float

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.ends_s


@dataclass(frozen=True)
class Row:
    """One measurement; seconds are the median of ten steps."""

    path: str
    batch: int
    context: int
    seconds: float
    roofline: float  # share of the seconds that reading alone takes


def main() -> int:
    """Measure and print, JSON lines last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, help="without: as many as fit")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--anyway", action="store_true", help="measure beside other work")
    parser.add_argument("--smoke", action="store_true", help="a tiny model on the CPU: does the script work")
    arguments = parser.parse_args()
    if not (arguments.smoke or torch.cuda.is_available()):
        sys.exit("engine_gpu: no CUDA device here")
    if not (arguments.smoke or arguments.anyway):
        refuse_beside_others()
    device = torch.device("cpu" if arguments.smoke else "cuda")
    size = 2**20 if arguments.smoke else 2**31
    bandwidth = measured_bandwidth(device, size)
    rate = measured_rate(device, 256 if arguments.smoke else 8192)
    machine = Machine(device, bandwidth, rate, time.monotonic() + 60 * arguments.minutes)
    raw = {**AIR, **TINY} if arguments.smoke else AIR
    free_memory(device)
    two = ModelConfig.model_validate({**raw, "num_hidden_layers": 2})
    num_layers = arguments.layers or (2 if arguments.smoke else layers_that_fit(two))
    raw = {**raw, "num_hidden_layers": num_layers}
    name = "the CPU" if arguments.smoke else torch.cuda.get_device_name()
    print(f"{name}: {bandwidth / 1e12:.2f} TB/s, {rate / 1e12:.1f} TFLOP/s bf16; {num_layers} layers", flush=True)
    contexts, prefill = ((64,), 64) if arguments.smoke else (CONTEXTS, PREFILL)
    rows, shares = measure(raw, ("torch",) if arguments.smoke else OURS, contexts, prefill, machine)
    lines = lines_of(rows, shares, num_layers)
    if not arguments.smoke:
        lines += missing_lines(lines)
    for line in lines:
        print(json.dumps(line))
    return 0 if all(line["met"] is not False for line in lines) else 1


def refuse_beside_others() -> None:
    """Exit where other work runs on the CPUs or holds the GPU's memory."""
    try:
        wait_until_quiet()
    except Busy as busy:
        sys.exit(f"engine_gpu: {busy}")
    free, total = torch.cuda.mem_get_info()
    if free < FREE_SHARE * total:
        sys.exit(f"engine_gpu: others hold {(total - free) >> 30} GiB of this GPU; --anyway measures all the same")


def layers_that_fit(config: ModelConfig) -> int:
    """Return how many layers the GPU holds beside embedding, head and KV. config: of any number of them."""
    size, kv = config.hidden_size, 2 * config.num_key_value_heads
    attention = size * config.head_dim * (2 * config.num_attention_heads + kv)
    experts = 3 * size * config.moe_intermediate_size * (config.n_routed_experts + config.n_shared_experts)
    room = OF_MEMORY * torch.cuda.mem_get_info()[0] - 4 * size * config.vocab_size
    return max(2, int(room / (2 * (attention + experts))))


def build_steps(raw: dict[str, Any], path: str, machine: Machine) -> "Ours | Peer":
    """Return a model in memory that what was before it has left."""
    free_memory(machine.device)
    return Peer(raw, machine) if path == PEER else Ours(ModelConfig.model_validate(raw), path, machine.device)


def free_memory(device: torch.device) -> None:
    """Give back what nobody holds. A model with graphs is held by a ring of references, which the collector ends."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def measure(
    raw: dict[str, Any], paths: tuple[str, ...], contexts: tuple[int, ...], prefill: int, machine: Machine
) -> tuple[list[Row], dict[str, float]]:
    """Return the decode steps of each path, and the shares of the matrix rate that their prefills reach.

    What fails is told, and costs its own path alone: kernels that no GPU has run may not run.
    """
    rows: list[Row] = []
    shares: dict[str, float] = {}
    for path in (*paths, PEER):
        if machine.is_over:
            print(f"time is over; {path} was not measured", flush=True)
            continue
        try:
            measure_path(raw, path, contexts, prefill, machine, rows, shares)
        except Exception as error:  # noqa: BLE001 - whatever kernels raise that never ran
            print(f"{path} failed: {type(error).__name__}: {error}", flush=True)
    return rows, shares


def measure_path(
    raw: dict[str, Any],
    path: str,
    contexts: tuple[int, ...],
    prefill: int,
    machine: Machine,
    rows: list[Row],
    shares: dict[str, float],
) -> None:
    """Add what is measured of a path."""
    config, steps = ModelConfig.model_validate(raw), build_steps(raw, path, machine)
    for context, batch in itertools.product(contexts, BATCHES):
        if machine.is_over:
            print(f"time is over; {path} at {batch} sequences of {context} was not measured", flush=True)
            return
        free_memory(machine.device)
        if not fits(config, batch, context, machine.device, steps.copies):
            print(f"{path}: the KV of {batch} sequences of {context} does not fit", flush=True)
            continue
        seconds = steps.decode_seconds(batch, context)
        read = bytes_read(config, batch) + kv_bytes(config, batch, context)
        rows.append(Row(path, batch, context, seconds, read / machine.bandwidth / seconds))
        print(rows[-1], flush=True)
    if path != "graphs":
        seconds = steps.prefill_seconds(prefill)
        shares[path] = 2 * prefill * weights_of_a_token(config) / seconds / machine.rate
        print(f"{path}: {prefill} tokens prefilled in {1e3 * seconds:.1f} ms", flush=True)


def lines_of(rows: list[Row], shares: dict[str, float], num_layers: int) -> list[dict[str, Any]]:
    """Return a line for each of our measurements, beside the peer's at the same work."""
    of_peer = {(row.batch, row.context): row for row in rows if row.path == PEER}
    lines = []
    for row in rows:
        if row.path == PEER:
            continue
        peer = of_peer.get((row.batch, row.context))
        goal = DECODE_GOALS.get(row.batch) if row.path == "graphs" else None
        lines.append({
            "bench": "engine_gpu",
            "metric": f"decode, share of the roofline, {row.path}, batch {row.batch}, context {row.context}",
            "ours": round(row.roofline, 4),
            "peer": peer and round(peer.roofline, 4),
            "ratio": peer and round(peer.seconds / row.seconds, 3),
            "goal": goal,
            "met": None if goal is None else row.roofline >= goal,
            "step_ms": round(1e3 * row.seconds, 4),
            "layer_ms": round(1e3 * row.seconds / num_layers, 4),  # embedding and head in it, so a little too high
        })  # fmt: skip
    for path, share in shares.items():
        if path == PEER:
            continue
        beside = shares.get(PEER)
        goal = PREFILL_GOAL if path == "triton" else None
        lines.append({
            "bench": "engine_gpu",
            "metric": f"prefill, share of the matrix rate, {path}",
            "ours": round(share, 4),
            "peer": beside and round(beside, 4),
            "ratio": beside and round(share / beside, 3),
            "goal": goal,
            "met": None if goal is None else share >= goal,
        })  # fmt: skip
    return lines


def missing_lines(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a line for each goal of which nothing was measured: it is not met."""
    wanted = {
        f"decode, share of the roofline, graphs, batch {batch}, context {context}": goal
        for (batch, goal), context in itertools.product(DECODE_GOALS.items(), CONTEXTS)
    }
    wanted["prefill, share of the matrix rate, triton"] = PREFILL_GOAL
    return [
        {"bench": "engine_gpu", "metric": metric, "ours": None, "peer": None, "ratio": None, "goal": goal, "met": False}
        for metric, goal in wanted.items()
        if not any(line["metric"].startswith(metric) for line in lines)
    ]


class Ours:
    """Steps of this project's model."""

    copies = 1  # of the KV

    def __init__(self, config: ModelConfig, path: str, device: torch.device) -> None:
        self._config, self._path, self._device = config, path, device
        self._model = random_model(config, device)
        if path != "torch":
            self._model.use_triton()

    def decode_seconds(self, batch: int, context: int) -> float:
        """Return the time of a step in which so many sequences get their next token."""
        blocks = context // BLOCK_SIZE
        cache = KVCache.allocate(self._config, Mesh(), batch * blocks, BLOCK_SIZE, torch.bfloat16, self._device)
        if self._path == "graphs":
            self._model.capture_graphs(cache, GraphRoom(batch, blocks, BLOCK_SIZE), lambda *_: None)
        numbers = list(range(batch))
        tables = [list(range(n * blocks, (n + 1) * blocks)) for n in numbers]
        step = HostBatch.of(
            [n + 5 for n in numbers],
            [context - 1] * batch,
            [table[-1] * BLOCK_SIZE + BLOCK_SIZE - 1 for table in tables],
            [*numbers, batch],
            [context] * batch,
            tables,
            numbers,
        )
        return self._seconds(step, cache)

    def prefill_seconds(self, num_tokens: int) -> float:
        """Return the time of a step with one whole prompt."""
        blocks = num_tokens // BLOCK_SIZE
        cache = KVCache.allocate(self._config, Mesh(), blocks, BLOCK_SIZE, torch.bfloat16, self._device)
        tokens = list(range(num_tokens))
        ids = [n % self._config.vocab_size for n in tokens]
        table = list(range(blocks))
        step = HostBatch.of(ids, tokens, tokens, [0, num_tokens], [num_tokens], [table], [num_tokens - 1])
        return self._seconds(step, cache)

    def _seconds(self, step: HostBatch, cache: KVCache) -> float:
        batch = step.on_device(BLOCK_SIZE, self._device)
        model = self._model
        return median_seconds(lambda: model(batch, model.plan(batch), cache), self._device)


class Peer:
    """Steps of transformers' model, with its own cache, which each step makes anew with one token more."""

    copies = 3

    def __init__(self, raw: dict[str, Any], machine: Machine) -> None:
        from transformers import AutoModelForCausalLM, Glm4MoeConfig

        self._device, self._config = machine.device, Glm4MoeConfig(**raw)
        make: Any = AutoModelForCausalLM.from_config
        with torch.device(machine.device):
            self._model: Any = make(self._config, dtype=torch.bfloat16).eval()
        self._model.set_experts_implementation("grouped_mm")

    @torch.inference_mode()
    def decode_seconds(self, batch: int, context: int) -> float:
        """Return the time of a step in which so many sequences get their next token."""
        from transformers import DynamicCache

        config, device = self._config, self._device
        cache: Any = DynamicCache(config=config)
        shape = batch, config.num_key_value_heads, context - 1, config.head_dim
        for layer_id in range(config.num_hidden_layers):
            k, v = (torch.zeros(shape, dtype=torch.bfloat16, device=device) for _ in range(2))
            cache.update(k, v, layer_id)
        ids = torch.arange(5, 5 + batch, device=device)[:, None] % config.vocab_size

        def step() -> None:
            self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)

        return median_seconds(step, device)

    @torch.inference_mode()
    def prefill_seconds(self, num_tokens: int) -> float:
        """Return the time of a step with one whole prompt."""
        ids = torch.arange(num_tokens, device=self._device)[None] % self._config.vocab_size
        return median_seconds(lambda: self._model(input_ids=ids, use_cache=True, logits_to_keep=1), self._device)


def fits(config: ModelConfig, batch: int, context: int, device: torch.device, copies: int) -> bool:
    """Return whether so many copies of the KV fit."""
    return device.type == "cpu" or copies * kv_bytes(config, batch, context) <= 0.8 * torch.cuda.mem_get_info()[0]


def kv_bytes(config: ModelConfig, batch: int, context: int) -> int:
    """Return the bytes of KV of so many sequences of a context."""
    blocks = batch * context // BLOCK_SIZE
    return blocks * KVCache.bytes_per_block(config, Mesh(), BLOCK_SIZE, torch.bfloat16)


def random_model(config: ModelConfig, device: torch.device) -> GlmMoe:
    """Return a model whose weights are small noise; routing spreads evenly."""
    model = build(config, Mesh(), Communicator.single(), device, torch.bfloat16)
    generator = torch.Generator(device).manual_seed(0)
    for parameter in model.parameters():
        parameter.normal_(0, 0.02, generator=generator)
    return model


def bytes_read(config: ModelConfig, batch: int) -> float:
    """Return the bytes of weights that a decode step of so many tokens reads, with choices that fall evenly."""
    experts = config.n_routed_experts
    touched = experts * (1 - (1 - config.num_experts_per_tok / experts) ** batch)
    sparse = config.num_hidden_layers - config.first_k_dense_replace
    routed = 3 * config.moe_intermediate_size * config.hidden_size * sparse
    return 2 * (weights_of_a_token(config) + routed * (touched - config.num_experts_per_tok))


def weights_of_a_token(config: ModelConfig) -> float:
    """Return how many weights the products of one token have, the head's included."""
    size, heads = config.hidden_size, config.num_attention_heads + 2 * config.num_key_value_heads
    attention = size * config.head_dim * (heads + config.num_attention_heads)
    experts = config.num_experts_per_tok + config.n_shared_experts
    sparse, dense = 3 * size * config.moe_intermediate_size * experts, 3 * size * config.intermediate_size
    num_dense = config.first_k_dense_replace
    layers = config.num_hidden_layers * attention + num_dense * dense
    return layers + (config.num_hidden_layers - num_dense) * sparse + size * config.vocab_size


def measured_bandwidth(device: torch.device, size: int) -> float:
    """Return bytes a second that the device reads: the sum of so many numbers."""
    x = torch.ones(size, dtype=torch.float32, device=device)
    return x.numel() * 4 / median_seconds(x.sum, device)


def measured_rate(device: torch.device, size: int) -> float:
    """Return operations a second of a square product in bf16."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / median_seconds(lambda: a @ b, device)


def median_seconds(compute: Callable[[], object], device: torch.device, times: int = 10) -> float:
    """Return the median time of a call until the device has done it, after two that do not count."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    found = []
    for _ in range(2 + times):
        wait()
        began = time.perf_counter()
        compute()
        wait()
        found.append(time.perf_counter() - began)
    return sorted(found[2:])[times // 2]


if __name__ == "__main__":
    sys.exit(main())
