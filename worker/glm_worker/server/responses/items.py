"""The items of conversations that this server reads: messages, calls, what tools said, reasoning, references.

Other kinds belong to tools that a vendor runs itself; they are refused by their type. Items that were streamed or
stored come back with fields that only tell something (annotations, status, logprobs): accepted, and not read.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Tag,
)
from pydantic_core import CoreSchema

from glm_worker.server.fields import Items, Strict, only

Json = dict[str, Any]
MAX_ITEMS = 8192  # of an input: the longest loops of agents have thousands
MAX_PARTS = 1024  # of an item: clients cut a text into a handful
MAX_ID_CHARS = 256  # as clients make them

Status = Literal["in_progress", "completed", "incomplete"]


class Never:
    """Say in the description of the API that no value is right: of a kind that is chosen only to be refused by it."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Json:
        return {"not": {}}


def type_of(value: object) -> object:
    return value.get("type") if isinstance(value, dict) else getattr(value, "type", None)


class TextPart(Strict):
    """A piece of text, by whatever name: of a user, of the assistant, or as chats have it."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None
    parsed: Any = Field(None, description="What a client's library read out of the text.")
    prompt_cache_breakpoint: Json | None = Field(None, description="A hint about caching; there is nothing to do.")


class RefusalPart(Strict):
    """An assistant that said no. Another model's: this one says so in its text."""

    type: Literal["refusal"]
    refusal: str


class OtherPart(BaseModel):
    """Never made: its type is what is wrong with it."""

    model_config = ConfigDict(extra="ignore")

    type: Annotated[Literal["input_text", "output_text", "text", "refusal"], Never()]


def _kind_of_part(value: object) -> str:
    match type_of(value):
        case "input_text" | "output_text" | "text":
            return "text"
        case "refusal":
            return "refusal"
        case _:
            return "other"


Part = Annotated[
    Annotated[TextPart, Tag("text")] | Annotated[RefusalPart, Tag("refusal")] | Annotated[OtherPart, Tag("other")],
    Discriminator(_kind_of_part),
]
Content = str | Annotated[Items[Part], Field(max_length=MAX_PARTS)]
Id = Annotated[str, Field(max_length=MAX_ID_CHARS)]


class MessageItem(Strict):
    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    id: Id | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class FunctionCallItem(Strict):
    type: Literal["function_call"]
    call_id: Id
    name: str
    arguments: str
    id: Id | None = None
    status: Status | None = None
    parsed_arguments: Any = Field(None, description="What a client's library read out of the arguments.")
    namespace: Annotated[str | None, only()] = None
    caller: Annotated[Json | None, only({"type": "direct"})] = None
    is_async: Annotated[bool | None, only(False)] = Field(
        None, validation_alias=AliasChoices("async", "async_"), description="Also as a client's library spells it."
    )


class FunctionCallOutputItem(Strict):
    type: Literal["function_call_output"]
    call_id: Id
    output: Content | None
    id: Id | None = None
    status: Status | None = None
    name: str | None = Field(None, description="Told by the call it answers; accepted because clients repeat it.")
    namespace: Annotated[str | None, only()] = None
    caller: Annotated[Json | None, only({"type": "direct"})] = None


class SummaryPart(Strict):
    type: Literal["summary_text"]
    text: str


class ReasoningPart(Strict):
    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(Strict):
    type: Literal["reasoning"]
    id: Id | None = None
    summary: Annotated[Items[SummaryPart], Field(max_length=MAX_PARTS)] | None = None
    content: Annotated[Items[ReasoningPart], Field(max_length=MAX_PARTS)] | None = None
    encrypted_content: str | None = None
    status: Status | None = None


class ItemReference(Strict):
    """An item that is stored here, by its id."""

    type: Literal["item_reference"] | None = None
    id: Id


class OtherItem(BaseModel):
    """Never made: its type is what is wrong with it."""

    model_config = ConfigDict(extra="ignore")

    type: Annotated[Literal["message", "function_call", "function_call_output", "reasoning", "item_reference"], Never()]


_KINDS = frozenset({"message", "function_call", "function_call_output", "reasoning", "item_reference"})


def _kind_of_item(value: object) -> str:
    said = type_of(value)
    if said is None:
        is_reference = isinstance(value, ItemReference) or (isinstance(value, dict) and value.keys() == {"id"})
        return "item_reference" if is_reference else "message"
    return said if isinstance(said, str) and said in _KINDS else "other"


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionCallOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[ItemReference, Tag("item_reference")]
    | Annotated[OtherItem, Tag("other")],
    Discriminator(_kind_of_item),
]
ReadItem = MessageItem | FunctionCallItem | FunctionCallOutputItem | ReasoningItem


def text_of(content: Content | None) -> str:
    """Return the text of a content, its parts joined."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(_text_of_part(part) for part in content)


def _text_of_part(part: TextPart | RefusalPart | OtherPart) -> str:
    assert not isinstance(part, OtherPart)
    return part.refusal if isinstance(part, RefusalPart) else part.text
