import pytest

from glm_operator.cli.replay.braille import area


@pytest.mark.parametrize(("value", "cell"), [(0.0, "\u2800"), (0.01, "\u2840"), (0.5, "\u2844"), (1.0, "\u2847")])
def test_a_value_is_as_many_dots_high(value: float, cell: str) -> None:
    assert area([value, 0.0], 1.0, 1) == [cell]


def test_two_values_share_a_character_and_rows_come_from_above() -> None:
    assert area([8.0, 8.0, 2.0, None], 8.0, 2) == ["\u28ff\u2800", "\u28ff\u2844"]


def test_what_is_above_the_top_is_cut() -> None:
    assert area([100.0, 100.0], 1.0, 1) == ["\u28ff"]


def test_an_odd_number_of_values_ends_in_half_a_character() -> None:
    assert area([1.0], 1.0, 1) == ["\u2847"]
