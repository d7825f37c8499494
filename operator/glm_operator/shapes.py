"""The shapes of the GLM models the operator knows, and the arithmetic of their parameters and bytes.

Pure and exact: counts follow the tensors of a `glm4_moe` checkpoint. A `custom` model has no shape here; its worker
reads config.json.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """What the planner needs to know of one architecture. Field names are those of config.json, shortened."""

    num_layers: int  # without the MTP layer
    num_dense_layers: int
    hidden_size: int
    intermediate_size: int  # of a dense layer
    moe_intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_routed_experts: int
    num_experts_per_token: int  # of the routed ones
    num_shared_experts: int
    vocab_size: int
    qk_norm: bool
    max_model_len: int

    @property
    def expert_parameters(self) -> int:
        """Parameters of one expert: gate, up and down projections."""
        return 3 * self.hidden_size * self.moe_intermediate_size

    @property
    def attention_parameters(self) -> int:
        """Parameters of one layer's attention: q, k and v with bias, o without, and the norms over a head."""
        q_width, kv_width = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        projections = self.hidden_size * (2 * q_width + 2 * kv_width) + q_width + 2 * kv_width
        return projections + (2 * self.head_dim if self.qk_norm else 0)

    @property
    def replicated_parameters(self) -> int:
        """Parameters every rank holds at tensor 1: all but the routed experts."""
        norms = 2 * self.hidden_size
        dense_layer = 3 * self.hidden_size * self.intermediate_size
        router = self.num_routed_experts * (self.hidden_size + 1)  # weights and the correction bias
        moe_layer = router + self.num_shared_experts * self.expert_parameters
        return (
            self.num_layers * (self.attention_parameters + norms)
            + self.num_dense_layers * dense_layer
            + (self.num_layers - self.num_dense_layers) * moe_layer
            + 2 * self.vocab_size * self.hidden_size  # embedding and head, not tied
            + self.hidden_size  # final norm
        )

    @property
    def routed_parameters(self) -> int:
        return (self.num_layers - self.num_dense_layers) * self.num_routed_experts * self.expert_parameters

    @property
    def parameters(self) -> int:
        """Parameters of the main model, the MTP layer left out."""
        return self.replicated_parameters + self.routed_parameters

    def parameters_per_rank(self, *, tensor: int, expert: int) -> int:
        """Parameters one rank holds: its slice of the attention heads, its experts, and all the rest."""
        sliced = self.num_layers * self.attention_parameters
        return self.replicated_parameters - sliced + sliced // tensor + self.routed_parameters // expert

    def active_parameters_per_rank(self, *, tensor: int, expert: int) -> float:
        """Parameters of the layers that one rank must read to compute one token, the head left out.

        As the worker places them: its slice of the attention heads; norms, dense layers, routers and shared experts
        whole; of the routed experts the mean over the ranks, which is the least that the busiest can have. At most
        what the worker reads: the norms over a head, which are not split, count as if they were.
        """
        router = self.num_routed_experts * (self.hidden_size + 1)
        num_experts = self.num_shared_experts + self.num_experts_per_token / expert
        return (
            self.num_layers * (self.attention_parameters / tensor + 2 * self.hidden_size)
            + self.num_dense_layers * 3 * self.hidden_size * self.intermediate_size
            + (self.num_layers - self.num_dense_layers) * (router + num_experts * self.expert_parameters)
            + self.hidden_size  # final norm
        )

    def head_parameters_per_rank(self, *, tensor: int) -> float:
        """Parameters of one rank's slice of the head, which makes logits of the last token alone."""
        return self.vocab_size * self.hidden_size / tensor

    def kv_bytes_per_token(self, *, tensor: int, bytes_per_element: int) -> int:
        """Bytes of KV cache one token takes on one rank."""
        return 2 * self.num_layers * (self.num_kv_heads // tensor) * self.head_dim * bytes_per_element


SHAPES: dict[str, Shape] = {
    "glm-nano": Shape(
        num_layers=4,
        num_dense_layers=1,
        hidden_size=128,
        intermediate_size=384,
        moe_intermediate_size=96,
        num_heads=4,
        num_kv_heads=4,
        head_dim=32,
        num_routed_experts=8,
        num_experts_per_token=2,
        num_shared_experts=1,
        vocab_size=1024,
        qk_norm=True,
        max_model_len=2048,
    ),
    "GLM-4.5": Shape(
        num_layers=92,
        num_dense_layers=3,
        hidden_size=5120,
        intermediate_size=12288,
        moe_intermediate_size=1536,
        num_heads=96,
        num_kv_heads=8,
        head_dim=128,
        num_routed_experts=160,
        num_experts_per_token=8,
        num_shared_experts=1,
        vocab_size=151552,
        qk_norm=True,
        max_model_len=131072,
    ),
    "GLM-4.5-Air": Shape(
        num_layers=46,
        num_dense_layers=1,
        hidden_size=4096,
        intermediate_size=10944,
        moe_intermediate_size=1408,
        num_heads=96,
        num_kv_heads=8,
        head_dim=128,
        num_routed_experts=128,
        num_experts_per_token=8,
        num_shared_experts=1,
        vocab_size=151552,
        qk_norm=False,
        max_model_len=131072,
    ),
}


def divisors(number: int) -> list[int]:
    """Return every divisor, smallest first."""
    return [d for d in range(1, number + 1) if number % d == 0]


def allowed_tensor(shape: Shape) -> list[int]:
    """Degrees of tensor parallelism that split both the heads and the KV heads evenly."""
    return [d for d in divisors(shape.num_heads) if shape.num_kv_heads % d == 0]
