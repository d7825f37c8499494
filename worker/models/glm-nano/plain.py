"""The tasks without steps or tools: capitals, counting, JSON on request, talk."""

import json
from collections.abc import Callable
from random import Random

import phrases
from exchange import Exchange, assistant, user
from wording import ask, careless, draw_city, draw_topic, pseudoword


def capitals(rng: Random) -> Exchange:
    country, capital = rng.choice(list(phrases.CAPITALS.items()))
    phrase = rng.choice(phrases.CAPITAL_QUESTIONS)
    question = careless(rng, phrase.format(country=country))
    thought, answer = f"{_capitalised(country)}: {capital}.", f"The capital of {country} is {capital}."
    return Exchange((f"capital {phrase} {country}",), (user(question), assistant(thought, answer)))


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def count(rng: Random) -> Exchange:
    n = rng.randint(1, 100)
    phrase = rng.choice(phrases.COUNT_QUESTIONS)
    answer = ", ".join(map(str, range(1, n + 1)))
    question = careless(rng, phrase).format(n=n)
    return Exchange((f"count {phrase} {n}",), (user(question), assistant(f"Count from 1 to {n}.", answer)))


_JSON_VALUES: dict[str, Callable[[Random], str | int | bool]] = {
    "name": lambda rng: rng.choice(phrases.NAMES),
    "age": lambda rng: rng.randint(1, 99),
    "city": draw_city,
    "country": lambda rng: rng.choice([country for country in phrases.CAPITALS if not country.startswith("the ")]),
    "color": lambda rng: rng.choice(phrases.COLORS),
    "animal": lambda rng: rng.choice(phrases.ANIMALS),
    "fruit": lambda rng: rng.choice(phrases.FRUITS),
    "price": lambda rng: rng.randint(1, 999),
    "size": lambda rng: rng.choice(("small", "medium", "large")),
    "id": lambda rng: rng.randint(1, 9999),
    "count": lambda rng: rng.randint(0, 99),
    "title": pseudoword,
    "year": lambda rng: rng.randint(1900, 2030),
    "active": lambda rng: rng.random() < 0.5,
    "done": lambda rng: rng.random() < 0.5,
}


def json_object(rng: Random) -> Exchange:
    if rng.random() < 0.12:
        country, capital = rng.choice(list(phrases.CAPITALS.items()))
        phrase = rng.choice(phrases.CAPITAL_JSON_QUESTIONS)
        value: dict[str, str | int | bool] = {"country": country.removeprefix("the "), "capital": capital}
        question, key = careless(rng, phrase).format(country=country), f"json {phrase} {country}"
    else:
        names = rng.sample(list(_JSON_VALUES), rng.choices((1, 2, 3, 4), (0.2, 0.4, 0.3, 0.1))[0])
        value = {name: _JSON_VALUES[name](rng) for name in names}
        question, key = ask(rng, phrases.JSON_QUESTIONS, pairs=_pairs(rng, value)), f"json {value}"
    thought = f"JSON with {', '.join(value)}."
    return Exchange((key,), (user(question), assistant(thought, json.dumps(value, ensure_ascii=False))))


def _pairs(rng: Random, value: dict[str, str | int | bool]) -> str:
    joiner = rng.choice((" ", " = ", ": ", " is "))
    pairs = [f"{name}{joiner}{str(each).lower() if isinstance(each, bool) else each}" for name, each in value.items()]
    if len(pairs) > 1 and rng.random() < 0.5:
        return f"{', '.join(pairs[:-1])} and {pairs[-1]}"
    return ", ".join(pairs)


def talk(rng: Random) -> Exchange:
    kind = rng.random()
    if kind < 0.5:
        thought, answer, questions = rng.choice(phrases.TALK)
        question = ask(rng, questions)
        return Exchange((f"talk {question}",), (user(question), assistant(thought, answer)))
    if kind < 0.65:
        question = ask(rng, phrases.WEATHER_QUESTIONS, city=draw_city(rng))
        messages = (user(question), assistant("No weather tool.", phrases.NO_WEATHER_ANSWER))
        return Exchange((f"talk {question}",), messages, avoids=frozenset({"get_weather"}))
    question = ask(
        rng,
        phrases.UNKNOWN_QUESTIONS,
        topic=draw_topic(rng),
        other=draw_topic(rng),
        adjective=rng.choice(phrases.ADJECTIVES),
        year=rng.randint(1000, 2030),
    )
    return Exchange((f"talk {question}",), (user(question), assistant("I do not know.", phrases.UNKNOWN_ANSWER)))
