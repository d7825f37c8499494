"""The least time of one request that has a group of its own: what no number of groups can beat. Pure.

A lower bound and no estimate: it may be too low, never too high, or a promise that can be kept would be given up.
So it counts only what cannot be left out, at the speed of a datasheet and more:

- A token is computed from all its active weights, and each rank reads its own part of them from memory once a step:
  what the worker places there (glm_worker.model.tensor_map; tests/contract/test_floor.py compares). Of the routed
  experts it counts the mean over the ranks: perfect balance. What may still lie in caches, registers and shared memory
  from the step before is not counted.
- Weights are read at the full bandwidth of the memory and multiplied at the full speed of the matrix units, both at
  once: the longer of the two counts (the roofline model; Williams, Waterman, Patterson, CACM 52(4), 2009).
- A step makes one token of a request: the worker does not speculate. The first token comes out of the step that
  computes the prompt, so no second step is added. The shortest prompt has one token, the shortest answer one.
- Not counted: launches, collectives between ranks, the KV cache, activations, scales of quantised weights, a queue,
  the server, the network, all but the last tokens of an answer, thinking before it.
"""

from dataclasses import dataclass
from typing import Literal

from glm_operator.layout.products import Product
from glm_operator.shapes import Shape

Precision = Literal["bf16", "fp8", "int4"]
"""Of the weights. Fewer bits than all of them have: head, router and scales of a quantised checkpoint have more."""

BYTES: dict[Precision, float] = {"bf16": 2.0, "fp8": 1.0, "int4": 0.5}

MEMORY_HEADROOM = 1.03
"""Datasheets round bandwidth down, and pins times clock give up to 2.5 % more (an H200 4.92 TB/s, a B200 8.18)."""

COMPUTE_HEADROOM = 1.25
"""Datasheets give peaks at a clock below the highest one, at which an H100 does 8 % more and an H100 NVL 16 %."""


@dataclass(frozen=True)
class Floor:
    """The least times of one request alone, in seconds."""

    step_s: float  # from one token of its answer to the next
    first_token_s: float  # from its arrival to its first token
    hardware: str  # what it is of, for people

    @property
    def seconds(self) -> dict[str, float]:
        """By signal. The shortest answer is over with its first token, and begins with it: ttfa and e2e are ttft."""
        first_s = self.first_token_s
        return {"ttft": first_s, "ttfa": first_s, "itl": self.step_s, "e2e": first_s}


def least_time(
    shape: Shape, product: Product, *, tensor: int, expert: int, precision: Precision = "bf16", prompt_tokens: int = 1
) -> Floor:
    """Return the floor of a group of expert ranks, one on each GPU, attention split over tensor of them.

    prompt_tokens: at least 1, of those that no cache holds; the default is the shortest prompt there is. Weights of
    4 bits are multiplied in 8 at least, or in bf16.
    """
    layers = shape.active_parameters_per_rank(tensor=tensor, expert=expert)
    head = shape.head_parameters_per_rank(tensor=tensor)
    num_bytes = max(0.0, (layers + head) * BYTES[precision] - product.on_chip_bytes)
    read_s = num_bytes / (product.memory_bytes_per_s * MEMORY_HEADROOM)
    flops_per_s = (product.flops_bf16 if precision == "bf16" else product.flops_8bit) * COMPUTE_HEADROOM

    def step_s(num_tokens: int) -> float:
        # A token attends to those before it: two products of head_dim for each pair, half of the square of pairs
        attention = 2 * shape.num_layers * shape.num_heads / tensor * shape.head_dim * num_tokens**2
        return max(read_s, (2 * (layers * num_tokens + head) + attention) / flops_per_s)

    return Floor(step_s(1), step_s(prompt_tokens), f"{expert} x {product.name} in {precision}")
