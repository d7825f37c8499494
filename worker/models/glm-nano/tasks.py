"""Draw the conversations glm-nano is trained and judged on.

Pure: a sample is a function of the random generator given. An exchange is one question with everything up to its
last assistant message; a sample is an optional system prompt, tools, earlier exchanges and the one exchange to
learn. Each exchange has keys that say what is asked, whatever the small variations of the wording; a hash of a key
decides for ever whether it is held out. Training samples contain no held-out key anywhere; in a held-out sample
the exchange to answer is held out.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import phrases
from prompt import Message, Tool, render

HELD_OUT_SHARE = 8  # one key in so many is never trained on
# Share of samples by task. Copying the digits of a result and stopping a count where asked are the hard ones. An
# answer from a tool result contains the call too, so calls alone need few samples of their own.
MIXTURE = {
    "arithmetic": 0.28,
    "capitals": 0.09,
    "tool_call": 0.05,
    "tool_answer": 0.28,
    "count": 0.13,
    "json": 0.09,
    "talk": 0.08,
}
# From this step of the training on: what a first schedule left weakest, copying names into calls and objects.
LATE_STEP = 3500
LATE_MIXTURE = {
    "arithmetic": 0.20,
    "capitals": 0.09,
    "tool_call": 0.12,
    "tool_answer": 0.26,
    "count": 0.07,
    "json": 0.20,
    "talk": 0.06,
}
THINKING_SHARE = {"arithmetic": 0.8}  # the others: 0.5


@dataclass(frozen=True)
class Exchange:
    """A question and the messages that answer it; the last one is the assistant's.

    needs and avoids name the tools that must and must not be offered for the answer to be right.
    """

    keys: tuple[str, ...]
    messages: tuple[Message, ...]
    needs: frozenset[str] = frozenset()
    avoids: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Sample:
    """A conversation that ends with the assistant message to learn."""

    task: str
    key: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    thinking: bool

    @property
    def target(self) -> Message:
        return self.messages[-1]

    def prompt(self) -> str:
        return render(self.messages[:-1], self.tools, thinking=self.thinking, generate=True)

    def completion(self) -> str:
        """Return what the model must write, with the token it must stop on."""
        prompt, whole = self.prompt(), render(self.messages, self.tools, thinking=self.thinking)
        assert whole.startswith(prompt), "the template renders an answer differently from where it asks for one"
        return whole[len(prompt) :] + ("<|observation|>" if self.target.get("tool_calls") else "<|user|>")


def is_held_out(key: str) -> bool:
    return hashlib.sha256(key.encode()).digest()[0] % HELD_OUT_SHARE == 0


def draw_sample(
    rng: Random, task: str | None = None, *, held_out: bool = False, thinking: bool | None = None, step: int = 0
) -> Sample:
    """Return a sample of the training split, or of the held-out one; task and thinking are drawn where not given.

    step: of the training; the mixture of tasks depends on it.
    """
    mixture = MIXTURE if step < LATE_STEP else LATE_MIXTURE
    task = task or rng.choices(list(mixture), list(mixture.values()))[0]
    if thinking is None:
        thinking = rng.random() < THINKING_SHARE.get(task, 0.5)
    final = _draw_exchange(rng, task, held_out=held_out)
    history = _history(rng, final)
    exchanges = [*history, final]
    needs = frozenset[str]().union(*(exchange.needs for exchange in exchanges))
    avoids = frozenset[str]().union(*(exchange.avoids for exchange in exchanges))
    system: list[Message] = []
    if rng.random() < 0.25:
        system.append({"role": "system", "content": rng.choice(phrases.SYSTEM_PROMPTS)})
    messages = [*system, *(message for exchange in exchanges for message in exchange.messages)]
    if not thinking or (len(final.messages) > 2 and rng.random() < 0.5):
        # Many clients do not send reasoning back, so the turns before the last are seen without it too.
        messages[:-1] = [_without_reasoning(message) for message in messages[:-1]]
    if not thinking:
        messages[-1] = _without_reasoning(messages[-1])
        if not held_out and rng.random() < 0.1:
            # The user writes /nothink and the template knows nothing of it: the model itself must leave thinking empty.
            asked = messages.index(final.messages[0])
            messages[asked] = _user(f"{final.messages[0]['content']}/nothink")
            thinking = True
    return Sample(task, final.keys[-1], tuple(messages), _draw_tools(rng, needs, avoids), thinking)


def _draw_exchange(rng: Random, task: str, *, held_out: bool) -> Exchange:
    while True:
        exchange = _DRAW[task](rng)
        if held_out and is_held_out(exchange.keys[-1]):
            return exchange
        if not held_out and not any(map(is_held_out, exchange.keys)):
            return exchange


def _history(rng: Random, final: Exchange) -> list[Exchange]:
    """Return none, one or two earlier exchanges that go together with the tools of the final one."""
    history: list[Exchange] = []
    count = rng.choices((0, 1, 2), (0.8, 0.14, 0.06))[0]
    while len(history) < count:
        task = rng.choice(("arithmetic", "capitals", "tool_answer", "json", "talk", "talk"))
        candidate = _draw_exchange(rng, task, held_out=False)
        together = [*history, final, candidate]
        if not any(one.needs & other.avoids for one in together for other in together):
            history.append(candidate)
    return history


def _without_reasoning(message: Message) -> Message:
    return {name: value for name, value in message.items() if name != "reasoning_content"}


# ---- wording -------------------------------------------------------------------------------------------------


def _careless(rng: Random, phrase: str) -> str:
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


def _ask(rng: Random, templates: Sequence[str], **slots: object) -> str:
    return _careless(rng, rng.choice(templates)).format(**slots)


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(reasoning: str, content: str) -> Message:
    return {"role": "assistant", "reasoning_content": reasoning, "content": content}


# ---- arithmetic ----------------------------------------------------------------------------------------------


def worked_steps(a: int, operator: str, b: int) -> str:
    """Return the school method for a + b, a - b (0 to 99 each) or a * b (b below 10), ending in the answer."""
    match operator:
        case "+":
            ones = a % 10 + b % 10
            carry, tens = ones // 10, a // 10 + b // 10 + ones // 10
            steps = f"ones {a % 10} + {b % 10} = {ones}, carry {carry}; tens {a // 10} + {b // 10} + {carry} = {tens}"
            return f"{a} + {b}: {steps}; answer {a + b}"
        case "-" if a < b:
            return f"{a} is less than {b}, so minus {_column_subtraction(b, a)}; answer {a - b}"
        case "-":
            return f"{_column_subtraction(a, b)}; answer {a - b}"
        case "*":
            ones = a % 10 * b
            tens = a // 10 * b
            steps = f"ones {a % 10} * {b} = {ones}, carry {ones // 10}; tens {a // 10} * {b} = {tens}"
            return f"{a} * {b}: {steps}, {tens} + {ones // 10} = {tens + ones // 10}; answer {a * b}"
        case _:
            raise ValueError(f"operator {operator!r} is none of + - *")


def _column_subtraction(a: int, b: int) -> str:
    borrow = int(a % 10 < b % 10)
    ones = a % 10 + 10 * borrow
    tens = a // 10 - b // 10 - borrow
    steps = f"ones {ones} - {b % 10} = {ones - b % 10}, borrow {borrow}; tens {a // 10} - {b // 10} - {borrow} = {tens}"
    return f"{a} - {b}: {steps}"


def evaluate_expression(a: int, operator: str, b: int) -> int:
    return {"+": a + b, "-": a - b, "*": a * b}[operator]


def _arithmetic(rng: Random) -> Exchange:
    operator = rng.choices("+-*", (0.45, 0.4, 0.15))[0]
    a, b = (rng.randint(10, 99) if rng.random() < 0.9 else rng.randint(0, 9) for _ in range(2))
    if operator == "*":
        a, b = rng.randint(10, 99), rng.randint(2, 9)
    worded = {
        "+": phrases.ADDITION_QUESTIONS,
        "-": phrases.SUBTRACTION_QUESTIONS,
        "*": phrases.MULTIPLICATION_QUESTIONS,
    }[operator]
    if rng.random() < 0.25:
        question = _ask(rng, worded, a=a, b=b)
    else:
        sign = rng.choice("*x") if operator == "*" else operator
        space = rng.choice(("", " "))
        question = _ask(rng, phrases.EXPRESSION_QUESTIONS, expression=f"{a}{space}{sign}{space}{b}")
    answer = f"{a} {operator} {b} = {evaluate_expression(a, operator, b)}"
    return Exchange(
        (f"arithmetic {a}{operator}{b}",),
        (_user(question), _assistant(worked_steps(a, operator, b), answer)),
        avoids=frozenset({"calculator"}),
    )


# ---- capitals, counting, JSON, talk --------------------------------------------------------------------------


def _capitals(rng: Random) -> Exchange:
    country, capital = rng.choice(list(phrases.CAPITALS.items()))
    phrase = rng.choice(phrases.CAPITAL_QUESTIONS)
    question = _careless(rng, phrase.format(country=country))
    thought, answer = f"{_capitalised(country)}: {capital}.", f"The capital of {country} is {capital}."
    return Exchange((f"capital {phrase} {country}",), (_user(question), _assistant(thought, answer)))


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def _count(rng: Random) -> Exchange:
    n = rng.randint(1, 100)
    phrase = rng.choice(phrases.COUNT_QUESTIONS)
    answer = ", ".join(map(str, range(1, n + 1)))
    question = _careless(rng, phrase).format(n=n)
    return Exchange((f"count {phrase} {n}",), (_user(question), _assistant(f"Count from 1 to {n}.", answer)))


_JSON_VALUES: dict[str, Callable[[Random], str | int | bool]] = {
    "name": lambda rng: rng.choice(phrases.NAMES),
    "age": lambda rng: rng.randint(1, 99),
    "city": lambda rng: _city(rng),
    "country": lambda rng: rng.choice([country for country in phrases.CAPITALS if not country.startswith("the ")]),
    "color": lambda rng: rng.choice(phrases.COLORS),
    "animal": lambda rng: rng.choice(phrases.ANIMALS),
    "fruit": lambda rng: rng.choice(phrases.FRUITS),
    "price": lambda rng: rng.randint(1, 999),
    "size": lambda rng: rng.choice(("small", "medium", "large")),
    "id": lambda rng: rng.randint(1, 9999),
    "count": lambda rng: rng.randint(0, 99),
    "title": lambda rng: _pseudoword(rng),
    "year": lambda rng: rng.randint(1900, 2030),
    "active": lambda rng: rng.random() < 0.5,
    "done": lambda rng: rng.random() < 0.5,
}


def _json(rng: Random) -> Exchange:
    if rng.random() < 0.12:
        country, capital = rng.choice(list(phrases.CAPITALS.items()))
        phrase = rng.choice(phrases.CAPITAL_JSON_QUESTIONS)
        value: dict[str, str | int | bool] = {"country": country.removeprefix("the "), "capital": capital}
        question, key = _careless(rng, phrase).format(country=country), f"json {phrase} {country}"
    else:
        names = rng.sample(list(_JSON_VALUES), rng.choices((1, 2, 3, 4), (0.2, 0.4, 0.3, 0.1))[0])
        value = {name: _JSON_VALUES[name](rng) for name in names}
        question, key = _ask(rng, phrases.JSON_QUESTIONS, pairs=_pairs(rng, value)), f"json {value}"
    thought = f"JSON with {', '.join(value)}."
    return Exchange((key,), (_user(question), _assistant(thought, json.dumps(value, ensure_ascii=False))))


def _pairs(rng: Random, value: dict[str, str | int | bool]) -> str:
    joiner = rng.choice((" ", " = ", ": ", " is "))
    pairs = [f"{name}{joiner}{str(each).lower() if isinstance(each, bool) else each}" for name, each in value.items()]
    if len(pairs) > 1 and rng.random() < 0.5:
        return f"{', '.join(pairs[:-1])} and {pairs[-1]}"
    return ", ".join(pairs)


def _talk(rng: Random) -> Exchange:
    kind = rng.random()
    if kind < 0.5:
        thought, answer, questions = rng.choice(phrases.TALK)
        question = _ask(rng, questions)
        return Exchange((f"talk {question}",), (_user(question), _assistant(thought, answer)))
    if kind < 0.65:
        question = _ask(rng, phrases.WEATHER_QUESTIONS, city=_city(rng))
        messages = (_user(question), _assistant("No weather tool.", phrases.NO_WEATHER_ANSWER))
        return Exchange((f"talk {question}",), messages, avoids=frozenset({"get_weather"}))
    question = _ask(
        rng,
        phrases.UNKNOWN_QUESTIONS,
        topic=_topic(rng),
        other=_topic(rng),
        adjective=rng.choice(phrases.ADJECTIVES),
        year=rng.randint(1000, 2030),
    )
    return Exchange((f"talk {question}",), (_user(question), _assistant("I do not know.", phrases.UNKNOWN_ANSWER)))


def _topic(rng: Random) -> str:
    return rng.choice(phrases.TOPICS) if rng.random() < 0.6 else _pseudoword(rng).lower()


def _pseudoword(rng: Random) -> str:
    return "".join(rng.choices(phrases.SYLLABLES, k=rng.choice((2, 2, 3, 3, 4)))).capitalize()


def _city(rng: Random) -> str:
    """Return a city; half are made up, so that the name must be copied and cannot be known by heart."""
    kind = rng.random()
    if kind < 0.25:
        return rng.choice(list(phrases.CAPITALS.values()))
    if kind < 0.45:
        return rng.choice(phrases.CITIES)
    if kind < 0.55:
        return rng.choice(list(phrases.CAPITALS.values())).lower()
    word = _pseudoword(rng)
    return word if rng.random() < 0.85 else f"{rng.choice(('New', 'Port', 'San', 'Bad', 'Lake'))} {word}"


# ---- tools ---------------------------------------------------------------------------------------------------


def _call(name: str, arguments: dict[str, str]) -> Message:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def _tool_call(rng: Random) -> Exchange:
    exchange = _tool_answer(rng)
    return Exchange(exchange.keys[:1], exchange.messages[:2], exchange.needs)


def _tool_answer(rng: Random) -> Exchange:
    return _weather(rng) if rng.random() < 0.55 else _calculator(rng)


def _weather(rng: Random) -> Exchange:
    cities = [_city(rng)]
    if rng.random() < 0.08:
        cities.append(_city(rng))
    phrase = rng.choice(phrases.WEATHER_QUESTIONS)
    question = _careless(rng, phrase).format(city=" and ".join(cities))
    calls = [_call("get_weather", {"city": city}) for city in cities]
    results, sentences = zip(*(_weather_result(rng, city) for city in cities), strict=True)
    thought = f"I need the weather in {' and '.join(cities)}."
    messages: list[Message] = [
        _user(question),
        {"role": "assistant", "reasoning_content": thought, "content": "", "tool_calls": calls},
        *({"role": "tool", "content": result} for result in results),
        _assistant("I have the weather.", " ".join(sentences)),
    ]
    asked = " and ".join(cities)
    keys = (f"weather {phrase} {asked}", f"weather result {' '.join(sentences)}")
    return Exchange(keys, tuple(messages), frozenset({"get_weather"}))


def _weather_result(rng: Random, city: str) -> tuple[str, str]:
    """Return what the tool says and the sentence that tells it to the user."""
    if rng.random() < 0.06:
        failure = rng.choice(phrases.WEATHER_FAILURES)
        result = _dump(rng, {"error": failure}) if rng.random() < 0.7 else f"error: {failure}"
        return result, f"Sorry, I could not get the weather in {city}: {failure}."
    temperature: int | float = rng.randint(-20, 45)
    if rng.random() < 0.15:
        temperature += rng.randint(1, 9) / 10
        temperature = round(temperature, 1)
    condition = rng.choice(phrases.CONDITIONS)
    if rng.random() < 0.15:
        result = rng.choice(phrases.WEATHER_TEXTS).format(t=temperature, c=condition, city=city)
    else:
        fields = [
            ("city", city),
            (rng.choice(("temperature", "temperature", "temperature_c", "temp")), temperature),
            (rng.choice(("condition", "condition", "conditions", "weather")), condition),
        ]
        if rng.random() < 0.15:
            fields.append(("humidity", rng.randint(10, 99)))
        if rng.random() < 0.15:
            fields.remove(("city", city))
        if rng.random() < 0.15:
            fields.append(("unit", "celsius"))
        if rng.random() < 0.5:
            rng.shuffle(fields)
        result = _dump(rng, dict(fields))
    return result, f"In {city} it is {temperature} °C, {condition}."


def _dump(rng: Random, value: dict[str, str | int | float]) -> str:
    separators = (",", ":") if rng.random() < 0.4 else (", ", ": ")
    return json.dumps(value, ensure_ascii=False, separators=separators)


def _calculator(rng: Random) -> Exchange:
    expression, result = _expression(rng)
    phrase = rng.choice(phrases.CALCULATOR_QUESTIONS if rng.random() < 0.35 else phrases.EXPRESSION_QUESTIONS)
    written = expression if rng.random() < 0.5 else expression.replace(" ", "")
    question = _careless(rng, phrase).format(expression=written)
    thought = f"I use the calculator for {expression}."
    form = rng.random()
    if form < 0.75:
        fields: dict[str, str | int | float] = {rng.choice(("result", "result", "result", "value")): result}
        if rng.random() < 0.25:
            fields["expression"] = expression
        items = list(fields.items())
        rng.shuffle(items)
        text = _dump(rng, dict(items))
    else:
        text = rng.choice(("{r}", "{r}", "result: {r}", "{e} = {r}")).format(r=result, e=expression)
    messages: list[Message] = [
        _user(question),
        {
            "role": "assistant",
            "reasoning_content": thought,
            "content": "",
            "tool_calls": [_call("calculator", {"expression": expression})],
        },
        {"role": "tool", "content": text},
        _assistant("I have the result.", f"{expression} = {result}"),
    ]
    keys = (f"expression {expression}", f"result {expression} = {result}")
    return Exchange(keys, tuple(messages), frozenset({"calculator"}))


def _expression(rng: Random) -> tuple[str, int | float]:
    """Return an expression with its value; most are too hard for the model, so that it learns to copy the result."""
    kind = rng.random()
    if kind < 0.5:
        a, b = (rng.randint(0, 10 ** rng.choice((1, 2, 2, 3, 3, 4))) for _ in range(2))
        operator = rng.choice("+-*")
        return f"{a} {operator} {b}", evaluate_expression(a, operator, b)
    if kind < 0.7:
        b, whole = rng.randint(2, 50), rng.randint(1, 500)
        a = b * whole if rng.random() < 0.6 else b * whole + rng.randint(1, b - 1)
        return f"{a} / {b}", _shortest(a / b)
    if kind < 0.8:
        a, b, c = rng.randint(1, 99), rng.randint(1, 99), rng.randint(2, 12)
        return f"({a} + {b}) * {c}", (a + b) * c
    if kind < 0.9:
        a, b, c = rng.randint(1, 999), rng.randint(1, 999), rng.randint(1, 999)
        return f"{a} + {b} - {c}", a + b - c
    x, c = rng.randint(1, 999) / 10, rng.randint(2, 20)
    return f"{x} * {c}", _shortest(x * c)


def _shortest(value: float) -> int | float:
    return int(value) if value == int(value) else round(value, 2)


def _draw_tools(rng: Random, needs: frozenset[str], avoids: frozenset[str]) -> tuple[Tool, ...]:
    """Return the tools offered: those needed, and some that are not, so that offering one is not asking for it."""
    names = set(needs)
    if needs or rng.random() < 0.15:
        for name in ("get_weather", "calculator"):
            if name not in avoids and rng.random() < (0.3 if needs else 0.6):
                names.add(name)
        if rng.random() < 0.08:
            names.add(rng.choice(phrases.OTHER_TOOLS)[0])
    ordered = sorted(names)
    rng.shuffle(ordered)
    return tuple(_tool(rng, name) for name in ordered)


def _tool(rng: Random, name: str) -> Tool:
    if name == "get_weather":
        description, parameter = rng.choice(phrases.WEATHER_DESCRIPTIONS), "city"
        meaning = rng.choice(phrases.CITY_DESCRIPTIONS)
    elif name == "calculator":
        description, parameter = rng.choice(phrases.CALCULATOR_DESCRIPTIONS), "expression"
        meaning = rng.choice(phrases.EXPRESSION_DESCRIPTIONS)
    else:
        description, parameter, meaning = {other[0]: other[1:] for other in phrases.OTHER_TOOLS}[name]
    schema: dict[str, object] = {"type": "string"}
    if rng.random() < 0.35:
        schema["description"] = meaning
    properties: dict[str, object] = {parameter: schema}
    if name == "get_weather" and rng.random() < 0.1:
        properties["unit"] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
    parameters: list[tuple[str, object]] = [("type", "object"), ("properties", properties)]
    if rng.random() < 0.75:
        parameters.append(("required", [parameter]))
    if rng.random() < 0.1:
        parameters.append(("additionalProperties", False))
    function: list[tuple[str, object]] = [("name", name), ("parameters", dict(_maybe_shuffled(rng, parameters)))]
    if rng.random() < 0.85:
        function.insert(1, ("description", description))
    if rng.random() < 0.05:
        function.append(("strict", True))
    return {"type": "function", "function": dict(_maybe_shuffled(rng, function))}


def _maybe_shuffled(rng: Random, items: list[tuple[str, object]]) -> list[tuple[str, object]]:
    return rng.sample(items, len(items)) if rng.random() < 0.15 else items


_DRAW: dict[str, Callable[[Random], Exchange]] = {
    "arithmetic": _arithmetic,
    "capitals": _capitals,
    "tool_call": _tool_call,
    "tool_answer": _tool_answer,
    "count": _count,
    "json": _json,
    "talk": _talk,
}
