"""Patterns: what the grammar's side reads of them, compared with Python's own engine."""

import re
from random import Random

import pytest

from glm_worker.server.structured.patterns import characters
from glm_worker.server.structured.patterns.expressions import pattern_of
from glm_worker.server.structured.patterns.fitting import fitted
from glm_worker.server.structured.patterns.nodes import Chars, Choice, Node, Repeat, Sequence
from glm_worker.server.structured.refused import Invalid, Refused

PATTERNS = [
    *(r"^[A-Z]{2,4}-\d+$", r"colou?r", r"^(foo|bar)+$", r"^a|b$", r"^\w+@\w+\.com$", r"^[^a-z\d]{1,5}$", r"^\S+\s\S+$"),
    *(
        r"[\x41-\u0043\]\-^]",
        r"^\D\W\d$",
        r"^(?:a|(?P<n>b)|(?<m>c))*?$",
        r"^$",
        r"",
        r"^.{3}$",
        r"\.(png|jpg)$",
        r"^\u{1F642}$",
    ),
    *(r"^[^\W]+$", r"^[^\D\s]+$", r"^[^\S]$", r"a{0}b", r"^[\b\t]$", r"^x{2,}$"),
]


def sample(node: Node, random: Random) -> str:
    match node:
        case Chars(ranges):
            low, high = random.choice(ranges)
            return chr(random.choice([low, high, random.randint(low, high)]))
        case Sequence(parts):
            return "".join(sample(part, random) for part in parts)
        case Choice(options):
            return sample(random.choice(options), random)
        case Repeat(part, low, high):
            number = random.randint(low, low + 3 if high is None else min(high, low + 3))
            return "".join(sample(part, random) for _ in range(number))


def pythons(pattern: str) -> str:
    return pattern.replace("(?<m>", "(?P<m>").replace(r"\u{1F642}", "🙂")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_read_of_a_pattern_matches_it(pattern: str) -> None:
    random = Random(1)
    node = pattern_of(pattern, is_searched=True)
    for _ in range(300):
        text = sample(node, random)
        assert re.search(pythons(pattern), text), text


def test_a_pattern_that_is_not_searched_is_anchored() -> None:
    assert sample(pattern_of("abc", is_searched=False), Random(1)) == "abc"


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "(?=a)",
            "(?<=a)b",
            r"(a)\1",
            r"\bword",
            "a**",
            "a{3,1}",
            "(",
            ")",
            "[",
            "[]a]",
            "*a",
            "a$b",
            "(^a)",
            "{x}",
            "\\",
        ),
        *(r"\p{L}", r"\u12", r"\ud800", "[z-a]", "(?i)a", "a{x}"),
    ],
)
def test_what_no_grammar_can_keep_or_engines_read_differently_is_refused(pattern: str) -> None:
    with pytest.raises(Invalid, match="a pattern cannot be used: at character"):
        pattern_of(pattern, is_searched=True)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("low", "high"), [(0, 4), (3, 3), (6, None), (5, 12)])
def test_a_pattern_fitted_to_a_length_matches_both(pattern: str, low: int, high: int | None) -> None:
    random = Random(2)
    node = fitted(pattern_of(pattern, is_searched=True), low, high)
    for _ in range(100 if node is not None else 0):
        assert node is not None
        text = sample(node, random)
        assert re.search(pythons(pattern), text)
        assert low <= len(text) <= (high or 10**6)


@pytest.mark.parametrize(
    ("pattern", "low", "high"),
    [(r"^[a-z]+$", 3, 20), (r"^[a-z]+@[a-z]+$", 5, 10), ("a", 5, 9), (r"^\d{1,9}-?x$", 4, 4)],
)
def test_usual_patterns_and_lengths_go_together(pattern: str, low: int, high: int) -> None:
    assert fitted(pattern_of(pattern, is_searched=True), low, high) is not None


def test_no_text_makes_the_reader_of_patterns_fail() -> None:
    random = Random(3)
    for _ in range(20_000):
        pattern = "".join(random.choices(r"ab|()[]{}^$.*+?\-,:<>=!dwsDWSxu019P", k=random.randint(0, 12)))
        try:
            pattern_of(pattern, is_searched=bool(random.getrandbits(1)))
        except Refused:
            continue


def test_sets_of_characters_are_what_they_are_made_of() -> None:
    letters, digits = characters.of("abcxyz"), characters.DIGITS
    assert characters.union(letters, digits) == ((48, 57), (97, 99), (120, 122))
    assert characters.without(letters, characters.of("b")) == ((97, 97), (99, 99), (120, 122))
    assert characters.both(characters.union(letters, digits), digits) == digits
