"""The task with steps worked out: two numbers, one operator."""

from random import Random

import phrases
from exchange import Exchange, assistant, user
from wording import ask


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


def arithmetic(rng: Random) -> Exchange:
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
        question = ask(rng, worded, a=a, b=b)
    else:
        sign = rng.choice("*x") if operator == "*" else operator
        space = rng.choice(("", " "))
        question = ask(rng, phrases.EXPRESSION_QUESTIONS, expression=f"{a}{space}{sign}{space}{b}")
    answer = f"{a} {operator} {b} = {evaluate_expression(a, operator, b)}"
    return Exchange(
        (f"arithmetic {a}{operator}{b}",),
        (user(question), assistant(worked_steps(a, operator, b), answer)),
        avoids=frozenset({"calculator"}),
    )
