"""What an answer must look like, as a surface understood its request. No vendor's words, nothing of xgrammar.

A `param` is the field's name on the surface; refusals name it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class AnyText:
    """Whatever the model says."""


@dataclass(frozen=True)
class JsonObject:
    """One JSON object, whatever it holds."""


@dataclass(frozen=True)
class JsonSchema:
    """One JSON text that validates against a schema, strict or not: what cannot be kept is refused by name.

    schema: decoded JSON, any value; it is checked here.
    """

    schema: object
    param: str = field(compare=False)


@dataclass(frozen=True)
class Regex:
    """A text that a regular expression matches as a whole."""

    pattern: str
    param: str = field(compare=False)


@dataclass(frozen=True)
class Choice:
    """One of these texts."""

    options: tuple[str, ...]
    param: str = field(compare=False)


Content = AnyText | JsonObject | JsonSchema | Regex | Choice


@dataclass(frozen=True)
class Function:
    """A function on offer. parameters: its JSON schema; None or empty: it takes none.

    is_strict: a call of it has arguments that validate, or the schema is refused. Otherwise they follow the schema
    where it can be followed.
    """

    name: str
    parameters: Mapping[str, Any] | None
    param: str = field(compare=False)
    is_strict: bool = False


@dataclass(frozen=True)
class Calls:
    """Calls of functions in the GLM format, or content where none is required.

    is_required: at least one call and no content. named: exactly one call, of this function. is_parallel: whether
    there may be more than one. content: what the answer is when it has no call.
    """

    functions: tuple[Function, ...]
    is_required: bool = False
    named: str | None = None
    is_parallel: bool = True
    content: Content = AnyText()


AnswerFormat = Content | Calls
