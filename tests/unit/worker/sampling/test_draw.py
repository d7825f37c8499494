"""Sampling against the definition, written plainly here, and against the probabilities it should have.

In torch, and by the kernel of each instruction set that this machine has.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_worker.engine.sampling import draw as drawing
from glm_worker.engine.sampling.draw import Drawn
from glm_worker.engine.sampling.randomness import uniform
from glm_worker.kernels.cpu.library import Team, available_isas, is_available, load
from glm_worker.kernels.cpu.sample import SampleKernel
from glm_worker.request import SamplingParams
from integration.rank_pool import hold_torch_to_one_thread

hold_torch_to_one_thread()

GREEDY = SamplingParams(temperature=0)


WAYS = ["torch", *(available_isas() if is_available() else [])]


class Way:
    """What draws in the test that runs. Hypothesis wants no fixture that is made for each test."""

    kernel: SampleKernel | None = None


@pytest.fixture(params=WAYS, autouse=True, scope="module")
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param != "torch":
        Way.kernel = SampleKernel(load(request.param), Team(2))
    yield request.param
    Way.kernel = None


def draw(logits: torch.Tensor, params: Sequence[SamplingParams], positions: Sequence[int]) -> Drawn:
    return drawing.draw(logits, params, positions, Way.kernel)


def test_the_kernels_are_there(way: str) -> None:
    assert is_available() or way == "torch", "no library: the kernels are not tested"


def plain_sample(row: list[float], params: SamplingParams, position: int) -> int:
    """The definition for one row, over the sorted vocabulary, or in order of ids if nothing is filtered."""
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))
    if params.temperature == 0:
        return order[0]
    weights = {i: math.exp((row[i] - row[order[0]]) / params.temperature) for i in order}
    if params.min_p == 0 and params.top_k == 0 and params.top_p == 1:
        order.sort()
    order = [i for i in order if weights[i] >= params.min_p]
    order = order[: params.top_k or len(order)]
    left = sum(weights[i] for i in order)
    kept, mass = [], 0.0
    for i in order:
        if params.top_p < 1 and mass >= params.top_p * left:
            break
        kept.append(i)
        mass += weights[i]
    target, passed = uniform(params.seed, position) * mass, 0.0
    for i in kept:
        passed += weights[i]
        if passed > target:
            return i
    return kept[-1]


def random_logits(num_rows: int, vocab_size: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    return torch.randn(num_rows, vocab_size, generator=torch.Generator().manual_seed(seed)) * scale


def tokens(logits: torch.Tensor, params: Sequence[SamplingParams], positions: Sequence[int]) -> list[int]:
    drawn = draw(logits, params, positions)
    assert drawn.broken == []
    return drawn.token_ids


def draw_many(row: list[float], params: SamplingParams, num_draws: int) -> Counter[int]:
    logits = torch.tensor(row).expand(num_draws, -1)
    return Counter(tokens(logits, [params] * num_draws, range(num_draws)))


params_of_all_kinds = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.01, 0.6, 1.0, 2.0]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.01]),
    top_k=st.sampled_from([0, 1, 2, 7, 10_000]),
    min_p=st.sampled_from([0.0, 0.02, 0.5]),
    seed=st.integers(0, 2**63 - 1),
)


@given(st.lists(params_of_all_kinds, min_size=1, max_size=6), st.integers(1, 60), st.integers(0, 2**20), st.booleans())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_batch_gives_the_tokens_of_the_definition(
    params: list[SamplingParams], vocab_size: int, seed: int, has_ties: bool
) -> None:
    logits = random_logits(len(params), vocab_size, seed)
    logits = logits.round() if has_ties else logits
    positions = [seed + i for i in range(len(params))]
    expected = [plain_sample(row, p, at) for row, p, at in zip(logits.tolist(), params, positions, strict=True)]
    assert tokens(logits, params, positions) == expected


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 5.0])  # 0: all equal, so no leading candidates stand out
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(top_p=0.9),
        SamplingParams(top_k=1023),
        SamplingParams(top_k=1024),
        SamplingParams(top_k=2000),
        SamplingParams(min_p=0.01),
        SamplingParams(min_p=0.01, top_k=1500, top_p=0.99, temperature=1.5),
    ],
)
def test_a_vocabulary_wider_than_the_candidates_gives_the_tokens_of_the_definition(
    params: SamplingParams, scale: float
) -> None:
    logits = random_logits(8, 3000, scale=scale)
    expected = [plain_sample(row, params, position) for position, row in enumerate(logits.tolist())]
    assert tokens(logits, [params] * 8, range(8)) == expected


def test_a_result_does_not_depend_on_batch_or_order() -> None:
    kinds = [GREEDY, SamplingParams(), SamplingParams(top_p=0.9), SamplingParams(top_k=5), SamplingParams(min_p=0.1)]
    params = [msgspec.structs.replace(kind, seed=seed) for seed, kind in enumerate(kinds * 4)]
    logits = random_logits(len(params), 5000, scale=1.0)
    together = tokens(logits, params, range(len(params)))
    alone = [tokens(logits[i : i + 1], [params[i]], [i])[0] for i in range(len(params))]
    reverse = tokens(logits.flip(0), params[::-1], range(len(params))[::-1])
    assert together == alone == reverse[::-1]


@pytest.mark.parametrize("tied", [0.0, -3.5, 7.25])
def test_greedy_takes_the_lowest_id_of_equal_logits(tied: float) -> None:
    logits = torch.full((1, 1000), tied - 1)
    logits[0, [17, 400, 999]] = tied
    assert tokens(logits, [GREEDY], [0]) == [17]


@pytest.mark.parametrize("temperature", [5e-324, 1e-46, 1e-45, 1e-40, 1e-20, 1e-6, 1e-5, 1e-4])
@pytest.mark.parametrize("filters", [{}, {"top_p": 0.9}, {"top_k": 2}, {"min_p": 0.1}], ids=str)
def test_next_to_no_temperature_only_the_best_token_is_drawn(temperature: float, filters: dict[str, float]) -> None:
    params = [SamplingParams(temperature=temperature, seed=seed, **filters) for seed in range(20)]
    logits_SV = torch.tensor([[1.0, 3.0, 2.9, -40.0]]).expand(20, 4)
    assert tokens(logits_SV, params, range(20)) == [1] * 20


def test_greedy_ignores_filters_and_seed() -> None:
    logits = random_logits(1, 100)
    odd = SamplingParams(temperature=0, top_p=0.1, top_k=3, min_p=0.9, seed=5)
    assert tokens(logits, [odd], [3]) == tokens(logits, [GREEDY], [0])


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (SamplingParams(), [0.4, 0.3, 0.2, 0.1]),
        (SamplingParams(temperature=0.5), [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        (SamplingParams(top_k=2), [4 / 7, 3 / 7, 0, 0]),
        (SamplingParams(top_p=0.69), [4 / 7, 3 / 7, 0, 0]),
        (SamplingParams(top_p=0.71), [4 / 9, 3 / 9, 2 / 9, 0]),
        (SamplingParams(min_p=0.49), [4 / 9, 3 / 9, 2 / 9, 0]),
        (SamplingParams(top_k=3, top_p=0.77), [4 / 7, 3 / 7, 0, 0]),  # of what top_k leaves, 7/9 is enough
        (SamplingParams(temperature=0.5, min_p=0.3), [16 / 25, 9 / 25, 0, 0]),  # 4/16 is below, 0.2/0.4 was not
    ],
)
def test_drawn_frequencies_match_the_distribution(params: SamplingParams, expected: list[float]) -> None:
    num_draws = 20_000
    counts = draw_many([math.log(p) for p in (0.4, 0.3, 0.2, 0.1)], params, num_draws)
    assert all(counts[i] == 0 for i, p in enumerate(expected) if p == 0)
    possible = [(counts[i], p * num_draws) for i, p in enumerate(expected) if p > 0]
    chi_square = sum((seen - wanted) ** 2 / wanted for seen, wanted in possible)
    assert chi_square < {2: 10.8, 3: 13.8, 4: 16.3}[len(possible)]  # one in a thousand would be above


def test_the_random_number_is_uniform_and_keyed_by_seed_and_position() -> None:
    numbers = [uniform(seed, position) for seed in range(100) for position in range(100)]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number < 1 for number in numbers)
    counts = Counter(int(number * 10) for number in numbers)
    assert sum((counts[i] - 1000) ** 2 / 1000 for i in range(10)) < 27.9  # one in a thousand would be above


def test_the_random_number_is_the_same_on_every_machine_and_in_every_version() -> None:
    assert uniform(0, 0) == 0.1521434259459009
    assert uniform(2**63 - 1, 131_071) == 0.9958823405057788


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    counts = draw_many([0.0, -math.inf, 0.0, -1e30], SamplingParams(), 2000)
    assert set(counts) == {0, 2}
    assert set(draw_many([-math.inf, 1.0], SamplingParams(top_k=2), 200)) == {1}


def test_no_rows_give_no_tokens() -> None:
    assert draw(torch.empty(0, 10), [], []) == Drawn([], [])


KINDS = {
    "greedy": GREEDY,
    "drawn": SamplingParams(),
    "top_p": SamplingParams(top_p=0.9),
    "top_k": SamplingParams(top_k=7),
    "min_p": SamplingParams(min_p=0.1),
    "all": SamplingParams(temperature=0.7, top_p=0.8, top_k=20, min_p=0.01),
}


def broken_rows(vocab_size: int) -> dict[str, torch.Tensor]:
    row = random_logits(1, vocab_size, seed=5)[0]
    some_nan, some_inf = row.clone(), row.clone()
    some_nan[vocab_size // 2], some_inf[vocab_size - 1] = math.nan, math.inf
    return {
        "a NaN": some_nan,
        "only NaN": torch.full_like(row, math.nan),
        "an infinity": some_inf,
        "nothing possible": torch.full_like(row, -math.inf),
    }


@pytest.mark.parametrize("vocab_size", [50, 3000])
@pytest.mark.parametrize("name", broken_rows(2))
@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_row_is_named_and_changes_no_other(kind: str, name: str, vocab_size: int) -> None:
    """Whatever it asks for, and whatever the others do."""
    params = [msgspec.structs.replace(each, seed=n) for n, each in enumerate(KINDS.values())]
    logits = random_logits(len(params), vocab_size)
    whole = draw(logits, params, range(len(params)))
    beside = torch.cat([logits[:3], broken_rows(vocab_size)[name][None], logits[3:]])
    drawn = draw(beside, [*params[:3], KINDS[kind], *params[3:]], [0, 1, 2, 99, 3, 4, 5])
    assert (whole.broken, drawn.broken) == ([], [3])
    assert [*drawn.token_ids[:3], *drawn.token_ids[4:]] == whole.token_ids


def test_the_token_of_a_broken_row_is_one_of_the_vocabulary() -> None:
    """It means nothing, and somebody may still look it up."""
    drawn = draw(torch.full((2, 50), math.nan), [GREEDY, SamplingParams(top_p=0.5)], [0, 1])
    assert (drawn.broken, set(drawn.token_ids) <= set(range(50))) == ([0, 1], True)


@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_sorted_whole_give_the_tokens_of_their_leading_candidates(
    kind: str, scale: float, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that is not asked sorts them so."""
    if way != "torch":
        pytest.skip("the kernel has one way")
    logits = random_logits(3, 3000, scale=scale)
    params = [msgspec.structs.replace(KINDS[kind], seed=n) for n in range(3)]
    leading = tokens(logits, params, range(3))
    monkeypatch.setattr(drawing, "NUM_CANDIDATES", 3000)
    assert tokens(logits, params, range(3)) == leading


def test_many_broken_rows_are_all_named() -> None:
    logits = torch.full((40, 2000), math.nan)
    logits[7] = random_logits(1, 2000)[0]
    drawn = draw(logits, [SamplingParams(top_p=0.5)] * 40, range(40))
    assert drawn.broken == [row for row in range(40) if row != 7]
