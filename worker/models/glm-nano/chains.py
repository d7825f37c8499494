"""The task of two steps: what one tool gives goes into the next call, or two questions come in one message.

A chain ends early where a tool fails: the failure is told and nothing more is called.
"""

import ast
from collections.abc import Callable
from random import Random

import phrases
from exchange import Exchange, assistant, user
from prompt import Message
from tools import calculator_text, call, dump, shortest, weather_result
from wording import careless, draw_city

FAILURE_SHARE = 0.08  # of results
CUTS = (0.2, 0.35, 0.45)  # share of samples that end at the first call, at the second one, at the answer


def chain(rng: Random) -> Exchange:
    """Return a chain up to one of its assistant messages."""
    whole = whole_chain(rng)
    ends = [index for index, message in enumerate(whole.messages) if message["role"] == "assistant"]
    end = rng.choices(ends, CUTS[-len(ends) :])[0]
    return Exchange(whole.keys, whole.messages[: end + 1], whole.needs)


def whole_chain(rng: Random) -> Exchange:
    """Return a chain up to its answer. It is held out by its question, so that every step of it is unseen."""
    kind = rng.random()
    if kind < 0.55:
        return _temperature_in_a_sum(rng)
    if kind < 0.78:
        return _two_temperatures(rng)
    return _two_questions(rng)


def _temperature_in_a_sum(rng: Random) -> Exchange:
    city, term = draw_city(rng), _term(rng)
    if rng.random() < 0.75:
        body, expression = rng.choice(phrases.CHAIN_TERMS if rng.random() < 0.75 else phrases.CHAIN_FACTORS)
        template = _opened(rng, body)
    else:
        template, expression = rng.choice(phrases.CHAIN_COMMANDS)
    plain = rng.random() < 0.5
    temperature = phrases.CHAIN_TEMPERATURES[0] if plain else rng.choice(phrases.CHAIN_TEMPERATURES)
    template = template.replace("{temperature}", temperature)
    number = str(rng.randint(2, 99))
    question = _careless(rng, template).format(e=_written(rng, term), n=number, city=city)
    (outcome, temperature) = _outcome(rng, city)
    expression = expression.format(e=term, n=number, t=temperature)
    key = f"chain {template} {term} {number} {city}"
    return _weather_then_calculator(rng, key, question, [city], [outcome], expression)


def _two_temperatures(rng: Random) -> Exchange:
    first, second = draw_city(rng), draw_city(rng)
    template, expression = _pair(rng)
    question = _careless(rng, template).format(a=first, b=second)
    (outcome, temperature), (other_outcome, other) = (_outcome(rng, city) for city in (first, second))
    expression = expression.format(t=temperature, u=other)
    key = f"chain {template} {first} {second}"
    return _weather_then_calculator(rng, key, question, [first, second], [outcome, other_outcome], expression)


def one_at_a_time(rng: Random) -> Exchange:
    """Return a question about two cities, of which the client made only the first call: the second one comes next."""
    first, second = draw_city(rng), draw_city(rng)
    if rng.random() < 0.3:
        template = rng.choice(phrases.WEATHER_QUESTIONS)
        question = _careless(rng, template).format(city=f"{first} and {second}")
        (text, sentence), (other_text, other_sentence) = (_told(rng, city) for city in (first, second))
        rest = [assistant("I have the weather.", f"{sentence} {other_sentence}")]
    else:
        template, expression = _pair(rng)
        question = _careless(rng, template).format(a=first, b=second)
        (text, temperature), (other_text, other) = (_read(rng, city) for city in (first, second))
        rest = _calculation(rng, expression.format(t=temperature, u=other))
    messages = [
        user(question),
        _calling(f"I need the weather in {first} and {second}.", call("get_weather", {"city": first})),
        _result(text),
        _calling(f"I need the weather in {second}.", call("get_weather", {"city": second})),
        _result(other_text),
        *rest,
    ]
    ends = [index for index, message in enumerate(messages) if index > 1 and message["role"] == "assistant"]
    key = f"one at a time {template} {first} {second}"
    needs = frozenset({"get_weather"} if len(rest) == 1 else {"get_weather", "calculator"})
    return Exchange((key,), tuple(messages[: rng.choice(ends) + 1]), needs, is_own_course=False)


