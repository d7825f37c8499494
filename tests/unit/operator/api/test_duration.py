"""Durations as people write them."""

import pytest

from glm_operator.api.duration import to_seconds


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("1.5s", 1.5), ("30m", 1800), ("8h", 28_800), ("30d", 2_592_000), ("0s", 0)]
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert to_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "seconds"), [("9ms", 0.009), ("700ms", 0.7), ("1.005s", 1.005)])
def test_it_is_the_number_that_a_person_would_write_and_no_noise_of_a_product(text: str, seconds: float) -> None:
    assert to_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "s", "-1s", "1 s", "1w", "1s ", "1e3s", "١s", "1h30m"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write a number and a unit, as in 500ms"):
        to_seconds(text)
