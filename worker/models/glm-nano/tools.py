"""The tasks with tools: calls, answers from their results, and which tools are offered."""

import json
from collections.abc import Mapping
from random import Random

import phrases
from arithmetic import evaluate_expression
from client_style import ClientStyle
from exchange import Exchange, assistant, user
from prompt import Message, Tool
from wording import careless, draw_city


def call(name: str, arguments: dict[str, str]) -> Message:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def tool_call(rng: Random) -> Exchange:
    exchange = tool_answer(rng)
    return Exchange(exchange.keys[:1], exchange.messages[:2], exchange.needs)


def tool_answer(rng: Random) -> Exchange:
    return _weather(rng) if rng.random() < 0.55 else _calculator(rng)


def _weather(rng: Random) -> Exchange:
    cities = [draw_city(rng)]
    if rng.random() < 0.08:
        cities.append(draw_city(rng))
    phrase = rng.choice(phrases.WEATHER_QUESTIONS)
    question = careless(rng, phrase).format(city=" and ".join(cities))
    calls = [call("get_weather", {"city": city}) for city in cities]
    results, sentences = zip(*(weather_result(rng, city) for city in cities), strict=True)
    thought = f"I need the weather in {' and '.join(cities)}."
    messages: list[Message] = [
        user(question),
        {"role": "assistant", "reasoning_content": thought, "content": "", "tool_calls": calls},
        *({"role": "tool", "content": result} for result in results),
        assistant("I have the weather.", " ".join(sentences)),
    ]
    asked = " and ".join(cities)
    keys = (f"weather {phrase} {asked}", f"weather result {' '.join(sentences)}")
    return Exchange(keys, tuple(messages), frozenset({"get_weather"}))


def weather_result(rng: Random, city: str) -> tuple[str, str]:
    """Return what the tool says and the sentence that tells it to the user."""
    if rng.random() < 0.06:
        failure = rng.choice(phrases.WEATHER_FAILURES)
        result = dump(rng, {"error": failure}) if rng.random() < 0.7 else f"error: {failure}"
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
        result = dump(rng, dict(fields))
    return result, f"In {city} it is {temperature} °C, {condition}."


def dump(rng: Random, value: Mapping[str, object]) -> str:
    separators = (",", ":") if rng.random() < 0.4 else (", ", ": ")
    return json.dumps(value, ensure_ascii=False, separators=separators)


def _calculator(rng: Random) -> Exchange:
    expression, result = _expression(rng)
    phrase = rng.choice(phrases.CALCULATOR_QUESTIONS if rng.random() < 0.35 else phrases.EXPRESSION_QUESTIONS)
    written = expression if rng.random() < 0.5 else expression.replace(" ", "")
    question = careless(rng, phrase).format(expression=written)
    thought = f"I use the calculator for {expression}."
    text = calculator_text(rng, expression, result)
    messages: list[Message] = [
        user(question),
        {
            "role": "assistant",
            "reasoning_content": thought,
            "content": "",
            "tool_calls": [call("calculator", {"expression": expression})],
        },
        {"role": "tool", "content": text},
        assistant("I have the result.", f"{expression} = {result}"),
    ]
    keys = (f"expression {expression}", f"result {expression} = {result}")
    return Exchange(keys, tuple(messages), frozenset({"calculator"}))


def calculator_text(rng: Random, expression: str, result: int | float) -> str:
    """Return what the calculator says."""
    if rng.random() < 0.75:
        fields: dict[str, str | int | float] = {rng.choice(("result", "result", "result", "value")): result}
        if rng.random() < 0.25:
            fields["expression"] = expression
        items = list(fields.items())
        rng.shuffle(items)
        return dump(rng, dict(items))
    return rng.choice(("{r}", "{r}", "result: {r}", "{e} = {r}")).format(r=result, e=expression)


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
        return f"{a} / {b}", shortest(a / b)
    if kind < 0.8:
        a, b, c = rng.randint(1, 99), rng.randint(1, 99), rng.randint(2, 12)
        return f"({a} + {b}) * {c}", (a + b) * c
    if kind < 0.9:
        a, b, c = rng.randint(1, 999), rng.randint(1, 999), rng.randint(1, 999)
        return f"{a} + {b} - {c}", a + b - c
    x, c = rng.randint(1, 999) / 10, rng.randint(2, 20)
    return f"{x} * {c}", shortest(x * c)


def shortest(value: float) -> int | float:
    return int(value) if value == int(value) else round(value, 2)


def draw_tools(
    rng: Random, needs: frozenset[str], avoids: frozenset[str], *, as_clients_send: bool = False
) -> tuple[Tool, ...]:
    """Return the tools offered: those needed, and some that are not, so that offering one is not asking for it.

    as_clients_send: with what client libraries make of a function (titles, docstrings), and more often both tools.
    """
    names = set(needs)
    if needs or rng.random() < 0.15:
        for name in ("get_weather", "calculator"):
            if name not in avoids and rng.random() < (0.5 if as_clients_send else 0.3 if needs else 0.6):
                names.add(name)
        if rng.random() < 0.08:
            names.add(rng.choice(phrases.OTHER_TOOLS)[0])
    ordered = sorted(names)
    rng.shuffle(ordered)
    tools = [_tool(rng, name) for name in ordered]
    if as_clients_send and rng.random() < 0.5:
        style = ClientStyle.draw(rng)
        tools = [style.rewrite(tool) for tool in tools]
    return tuple(tools)


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