def _pair(rng: Random) -> tuple[str, str]:
    if rng.random() < 0.75:
        body, expression = rng.choice(phrases.CHAIN_PAIRS)
        return _opened(rng, body), expression
    return rng.choice(phrases.CHAIN_PAIR_COMMANDS)


def _weather_then_calculator(
    rng: Random, key: str, question: str, cities: list[str], outcomes: list[tuple[str, str]], expression: str
) -> Exchange:
    """outcomes: of each city, what the tool says and the sentence that passes a failure on (empty: it worked)."""
    asked = _calling(
        f"I need the weather in {' and '.join(cities)}.", *(call("get_weather", {"city": city}) for city in cities)
    )
    results = [_result(text) for text, _ in outcomes]
    failures = [failure for _, failure in outcomes if failure]
    rest = [assistant("The tool failed.", " ".join(failures))] if failures else _calculation(rng, expression)
    return Exchange((key,), (user(question), asked, *results, *rest), frozenset({"get_weather", "calculator"}))


def _calculation(rng: Random, expression: str) -> list[Message]:
    """Return the call of the calculator, its result and the answer."""
    text, answer = _calculated(rng, expression)
    return [
        _calling(f"I use the calculator for {expression}.", call("calculator", {"expression": expression})),
        _result(text),
        assistant("The tool failed." if answer.startswith("Sorry") else "I have the result.", answer),
    ]


def _two_questions(rng: Random) -> Exchange:
    """One question after the other, in the order in which they are asked."""
    city, term = draw_city(rng), _term(rng)
    if " " not in term:
        term = f"{term} + {rng.randint(1, 999)}"
    calculator_first = rng.random() < 0.5
    template = rng.choice(phrases.CALCULATOR_THEN_WEATHER if calculator_first else phrases.WEATHER_THEN_CALCULATOR)
    question = _careless(rng, template).format(e=_written(rng, term), city=city)
    text, answer = _calculated(rng, term)
    calculator = (
        _calling(f"I use the calculator for {term}.", call("calculator", {"expression": term})), _result(text), answer
    )  # fmt: skip
    text, answer = weather_result(rng, city)
    weather = _calling(f"I need the weather in {city}.", call("get_weather", {"city": city})), _result(text), answer
    steps = (calculator, weather) if calculator_first else (weather, calculator)
    messages, answers = [user(question)], []
    for calling, result, answer in steps:
        messages += [calling, result]
        answers.append(answer)
        if answer.startswith("Sorry"):
            break
    messages.append(
        assistant("The tool failed." if answers[-1].startswith("Sorry") else "I have both.", " ".join(answers))
    )
    return Exchange((f"chain {template} {term} {city}",), tuple(messages), frozenset({"get_weather", "calculator"}))


def _calling(thought: str, *calls: Message) -> Message:
    return {"role": "assistant", "reasoning_content": thought, "content": "", "tool_calls": list(calls)}


def _result(text: str) -> Message:
    return {"role": "tool", "content": text}


def _opened(rng: Random, body: str) -> str:
    opener = rng.choice(phrases.CHAIN_OPENERS)
    if opener.startswith("{x}") and not body.startswith("{"):
        body = body[0].upper() + body[1:]
    return opener.replace("{x}", body)


def _careless(rng: Random, template: str) -> str:
    asked = careless(rng, template)
    return asked + rng.choice(phrases.CHAIN_HINTS) if asked[-1] in "?.!" and rng.random() < 0.12 else asked


def _term(rng: Random) -> str:
    kind = rng.random()
    a, b, c = (rng.randint(0, 10 ** rng.choice((1, 2, 2, 2, 3))) for _ in range(3))
    if kind < 0.62:
        return f"{a} {rng.choices('+-*', (0.6, 0.25, 0.15))[0]} {b}"
    if kind < 0.82:
        return str(a)
    if kind < 0.94:
        return f"{a} {rng.choice('+-')} {b} {rng.choice('+-')} {c}"
    return f"{a}.{rng.randint(1, 9)} + {b}"


