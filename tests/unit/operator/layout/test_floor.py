"""The least time of one request: numbers by hand, laws, and whatever was measured or published lies above."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_operator.api.slo import SIGNALS
from glm_operator.layout.floor import COMPUTE_HEADROOM, MEMORY_HEADROOM, Floor, Precision, least_time
from glm_operator.layout.products import PRODUCTS, Product
from glm_operator.shapes import SHAPES, allowed_tensor, divisors

AIR, FULL, NANO = (SHAPES[name] for name in ("GLM-4.5-Air", "GLM-4.5", "glm-nano"))
H100, H200, B200 = (PRODUCTS[f"NVIDIA-{name}"] for name in ("H100-80GB-HBM3", "H200", "B200"))


def test_air_in_fp8_on_four_h100_reads_its_part_of_the_weights() -> None:
    # A rank, in parameters. Attention of a layer: q, k, v and o of 96 + 8 + 8 + 96 heads of 128, and biases; a quarter.
    attention = (4096 * (2 * 96 + 2 * 8) * 128 + (96 + 2 * 8) * 128) / 4
    dense = 3 * 4096 * 10944
    one_expert = 3 * 4096 * 1408  # the shared one whole, and of eight routed ones two
    router = 128 * 4096 + 128
    head = 151552 * 4096 / 4
    norms = 46 * 2 * 4096 + 4096
    parameters = 46 * attention + dense + 45 * (router + 3 * one_expert) + head + norms
    assert parameters == 3_903_613_568

    found = least_time(AIR, H100, tensor=4, expert=4, precision="fp8")

    # Less 120 MB that may be left on the chip, at 3.35 TB/s and 3 % more
    assert found.step_s == pytest.approx((3_903_613_568 - 120e6) / 3.4505e12)
    assert found.step_s == pytest.approx(1.097e-3, rel=1e-3)
    assert found.hardware == "4 x H100 SXM in fp8"


def test_the_full_model_in_bf16_on_sixteen_h100_reads_its_part_of_the_weights() -> None:
    # Half an expert a layer is the mean of 8 over 16 ranks; attention and head over 8 of them, and query and key norms
    attention = (5120 * (2 * 96 + 2 * 8) * 128 + (96 + 2 * 8) * 128 + 2 * 128) / 8
    moe = 160 * 5120 + 160 + 1.5 * 3 * 5120 * 1536
    parameters = 92 * (attention + 2 * 5120) + 3 * 3 * 5120 * 12288 + 89 * moe + 5120 + 151552 * 5120 / 8
    assert parameters == 5_454_543_648

    found = least_time(FULL, H100, tensor=8, expert=16)

    assert found.step_s == pytest.approx((2 * 5_454_543_648 - 120e6) / 3.4505e12)
    assert found.step_s == pytest.approx(3.127e-3, rel=1e-3)


def test_a_prompt_takes_the_multiplications_of_its_tokens() -> None:
    # 8,192 tokens on one H200: 2 operations for each of 12.18 billion active parameters and token, and attention
    body = AIR.active_parameters_per_rank(tensor=1, expert=1)
    assert body == pytest.approx(12.18e9, rel=1e-3)
    operations = 2 * (8192 * body + 151552 * 4096) + 4 * 46 * 96 * 128 * 8192**2 / 2

    found = least_time(AIR, H200, tensor=1, expert=1, prompt_tokens=8192)

    assert found.first_token_s == pytest.approx(operations / (989.5e12 * 1.25))
    assert found.first_token_s == pytest.approx(0.2227, rel=1e-3)
    assert found.step_s == least_time(AIR, H200, tensor=1, expert=1).step_s


def test_the_first_token_of_a_short_prompt_takes_a_step_and_every_signal_at_least_that() -> None:
    found = least_time(AIR, H100, tensor=4, expert=4)
    assert found.first_token_s == found.step_s
    assert found.seconds == dict.fromkeys(SIGNALS, found.step_s)


def test_what_fits_on_the_chip_is_read_from_no_memory() -> None:
    found = least_time(NANO, H100, tensor=1, expert=1)
    assert 0.0 < found.step_s < 1e-6, "3 million parameters; and a floor is never zero"


shapes = st.sampled_from(list(SHAPES.values()))
products = st.sampled_from(list(PRODUCTS.values()))
prompts = st.integers(1, 131_072)


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    shape = draw(shapes)
    expert = draw(st.sampled_from(divisors(shape.num_routed_experts)))
    tensor = draw(st.sampled_from([degree for degree in allowed_tensor(shape) if expert % degree == 0]))
    return {"shape": shape, "tensor": tensor, "expert": expert, "prompt_tokens": draw(prompts)}


@given(layouts(), products, st.floats(1.0, 100.0))
def test_faster_hardware_has_a_lower_floor(layout: dict[str, Any], product: Product, times: float) -> None:
    slow = least_time(product=product, **layout)
    memory = least_time(product=replace(product, memory_bytes_per_s=times * product.memory_bytes_per_s), **layout)
    compute = least_time(product=replace(product, flops_bf16=times * product.flops_bf16), **layout)
    for fast in (memory, compute):
        assert fast.step_s <= slow.step_s
        assert fast.first_token_s <= slow.first_token_s


@given(layouts(), st.floats(1.01, 100.0))
def test_of_a_model_of_billions_more_bandwidth_always_lowers_a_step(layout: dict[str, Any], times: float) -> None:
    layout["shape"], layout["tensor"], layout["expert"] = AIR, 1, 1
    fast = replace(H100, memory_bytes_per_s=times * H100.memory_bytes_per_s)
    assert least_time(product=fast, **layout).step_s < least_time(product=H100, **layout).step_s


@given(layouts(), products)
def test_fewer_bits_have_a_lower_floor_and_longer_prompts_no_lower_one(
    layout: dict[str, Any], product: Product
) -> None:
    by_bits = [least_time(product=product, precision=bits, **layout) for bits in ("bf16", "fp8", "int4")]
    assert [each.step_s for each in by_bits] == sorted((each.step_s for each in by_bits), reverse=True)
    longer = least_time(product=product, **{**layout, "prompt_tokens": 2 * layout["prompt_tokens"]})
    assert longer.first_token_s >= by_bits[0].first_token_s >= by_bits[0].step_s > 0.0


@given(layouts(), products)
def test_ranks_hold_no_less_together_than_one_reads_alone(layout: dict[str, Any], product: Product) -> None:
    """Splitting a model lowers the floor by no more than the ranks it is split over."""
    split = least_time(product=replace(product, on_chip_bytes=0.0), **layout)
    whole = least_time(product=replace(product, on_chip_bytes=0.0), **{**layout, "tensor": 1, "expert": 1})
    assert whole.step_s / layout["expert"] <= split.step_s * (1 + 1e-9)
    assert split.step_s <= whole.step_s * (1 + 1e-9)


def test_this_engine_was_measured_above_its_floor() -> None:
    """docs/log.md, 2026-11-27, one H200, 26 layers of Air in bf16: a step 62 ms at best, a prompt of 2,048 91 ms."""
    found = least_time(replace(AIR, num_layers=26), H200, tensor=1, expert=1, prompt_tokens=2048)
    assert found.step_s < 0.062
    assert found.first_token_s < 0.091
    assert found.first_token_s > 0.091 / 10, "or it says too little"


@pytest.mark.parametrize(
    ("shape", "product", "ranks", "precision", "step_s"),
    [
        (FULL, H200, 8, "bf16", 1 / 75),  # vllm-project/vllm#25993, GLM-4.6, one request, with one speculated token
        (FULL, B200, 8, "bf16", 1 / 66),  # SGLang's cookbook, GLM-4.6, one request
        (FULL, H100, 8, "fp8", 1 / 70),  # zai-org/GLM-4.5#113, GLM-4.6, one request
        (AIR, B200, 2, "fp8", 0.0545),  # vllm-project/vllm#23695, 180 requests
    ],
)
def test_other_engines_were_measured_above_the_floor(
    shape: Any, product: Product, ranks: int, precision: Precision, step_s: float
) -> None:
    assert least_time(shape, product, tensor=ranks, expert=ranks, precision=precision).step_s < step_s


def test_what_may_be_exceeded_in_practice_has_room() -> None:
    """Pins and clocks, by hand: an H200 has 6,144 pins at 6.4 Gb/s, a B200 8,192 at 8; tensor cores at 1.98 GHz."""
    assert H200.memory_bytes_per_s * MEMORY_HEADROOM > 6144 / 8 * 6.402e9
    assert B200.memory_bytes_per_s * MEMORY_HEADROOM > 8192 / 8 * 7.992e9
    assert H100.flops_bf16 * COMPUTE_HEADROOM > 132 * 4096 * 1.98e9


def test_a_floor_says_what_it_is_of() -> None:
    assert least_time(AIR, B200, tensor=1, expert=2).hardware == "2 x B200 in bf16"
    assert Floor(0.1, 0.2, "x").seconds == {"ttft": 0.2, "ttfa": 0.2, "itl": 0.1, "e2e": 0.2}
