"""Numbers as people read them."""

import pytest

from glm_operator.status import texts


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0042, "4.2ms"),
        (0.42, "420ms"),
        (0.9994, "999ms"),
        (0.9996, "1.00s"),
        (1.234, "1.23s"),
        (9.996, "10.0s"),
        (12.34, "12.3s"),
        (125.4, "125s"),
    ],
)
def test_a_time_has_three_digits(value: float, text: str) -> None:
    assert texts.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "100%"), (0.9996, "99.9%"), (0.987, "98.7%"), (0.5, "50%"), (0, "0%")]
)
def test_a_share_is_never_rounded_up(value: float, text: str) -> None:
    assert texts.share(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.87, "87%"), (1.0, "100%"), (-0.051, "-6%")])
def test_a_budget_that_is_overspent_is_below_zero(value: float, text: str) -> None:
    assert texts.percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (2.4, "2.4"), (2.456, "2.46"), (12345.6, "12346"), (0.000123, "0.000123"), (-3.0, "-3")],
)
def test_a_number_has_no_exponent(value: float, text: str) -> None:
    assert texts.number(value) == text
