"""How fast is a decode step on a GPU, at GLM-4.5-Air's full width in bf16, against what the memory allows?

As many layers as asked for, random weights; time of a layer at batch 1, 8, 64, 256 and contexts of 1k and 8k: torch as
it is today, kernels in Triton, and these as CUDA graphs. The roofline is what a step must read (weights that its tokens
touch, and KV) by the bandwidth measured in the same run; a prefill is held against the matrix rate measured here.
NOBODY HAS RUN IT YET: it needs a GPU. For a GPU that is lent for minutes it ends by itself after --minutes.

    python benchmarks/engine_gpu.py --layers 8 --minutes 8
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from glm_worker.model.config import ModelConfig
from glm_worker.model.decode_graphs import GraphRoom
from glm_worker.model.forward_batch import ForwardBatch, HostBatch
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


@dataclass(frozen=True)
class Row:
    """One measurement; times are medians of ten steps."""

    path: str  # torch, triton, graphs
    batch: int
    context: int
    step_ms: float
    layer_ms: float  # of a MoE layer: the step less embedding and head is not told apart, so a little too high
    roofline: float  # share of the time that reading alone takes


def main() -> None:
    """Measure and print, JSON lines last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=8.0)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("engine_gpu: no CUDA device here")
    ends = time.monotonic() + 60 * arguments.minutes
    device = torch.device("cuda")
    bandwidth, rate = measured_bandwidth(device), measured_rate(device)
    sys.stdout.write(f"{torch.cuda.get_device_name()}: {bandwidth / 1e12:.2f} TB/s, {rate / 1e12:.0f} TFLOP/s bf16\n")
    config = ModelConfig.model_validate({**AIR, "num_hidden_layers": arguments.layers})
    rows: list[Row] = []
    for path in ("torch", "triton", "graphs"):
        model = random_model(config, device)
        if path != "torch":
            model.use_triton()
        for context in CONTEXTS:
            for batch in BATCHES:
                if time.monotonic() > ends:
                    sys.stdout.write("time is over; what is missing was not measured\n")
                    break
                row = decode_row(model, path, batch, context, bandwidth, device)
                if row is not None:
                    rows.append(row)
                    sys.stdout.write(f"{row}\n")
        if path != "graphs" and time.monotonic() < ends:
            prefill(model, path, rate, device)
        del model
        torch.cuda.empty_cache()
    for row in rows:
        sys.stdout.write(json.dumps(asdict(row)) + "\n")


def random_model(config: ModelConfig, device: torch.device) -> GlmMoe:
    """Return a model whose weights are small noise; routing spreads evenly."""
    model = build(config, Mesh(), Communicator.single(), device, torch.bfloat16)
    generator = torch.Generator(device).manual_seed(0)
    for parameter in model.parameters():
        parameter.normal_(0, 0.02, generator=generator)
    return model


def decode_row(
    model: GlmMoe, path: str, batch: int, context: int, bandwidth: float, device: torch.device
) -> Row | None:
    """Return the time of a step of so many sequences at this context; None where its cache does not fit."""
    config, blocks = model.config, context // BLOCK_SIZE
    needed = batch * blocks * KVCache.bytes_per_block(config, Mesh(), BLOCK_SIZE, torch.bfloat16)
    if needed > 0.8 * torch.cuda.mem_get_info()[0]:
        sys.stdout.write(f"{path}, {batch} sequences of {context}: {needed >> 30} GiB of KV do not fit\n")
        return None
    cache = KVCache.allocate(config, Mesh(), batch * blocks, BLOCK_SIZE, torch.bfloat16, device)
    if path == "graphs":
        model.capture_graphs(cache, GraphRoom(batch, blocks, BLOCK_SIZE), lambda *_: None)
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
    ).on_device(BLOCK_SIZE, device)
    seconds = median_seconds(lambda: run(model, step, cache))
    return Row(
        path,
        batch,
        context,
        1e3 * seconds,
        1e3 * seconds / config.num_hidden_layers,
        (bytes_read(config, batch) + needed) / bandwidth / seconds,
    )


def prefill(model: GlmMoe, path: str, rate: float, device: torch.device) -> None:
    """Print the share of the matrix rate that a whole prompt reaches, products of weights alone counted."""
    config = model.config
    cache = KVCache.allocate(config, Mesh(), PREFILL // BLOCK_SIZE, BLOCK_SIZE, torch.bfloat16, device)
    tokens = list(range(PREFILL))
    table = list(range(PREFILL // BLOCK_SIZE))
    step = HostBatch.of(tokens, tokens, tokens, [0, PREFILL], [PREFILL], [table], [PREFILL - 1])
    batch = step.on_device(BLOCK_SIZE, device)
    seconds = median_seconds(lambda: run(model, batch, cache))
    share = 2 * PREFILL * weights_of_a_token(config) / seconds / rate
    sys.stdout.write(f"{path}: {PREFILL} tokens prefilled in {1e3 * seconds:.1f} ms, {100 * share:.0f} % of the rate\n")


def run(model: GlmMoe, batch: ForwardBatch, cache: KVCache) -> None:
    """Compute a step and wait for it."""
    model(batch, model.plan(batch), cache)
    torch.cuda.synchronize()


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


def measured_bandwidth(device: torch.device) -> float:
    """Return bytes a second that the GPU reads: the sum of 8 GiB."""
    x = torch.ones(2**31, dtype=torch.float32, device=device)
    seconds = median_seconds(lambda: waited(x.sum()))
    return x.numel() * 4 / seconds


def measured_rate(device: torch.device) -> float:
    """Return operations a second of a large product in bf16."""
    a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = median_seconds(lambda: waited(a @ b))
    return 2 * 8192**3 / seconds


def waited(x: torch.Tensor) -> torch.Tensor:
    """Return x when the device has computed it."""
    torch.cuda.synchronize()
    return x


def median_seconds(compute: Callable[[], object], times: int = 10) -> float:
    """Return the median time of a call that waits for the device, after two that do not count."""
    for _ in range(2):
        compute()
    found = []
    for _ in range(times):
        began = time.perf_counter()
        compute()
        found.append(time.perf_counter() - began)
    return sorted(found)[times // 2]


if __name__ == "__main__":
    main()
