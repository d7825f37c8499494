"""How requests say what the answer must look like: OpenAI's response_format, and vLLM's two older and newer ways."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from glm_worker.server.fields import Items, Strict, conflict
from glm_worker.server.openai.bounds import MAX_CHOICE_CHARS, MAX_CHOICES, MAX_REGEX_CHARS
from glm_worker.server.refusals import json_in
from glm_worker.server.structured.formats import AnyText, Choice, Content, JsonObject, JsonSchema, Regex

Pattern = Annotated[str, Field(min_length=1, max_length=MAX_REGEX_CHARS)]
Option = Annotated[str, Field(min_length=1, max_length=MAX_CHOICE_CHARS)]
Options = Annotated[Items[Option], Field(min_length=1, max_length=MAX_CHOICES)]
SchemaOrText = dict[str, Any] | str


class NamedSchema(Strict):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = Field(None, description="No effect: every schema is kept, or refused.")


class TextFormat(Strict):
    type: Literal["text"]


class JsonObjectFormat(Strict):
    type: Literal["json_object"]


class JsonSchemaFormat(Strict):
    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class StructuredOutputs(Strict):
    """vLLM's. One of them."""

    json_: SchemaOrText | None = Field(None, alias="json")
    json_object: bool | None = None
    regex: Pattern | None = None
    choice: Options | None = None


class FormatFields(Strict):
    """At most one of them says something."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: SchemaOrText | None = None
    guided_regex: Pattern | None = None
    guided_choice: Options | None = None

    @model_validator(mode="after")
    def _one_format(self) -> "FormatFields":
        said = [name for name, _ in self._formats()]
        if len(said) > 1:
            raise conflict(said[1], f"{said[0]} and {said[1]} both say what the answer must look like; give one")
        return self

    @property
    def format_name(self) -> str:
        """What the request calls the field that it uses."""
        return next((name for name, _ in self._formats()), "response_format")

    def content(self) -> Content:
        """Return what the answer must look like. Raises RequestRefused for a schema in a text that is no JSON."""
        for name, given in self._formats():
            return given if not isinstance(given, str) else JsonSchema(json_in(given, name), name)
        return AnyText()

    def _formats(self) -> Iterator[tuple[str, Content | str]]:
        """Give each format that is asked for, and how the request calls it. A text: JSON that is a schema."""
        match self.response_format:
            case JsonObjectFormat():
                yield "response_format", JsonObject()
            case JsonSchemaFormat(json_schema=named):
                yield "response_format", JsonSchema(named.schema_, "response_format.json_schema.schema")
        if (vllm := self.structured_outputs) is not None:
            if vllm.json_object:
                yield "structured_outputs.json_object", JsonObject()
            yield from _as_vllm("structured_outputs.", vllm.json_, vllm.regex, vllm.choice)
        yield from _as_vllm("guided_", self.guided_json, self.guided_regex, self.guided_choice)


def _as_vllm(
    prefix: str, schema: SchemaOrText | None, regex: str | None, choice: list[str] | None
) -> Iterator[tuple[str, Content | str]]:
    if schema is not None:
        param = f"{prefix}json"
        yield param, schema if isinstance(schema, str) else JsonSchema(schema, param)
    if regex is not None:
        yield f"{prefix}regex", Regex(regex, f"{prefix}regex")
    if choice is not None:
        yield f"{prefix}choice", Choice(tuple(choice), f"{prefix}choice")