def _written(rng: Random, term: str) -> str:
    form = rng.random()
    if form < 0.4:
        return term.replace(" ", "")
    if form < 0.82:
        return term
    if form < 0.88:
        return term.replace("*", "x")
    return term.replace("+", "plus").replace("-", "minus").replace("*", "times")


def _outcome(rng: Random, city: str) -> tuple[tuple[str, str], str]:
    """Return what get_weather says, the sentence that passes a failure on, and the temperature: one of these two."""
    if rng.random() < FAILURE_SHARE:
        failure = rng.choice(phrases.WEATHER_FAILURES)
        return (_failed(rng, failure), f"Sorry, I could not get the weather in {city}: {failure}."), ""
    text, temperature = _read(rng, city)
    return (text, ""), temperature


def _told(rng: Random, city: str) -> tuple[str, str]:
    while True:
        text, sentence = weather_result(rng, city)
        if not sentence.startswith("Sorry"):
            return text, sentence


def _read(rng: Random, city: str) -> tuple[str, str]:
    """Return what get_weather says where only the temperature matters, in more forms than answers need, and that."""
    temperature: int | float = rng.randint(-20, 45)
    if rng.random() < 0.1:
        temperature = round(temperature + rng.randint(0, 9) / 10, 1)
    condition = rng.choice(phrases.CONDITIONS)
    if rng.random() < 0.2:
        text = rng.choice(phrases.TEMPERATURE_TEXTS).format(t=temperature, c=condition, city=city)
        return text, str(temperature)
    value: object = temperature
    form = rng.random()
    if form < 0.08:
        value = rng.choice(("{t} °C", "{t}°C", "{t}", "{t} C")).format(t=temperature)
    elif form < 0.12:
        value = {"value": temperature, "unit": rng.choice(("C", "celsius", "°C"))}
    names = ("temperature", "temperature", "temperature", "temperature_c", "temp", "temp_c", "celsius")
    possible: tuple[tuple[float, tuple[str, ...], object], ...] = (
        (0.85, ("city", "city", "city", "location"), city),
        (1.0, names, value),
        (0.8, ("condition", "condition", "conditions", "weather", "sky"), condition),
        (0.25, ("humidity",), rng.randint(10, 99)),
        (0.15, ("wind", "wind_kmh", "wind_speed"), rng.randint(0, 90)),
        (0.2, ("unit", "units"), rng.choice(("celsius", "C", "°C"))),
    )
    fields = [(rng.choice(ways), each) for share, ways, each in possible if rng.random() < share]
    if rng.random() < 0.4:
        rng.shuffle(fields)
    return dump(rng, dict(fields)), str(temperature)


def _calculated(rng: Random, expression: str) -> tuple[str, str]:
    """Return what the calculator says and the sentence that tells it to the user."""
    if rng.random() < FAILURE_SHARE:
        failure = rng.choice(phrases.CALCULATOR_FAILURES)
        return _failed(rng, failure), f"Sorry, I could not calculate {expression}: {failure}."
    result = shortest(evaluated(expression))
    if rng.random() < 0.12:
        text = rng.choice(phrases.RESULT_TEXTS).format(r=result, e=expression)
    else:
        text = calculator_text(rng, expression, result)
    return text, f"{expression} = {result}"


def evaluated(expression: str) -> float:
    return _value(ast.parse(expression, mode="eval").body)


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=operator, right=right):
            return _OPERATIONS[type(operator)](_value(left), _value(right))
        case _:
            raise ValueError(f"{ast.unparse(node)!r} is no number and none of + - * / with two sides")


_OPERATIONS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


def _failed(rng: Random, failure: str) -> str:
    if rng.random() < 0.6:
        return dump(rng, {"error": failure})
    return rng.choice(("error: {f}", "Error: {f}", "{f}")).format(f=failure)
