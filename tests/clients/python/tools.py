"""The two tools of the clients' agent loops, and what the loops are asked."""

import ast
import json
import operator
from collections.abc import Callable

QUESTION = "What is 17+25 plus the temperature in Paris?"
MAX_STEPS = 6
"""Of a loop: a model that calls for ever is found out."""

_TEMPERATURES = {"Paris": 21}
_OPERATIONS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def get_weather(city: str) -> str:
    """Return the weather of a city as JSON."""
    if city not in _TEMPERATURES:
        return json.dumps({"error": f"no weather is known of {city!r}"})
    return json.dumps({"city": city, "temperature": _TEMPERATURES[city], "condition": "sunny"})


def calculator(expression: str) -> str:
    """Return the value of an expression of numbers and + - * / as JSON."""
    try:
        return json.dumps({"result": _value(ast.parse(expression, mode="eval").body)})
    except (SyntaxError, ValueError, ZeroDivisionError) as error:
        return json.dumps({"error": str(error)})


TOOLS: dict[str, Callable[..., str]] = {"get_weather": get_weather, "calculator": calculator}


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _OPERATIONS:
            return _OPERATIONS[type(operation)](_value(left), _value(right))
        case _:
            raise ValueError(f"{ast.unparse(node)!r} is no number and none of + - * / between two")
