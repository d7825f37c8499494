"""The calibration file, as docs/design/0007-autoscaling.md describes it. Seconds are whole turns of the engine."""

import msgspec


class PrefillCost(msgspec.Struct, frozen=True, kw_only=True):
    """base_s + per_token_s * tokens + per_token_context_s * token_context, for a step."""

    base_s: float
    per_token_s: float
    per_token_context_s: float

    def seconds(self, tokens: float, token_context: float) -> float:
        return self.base_s + self.per_token_s * tokens + self.per_token_context_s * token_context


class DecodeCost(msgspec.Struct, frozen=True, kw_only=True):
    """base_s + per_sequence_s * rows + per_context_token_s * context, for a step; and more for what is far.

    Far is context past near_context_tokens, where a processor's caches end; each token of it takes per_far_token_s
    besides. Both are 0 where no such end was seen.
    """

    base_s: float
    per_sequence_s: float
    per_context_token_s: float
    near_context_tokens: float = 0.0
    per_far_token_s: float = 0.0

    def seconds(self, rows: float, context: float) -> float:
        far_s = self.per_far_token_s * max(0.0, context - self.near_context_tokens)
        return self.base_s + self.per_sequence_s * rows + self.per_context_token_s * context + far_s


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What the costs were fitted to. errors: medians of |fitted - measured| / measured, by kind of step.

    served_token_s: what a generated token takes besides when it is served; it is in per_sequence_s. backlog_s: what the
    engine alone would take for a backlog, and what it took in each round when it was served.
    """

    prefill: list[tuple[float, float, float]]  # tokens, token_context, seconds
    decode: list[tuple[float, float, float]]  # rows, context, seconds
    mixed: list[tuple[float, float, float, float, float]]  # tokens, token_context, rows, context, seconds
    errors: dict[str, float]
    served_token_s: float = 0.0
    backlog_s: tuple[float, list[float]] = (0.0, [])


class EngineCosts(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine alone showed."""

    prefill: PrefillCost
    decode: DecodeCost
    kv_tokens: int
    block_size: int
    max_model_len: int
    measured: Measured


class Calibration(EngineCosts, frozen=True, kw_only=True):
    """The whole file."""

    overhead_s: float
    max_batch_tokens: int
    max_num_seqs: int
    cold_start_s: list[float]
    device: str
    model: str
    ranks: int
