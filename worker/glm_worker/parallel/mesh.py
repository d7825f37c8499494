"""Which part of a model a rank holds: arithmetic from degrees to groups, heads, experts and rows. Pure, no torch.

Ranks 0 .. world_size-1. Attention and lm_head are split over tensor-parallel (tp) groups of contiguous ranks; when
there are several such groups each computes the same attention. Whole experts are split over all ranks (ep), in
contiguous ranges.
"""

from dataclasses import dataclass
from enum import StrEnum

from glm_worker.errors import ConfigError


class Axis(StrEnum):
    """A direction of the mesh, and so a group of ranks that exchange something."""

    TP = "tp"  # the ranks that share one copy of the attention
    EP = "ep"  # the ranks that share one set of experts: all of them


@dataclass(frozen=True)
class Mesh:
    """The place of one rank. Raises ConfigError for degrees that do not fit together."""

    world_size: int = 1
    tensor_parallel: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        if self.world_size < 1:
            raise ConfigError(f"world_size {self.world_size} is not a number of ranks; at least 1 is needed")
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank {self.rank} is outside the group; allowed are 0 to {self.world_size - 1}")
        if self.tensor_parallel < 1 or self.world_size % self.tensor_parallel:
            raise ConfigError(
                f"tensor_parallel {self.tensor_parallel} does not divide the group's {self.world_size} ranks; "
                f"use {_one_of(divisors(self.world_size))}"
            )

    @property
    def tp_rank(self) -> int:
        return self.rank % self.tensor_parallel

    @property
    def tp_groups(self) -> tuple[tuple[int, ...], ...]:
        """Every tensor-parallel group, in an order that all ranks agree on."""
        starts = range(0, self.world_size, self.tensor_parallel)
        return tuple(tuple(range(start, start + self.tensor_parallel)) for start in starts)

    @property
    def tp_group(self) -> tuple[int, ...]:
        return self.tp_groups[self.rank // self.tensor_parallel]

    def size(self, axis: Axis) -> int:
        """Return how many ranks exchange data along axis."""
        return self.tensor_parallel if axis is Axis.TP else self.world_size

    def heads(self, num_heads: int, what: str) -> range:
        """Return the heads of this rank, an even share of num_heads; what names them in the error."""
        if num_heads % self.tensor_parallel:
            raise ConfigError(
                f"tensor_parallel {self.tensor_parallel} does not divide {what} {num_heads}; "
                f"use {_one_of(divisors(num_heads))}"
            )
        share = num_heads // self.tensor_parallel
        return range(self.tp_rank * share, (self.tp_rank + 1) * share)

    def experts(self, num_experts: int) -> range:
        """Return the routed experts of this rank: whole experts, an even share."""
        if num_experts % self.world_size:
            raise ConfigError(
                f"the group's {self.world_size} ranks do not divide n_routed_experts {num_experts}; "
                f"use {_one_of(divisors(num_experts))} ranks"
            )
        share = num_experts // self.world_size
        return range(self.rank * share, (self.rank + 1) * share)

    def vocab_share(self, vocab_size: int) -> int:
        """Return how many rows of lm_head every rank of a tp group has room for; past the vocabulary is padding."""
        return -(-vocab_size // self.tensor_parallel)

    def vocab(self, vocab_size: int) -> range:
        """Return the rows of lm_head that this rank reads: vocab_share of them, on the last ranks fewer or none."""
        share = self.vocab_share(vocab_size)
        return range(min(self.tp_rank * share, vocab_size), min((self.tp_rank + 1) * share, vocab_size))


def divisors(number: int) -> list[int]:
    """Return the divisors of a positive number, ascending."""
    return [d for d in range(1, number + 1) if number % d == 0]


def _one_of(values: list[int]) -> str:
    *most, last = map(str, values)
    return f"{', '.join(most)} or {last}" if most else last
