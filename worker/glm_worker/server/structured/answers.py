"""From what an answer must look like to the recipe of its grammar."""

from collections.abc import Iterator
from contextlib import contextmanager

from glm_worker.errors import RequestRefused
from glm_worker.server.structured.calls import ANY_TEXT, NEWLINE, CallRules, CallTokens
from glm_worker.server.structured.formats import (
    AnswerFormat,
    AnyText,
    Calls,
    Choice,
    Content,
    Function,
    JsonObject,
    JsonSchema,
    Regex,
)
from glm_worker.server.structured.lark import ANY_DEPTH, JsonRules, Rules, any_object, any_value, literal, one_of
from glm_worker.server.structured.patterns import ebnf
from glm_worker.server.structured.patterns.expressions import pattern_of
from glm_worker.server.structured.recipe import EbnfPart, Recipe
from glm_worker.server.structured.refused import Invalid, Refused, TooLarge
from glm_worker.server.structured.schemas.reading import read_schema

MAX_OPTIONS = 1_000
MAX_OPTION_TEXT = 64 * 2**10  # characters of all options together


def recipe_of(answer: AnswerFormat, tokens: CallTokens, *, begins_line: bool = True) -> Recipe | None:
    """Return the grammar to compile; None where every text will do, and nothing is to be compiled.

    begins_line: the answer may begin with the newline that chat templates put before one. A regular expression and a
    choice say what it is from its first character on, so theirs has none. Pure; any thread. Raises RequestRefused, with
    the param that the part has which is wrong.
    """
    rules = Rules()
    newline = f"{NEWLINE} " if begins_line else ""
    match answer:
        case AnyText():
            return None
        case Calls():
            return _calls(answer, rules, tokens, newline)
        case _:
            return rules.recipe(
                _content(answer, rules, newline), "" if isinstance(answer, JsonObject) else answer.param
            )


def _calls(calls: Calls, rules: Rules, tokens: CallTokens, newline: str) -> Recipe | None:
    functions = calls.functions
    if calls.named is not None:
        functions = tuple(function for function in functions if function.name == calls.named)
    is_required = calls.is_required or calls.named is not None
    if is_required and not functions:
        raise RequestRefused("a call is required, and no function to call is given", code="invalid_value")
    is_bound = is_required or not calls.is_parallel or any(function.is_strict for function in functions)
    if not functions or (not is_bound and isinstance(calls.content, AnyText)):
        return (
            None if isinstance(calls.content, AnyText) else recipe_of(calls.content, tokens, begins_line=bool(newline))
        )
    if not tokens.has_calls:
        raise RequestRefused("this model has no tokens for tool calls", param=functions[0].param)
    call = _call(functions, rules, tokens)
    if calls.is_parallel and calls.named is None:
        call = f"{call} ({NEWLINE} {call})*"
    param = functions[0].param
    if is_required:
        return rules.recipe(f"{newline}{call}", param)
    if isinstance(calls.content, AnyText):
        return rules.recipe(f"{ANY_TEXT} ({call})?", param)
    return rules.recipe(f"{_content(calls.content, rules, newline)} | {newline}{call}", param)


def _call(functions: tuple[Function, ...], rules: Rules, tokens: CallTokens) -> str:
    call_rules = CallRules(rules, tokens)
    bodies = []
    for function in functions:
        with _naming(function.param):
            bodies.append(call_rules.body(function))
    return call_rules.one_of(bodies)


def _content(content: Content, rules: Rules, newline: str) -> str:
    """Return the rule of an answer without calls. newline: what may come before JSON."""
    match content:
        case AnyText():
            return ANY_TEXT
        case JsonObject():
            return newline + rules.rule(any_object(rules, any_value(rules, ANY_DEPTH - 1)))
        case JsonSchema(schema, param):
            with _naming(param):
                document = read_schema(schema)
                return newline + JsonRules(document, rules).rule(document.root)
        case Regex(source, param):
            with _naming(param):
                pattern = pattern_of(source, is_searched=False)
                return rules.part(EbnfPart(ebnf.grammar_of(pattern, in_json=False)))
        case Choice(options, param):
            with _naming(param):
                return _choice(options)


def _choice(options: tuple[str, ...]) -> str:
    if not options:
        raise Invalid("there must be something to choose from")
    if len(options) > MAX_OPTIONS:
        raise TooLarge(f"{len(options)} texts to choose from; at most {MAX_OPTIONS} are allowed")
    if sum(map(len, options)) > MAX_OPTION_TEXT:
        raise TooLarge(f"the texts to choose from have more than {MAX_OPTION_TEXT} characters together")
    return one_of(map(literal, options))


@contextmanager
def _naming(param: str) -> Iterator[None]:
    """Refuse the request for what is refused inside, by the field's name on the surface."""
    try:
        yield
    except Refused as error:
        raise RequestRefused(f"{param}: {error.message}", param=param, code=error.code) from error
