"""What the engine knows of a request: token ids and numbers, no text."""

import msgspec


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How to choose the next token. temperature 0, or next to it, is greedy: then top_p, top_k and min_p do nothing.

    seed: with the token's position it keys the random number, so a result does not depend on batch, order or ranks.
    """

    temperature: float = 1.0
    top_p: float = 1.0  # in (0, 1]; 1 = off
    top_k: int = 0  # 0 = off
    min_p: float = 0.0  # in [0, 1); 0 = off
    seed: int = 0  # unsigned, 63 bits


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence to continue.

    The server has checked that len(prompt_token_ids) >= 1, max_tokens >= 1 and that both together fit the model.
    """

    request_id: str
    prompt_token_ids: list[int]
    max_tokens: int  # answer tokens at most, thinking included
    stop_token_ids: list[int]  # the checkpoint's EOS list, unless the client asked to ignore it
    sampling: SamplingParams = SamplingParams()
