"""Kubernetes quantities as exact numbers."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_operator.api.quantity import QUANTITY_PATTERN, canonical, mebibytes, parse_quantity, to_bytes


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), (2, 2), ("200m", Fraction(1, 5)), ("1.5Gi", 3 * 2**29), ("1k", 1000), ("1Ki", 1024)]
)
def test_a_quantity_is_its_number(text: str | int, value: int | Fraction) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "1GiB", "-1", "1e3", "Gi", "1.Gi", ".5", "1 Gi"])
def test_other_forms_are_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)


def test_bytes_are_rounded_up_to_whole_ones() -> None:
    assert to_bytes("1500m") == 2


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1536", "1536"),
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1500m", "1500m"),
        (2000, "2k"),
        ("0", "0"),
        ("0Mi", "0"),
        ("1000Mi", "1000Mi"),
        ("0.5Ki", "512"),
        ("0.0001", "1m"),
    ],
)
def test_a_quantity_is_rendered_as_the_api_server_writes_it(text: str | int, form: str) -> None:
    assert canonical(text) == form


@settings(deadline=None)
@given(st.from_regex(QUANTITY_PATTERN, fullmatch=True).filter(lambda text: len(text) < 20))
def test_no_value_is_lost_in_the_canonical_form(text: str) -> None:
    form = canonical(text)
    assert 0 <= parse_quantity(form) - parse_quantity(text) < Fraction(1, 1000)
    assert canonical(form) == form


@pytest.mark.parametrize(("num_bytes", "text"), [(1, "1Mi"), (2**20, "1Mi"), (2**20 + 1, "2Mi")])
def test_mebibytes_are_rounded_up(num_bytes: int, text: str) -> None:
    assert mebibytes(num_bytes) == text
