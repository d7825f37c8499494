"""Durations in seconds: exactly the number that a person would write."""

import pytest

from glm_operator.api.duration import to_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("9ms", 0.009), ("700ms", 0.7), ("1ms", 0.001), ("1.5s", 1.5), ("0.001s", 0.001), ("30m", 1800), ("30d", 2592000)],
)
def test_a_duration_is_its_seconds_and_no_noise_of_a_product(text: str, seconds: float) -> None:
    assert to_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "1.5", "-1s", "1 s", "1s30ms", "1.2345s"])
def test_what_has_not_its_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write a number and a unit"):
        to_seconds(text)
