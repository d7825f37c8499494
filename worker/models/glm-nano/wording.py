"""How people ask: careless spelling, and names of things, half of them made up."""

from collections.abc import Sequence
from random import Random

import phrases


def careless(rng: Random, phrase: str) -> str:
    """Return the phrase as some people type it: lower case, no final mark, a word of politeness. Slots stay."""
    if rng.random() < 0.25:
        phrase = phrase.lower()
    if rng.random() < 0.3:
        phrase = phrase.rstrip("?.!")
    elif rng.random() < 0.06:
        phrase += rng.choice((" Thanks!", " Please.", " Thank you."))
    if rng.random() < 0.08:
        phrase = rng.choice(("Hi! ", "Hey! ", "Hello! ", "Ok. ", "Good. ", "Thanks! ", "Next: ", "One more: ")) + phrase
    return phrase


def ask(rng: Random, templates: Sequence[str], **slots: object) -> str:
    return careless(rng, rng.choice(templates)).format(**slots)


def draw_topic(rng: Random) -> str:
    return rng.choice(phrases.TOPICS) if rng.random() < 0.6 else pseudoword(rng).lower()


def pseudoword(rng: Random) -> str:
    return "".join(rng.choices(phrases.SYLLABLES, k=rng.choice((2, 2, 3, 3, 4)))).capitalize()


def draw_city(rng: Random) -> str:
    """Return a city; half are made up, so that the name must be copied and cannot be known by heart."""
    kind = rng.random()
    if kind < 0.25:
        return rng.choice(list(phrases.CAPITALS.values()))
    if kind < 0.45:
        return rng.choice(phrases.CITIES)
    if kind < 0.55:
        return rng.choice(list(phrases.CAPITALS.values())).lower()
    word = pseudoword(rng)
    return word if rng.random() < 0.85 else f"{rng.choice(('New', 'Port', 'San', 'Bad', 'Lake'))} {word}"
