import json

import pytest

from glm_operator.autoscale.simulate.errors import InputError
from glm_operator.autoscale.simulate.model.calibration import H200_AIR_FP8, read_calibration

FILE = {
    "prefill": {"base_s": 0.01, "per_token_s": 1e-4, "per_token_context_s": 1e-9},
    "decode": {"base_s": 0.02, "per_sequence_s": 1e-4, "per_context_token_s": 1e-8},
    "overhead_s": 0.005,
    "kv_tokens": 10000,
    "block_size": 16,
    "max_batch_tokens": 2048,
    "max_num_seqs": 64,
    "max_model_len": 4096,
    "cold_start_s": [12.5, 14.0],
    "device": "cpu",
    "model": "glm-nano",
    "ranks": 1,
    "measured": {"points": []},
}


def test_a_calibration_file_is_read_as_written() -> None:
    found = read_calibration(json.dumps(FILE))
    assert (found.prefill_base_s, found.decode_per_context_token_s, found.max_num_seqs) == (0.01, 1e-8, 64)
    assert found.cold_start_s == (12.5, 14.0)


def test_context_past_what_is_near_takes_longer() -> None:
    far = {**FILE["decode"], "near_context_tokens": 8000, "per_far_token_s": 1e-6}  # type: ignore[dict-item]
    found = read_calibration(json.dumps({**FILE, "decode": far}))
    assert found.decode_s(4, 8000) == pytest.approx(4e-4 + 8e-5)
    assert found.decode_s(4, 9000) == pytest.approx(4e-4 + 9e-5 + 1e-3)


def test_in_a_file_of_the_version_before_no_context_is_far() -> None:
    assert read_calibration(json.dumps(FILE)).decode_s(4, 9000) == pytest.approx(4e-4 + 9e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prefill": 3}, "prefill is 3"),
        ({"decode": {**FILE["decode"], "base_s": -1}}, r"decode.base_s is -1"),  # type: ignore[dict-item]
        ({"decode": {**FILE["decode"], "per_far_token_s": "x"}}, r"decode.per_far_token_s is 'x'"),  # type: ignore[dict-item]
        ({"kv_tokens": 0}, "kv_tokens is 0"),
        ({"max_num_seqs": 2.5}, "max_num_seqs is 2.5"),
        ({"cold_start_s": []}, r"cold_start_s is \[\]"),
        ({"cold_start_s": ["soon"]}, "cold_start_s is 'soon'"),
        ({"overhead_s": True}, "overhead_s is True"),
    ],
)
def test_a_field_that_is_wrong_is_named_with_its_value(change: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_calibration(json.dumps({**FILE, **change}))


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="the calibration is no JSON"):
        read_calibration(text)


@pytest.mark.parametrize(("sequences", "roofline_tokens_per_s"), [(16, 887), (64, 2118), (128, 3523)])
def test_the_shipped_group_decodes_at_two_thirds_to_nine_tenths_of_the_roofline(
    sequences: int, roofline_tokens_per_s: float
) -> None:
    step_s = H200_AIR_FP8.decode_base_s + H200_AIR_FP8.decode_s(sequences, sequences * 2000)
    assert 0.6 <= sequences / step_s / roofline_tokens_per_s <= 0.9
