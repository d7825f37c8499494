"""What a group takes for a step, as `glm-worker calibrate` measured it. Pure.

The format is that of docs/design/0007-autoscaling.md, "Calibration file".
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from glm_operator.autoscale.simulate.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Seconds of a group's steps, and its limits. Fields are those of the file, with dots as underscores."""

    prefill_base_s: float
    prefill_per_token_s: float
    prefill_per_token_context_s: float
    decode_base_s: float
    decode_per_sequence_s: float
    decode_per_context_token_s: float
    overhead_s: float
    kv_tokens: int
    block_size: int
    max_batch_tokens: int
    max_num_seqs: int
    max_model_len: int
    cold_start_s: tuple[float, ...]
    decode_near_context_tokens: float = 0.0  # past them a token of context takes decode_per_far_token_s besides
    decode_per_far_token_s: float = 0.0
    device: str = ""
    model: str = ""

    def prefill_s(self, tokens: int, token_contexts: float) -> float:
        """Return what prompt tokens add to a step, without its base. token_contexts: each token times its position."""
        return self.prefill_per_token_s * tokens + self.prefill_per_token_context_s * token_contexts

    def decode_s(self, sequences: int, context_tokens: float) -> float:
        """Return what a token for each of these sequences adds to a step, without its base."""
        far_s = self.decode_per_far_token_s * max(0.0, context_tokens - self.decode_near_context_tokens)
        return self.decode_per_sequence_s * sequences + self.decode_per_context_token_s * context_tokens + far_s


_PARTS = {
    "prefill": ("base_s", "per_token_s", "per_token_context_s"),
    "decode": ("base_s", "per_sequence_s", "per_context_token_s"),
}
_COUNTS = ("kv_tokens", "block_size", "max_batch_tokens", "max_num_seqs", "max_model_len")


def read_calibration(text: str) -> Calibration:
    """Read a calibration file. Raises InputError with the field, its value and what is allowed."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"the calibration is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError("the calibration is no JSON object")
    seconds = {
        f"{part}_{name}": _number(_part(found, part), name, f"{part}.{name}")
        for part, names in _PARTS.items()
        for name in names
    }
    decode = {"near_context_tokens": 0, "per_far_token_s": 0, **_part(found, "decode")}  # older files lack them
    counts = {name: _count(found, name) for name in _COUNTS}
    starts = found.get("cold_start_s")
    if not isinstance(starts, list) or not starts:
        raise InputError(f"cold_start_s is {starts!r}; it is a list of seconds, one number a start")
    return Calibration(
        prefill_base_s=seconds["prefill_base_s"],
        prefill_per_token_s=seconds["prefill_per_token_s"],
        prefill_per_token_context_s=seconds["prefill_per_token_context_s"],
        decode_base_s=seconds["decode_base_s"],
        decode_per_sequence_s=seconds["decode_per_sequence_s"],
        decode_per_context_token_s=seconds["decode_per_context_token_s"],
        decode_near_context_tokens=_number(decode, "near_context_tokens", "decode.near_context_tokens"),
        decode_per_far_token_s=_number(decode, "per_far_token_s", "decode.per_far_token_s"),
        kv_tokens=counts["kv_tokens"],
        block_size=counts["block_size"],
        max_batch_tokens=counts["max_batch_tokens"],
        max_num_seqs=counts["max_num_seqs"],
        max_model_len=counts["max_model_len"],
        overhead_s=_number(found, "overhead_s", "overhead_s"),
        cold_start_s=tuple(_number({"cold_start_s": each}, "cold_start_s", "cold_start_s") for each in starts),
        device=str(found.get("device", "")),
        model=str(found.get("model", "")),
    )


def _part(found: Mapping[str, object], name: str) -> Mapping[str, object]:
    part = found.get(name)
    if not isinstance(part, dict):
        raise InputError(f"{name} is {part!r}; it is an object with {', '.join(_PARTS[name])}")
    return part


def _number(found: Mapping[str, object], name: str, path: str) -> float:
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise InputError(f"{path} is {value!r}; it is a number, 0 or more")
    return float(value)


def _count(found: Mapping[str, object], name: str) -> int:
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1 or value != int(value):
        raise InputError(f"{name} is {value!r}; it is a whole number, 1 or more")
    return int(value)


H200_AIR_FP8 = Calibration(
    # 30,900 prompt tokens a second are the ceiling of 790 TFLOP/s for GLM-4.5-Air's linear layers; 45 % of it here.
    prefill_base_s=0.027,
    prefill_per_token_s=1 / (0.45 * 30_900),
    # Attention: 4 * 46 layers * 96 heads * 128 FLOPs a token and position, at the same share of 790 TFLOP/s.
    prefill_per_token_context_s=4 * 46 * 96 * 128 / (0.45 * 790e12),
    # Decode roofline on one H200 at 4.3 TB/s, 2k of context, less what the KV cache takes: 16.6, 22.0, 24.6 and 25.1 ms
    # for 16, 32, 64 and 128 sequences. The line through these is 18.9 ms + 56 us a sequence; 70 % of the roofline here.
    decode_base_s=0.0189 / 0.7,
    decode_per_sequence_s=56e-6 / 0.7,
    decode_per_context_token_s=94_208 / 4.3e12 / 0.7,  # bytes of a token in an fp8 KV cache
    overhead_s=0.02,
    kv_tokens=254_000,  # 127,000 in bf16 are left beside 108 GB of weights; twice that in fp8
    block_size=64,
    max_batch_tokens=4096,
    max_num_seqs=128,
    max_model_len=131_072,
    cold_start_s=(60.0,),
    device="one H200, derived from rooflines and measured nowhere",
    model="GLM-4.5-Air-FP8",
)
"""A group of one H200. Derived, not measured: roofline tables, and the share of a roofline that engines reach."""
