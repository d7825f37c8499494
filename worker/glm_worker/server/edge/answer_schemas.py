"""JSON schemas of what the server answers, for its description: the main fields by name, others may come beside them.

Hand-written, because answers are written field by field and no model of them exists. A test holds them to real answers.
"""

from typing import Any

Json = dict[str, Any]

_STRING: Json = {"type": "string"}
_TEXT_OR_NULL: Json = {"type": ["string", "null"]}
_COUNT: Json = {"type": "integer", "minimum": 0}
_NUMBER: Json = {"type": "number"}
_FLAG: Json = {"type": "boolean"}
_OBJECT: Json = {"type": "object"}
_OBJECT_OR_NULL: Json = {"type": ["object", "null"]}


def _const(value: str) -> Json:
    return {"type": "string", "const": value}


def _enum(*values: str | None) -> Json:
    return {"enum": list(values)}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _object(optional: Json | None = None, /, **required: Json) -> Json:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


def _answer(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{ANSWERS}.{name}"}


ANSWERS = "Answer"  # what the names of all these begin with, among the components
ERRORS = "Error"

_FINISH = _enum("stop", "length", "tool_calls")
_STOP_REASON: Json = {"type": ["string", "integer", "null"], "description": "The stop string or token that ended it."}
_CALL = _object(id=_STRING, type=_const("function"), function=_object(name=_STRING, arguments=_STRING))
_CHAT_MESSAGE = _object(
    {"reasoning_content": _STRING, "reasoning": _STRING, "tool_calls": _list(_CALL)},
    role=_const("assistant"),
    content=_TEXT_OR_NULL,
)
_USAGE = _object(
    prompt_tokens=_COUNT,
    completion_tokens=_COUNT,
    total_tokens=_COUNT,
    prompt_tokens_details=_object(cached_tokens=_COUNT),
    completion_tokens_details=_object(reasoning_tokens=_COUNT),
)
_CHAT: Json = {
    "id": _STRING,
    "object": _const("chat.completion"),
    "created": _COUNT,
    "model": _STRING,
    "choices": _list(
        _object(
            index=_COUNT,
            message=_CHAT_MESSAGE,
            logprobs=_OBJECT_OR_NULL,
            finish_reason=_FINISH,
            stop_reason=_STOP_REASON,
        )
    ),
    "usage": _USAGE,
}
_OUTPUT: Json = {
    "oneOf": [
        _object(type=_const("reasoning"), id=_STRING, status=_STRING, summary=_list(_OBJECT), content=_list(_OBJECT)),
        _object(
            type=_const("message"),
            id=_STRING,
            status=_STRING,
            role=_const("assistant"),
            content=_list(_object(type=_const("output_text"), text=_STRING, annotations=_list(_OBJECT))),
        ),
        _object(
            type=_const("function_call"), id=_STRING, status=_STRING, call_id=_STRING, name=_STRING, arguments=_STRING
        ),
    ]
}
_BLOCK: Json = {
    "oneOf": [
        _object(type=_const("thinking"), thinking=_STRING, signature=_STRING),
        _object(type=_const("text"), text=_STRING),
        _object(type=_const("tool_use"), id=_STRING, name=_STRING, input=_OBJECT),
    ]
}
_STOPS = ("end_turn", "stop_sequence", "max_tokens", "model_context_window_exceeded", "tool_use")

ANSWER_SCHEMAS: Json = {
    "ChatCompletion": _object(**_CHAT),
    "Zai.ChatCompletion": _object(**_CHAT, request_id=_STRING),
    "TextCompletion": _object(
        id=_STRING,
        object=_const("text_completion"),
        created=_COUNT,
        model=_STRING,
        choices=_list(
            _object(
                index=_COUNT,
                text=_STRING,
                logprobs=_OBJECT_OR_NULL,
                finish_reason=_FINISH,
                stop_reason=_STOP_REASON,
            )
        ),
        usage=_USAGE,
    ),
    "Response": _object(
        {"metadata": _OBJECT, "tools": _list(_OBJECT), "temperature": _NUMBER, "top_p": _NUMBER},
        id=_STRING,
        object=_const("response"),
        created_at=_COUNT,
        status=_enum("completed", "incomplete", "failed", "cancelled", "queued", "in_progress"),
        model=_STRING,
        output=_list(_OUTPUT),
        error=_OBJECT_OR_NULL,
        incomplete_details=_OBJECT_OR_NULL,
        previous_response_id=_TEXT_OR_NULL,
        store=_FLAG,
        background=_FLAG,
        usage={
            "oneOf": [
                {"type": "null"},
                _object(
                    input_tokens=_COUNT,
                    input_tokens_details=_object(cached_tokens=_COUNT, cache_write_tokens=_COUNT),
                    output_tokens=_COUNT,
                    output_tokens_details=_object(reasoning_tokens=_COUNT),
                    total_tokens=_COUNT,
                ),
            ]
        },
    ),
    "Deleted": _object(id=_STRING, object=_const("response"), deleted={"const": True}),
    "ItemList": _object(object=_const("list"), data=_list(_OBJECT), first_id=_STRING, last_id=_STRING, has_more=_FLAG),
    "Message": _object(
        id=_STRING,
        type=_const("message"),
        role=_const("assistant"),
        model=_STRING,
        content=_list(_BLOCK),
        stop_reason=_enum(*_STOPS),
        stop_sequence=_TEXT_OR_NULL,
        usage=_object(
            input_tokens=_COUNT,
            cache_creation_input_tokens=_COUNT,
            cache_read_input_tokens=_COUNT,
            output_tokens=_COUNT,
        ),
    ),
    "InputTokens": _object(input_tokens=_COUNT),
    "OpenAI.Model": _object(id=_STRING, object=_const("model"), created=_COUNT, owned_by=_STRING, max_model_len=_COUNT),
    "OpenAI.ModelList": _object(object=_const("list"), data=_list(_answer("OpenAI.Model"))),
    "Anthropic.Model": _object(
        type=_const("model"),
        id=_STRING,
        display_name=_STRING,
        created_at=_STRING,
        max_input_tokens=_COUNT,
        max_tokens=_COUNT,
    ),
    "Anthropic.ModelList": _object(
        data=_list(_answer("Anthropic.Model")), has_more=_FLAG, first_id=_STRING, last_id=_STRING
    ),
    "Tokens": _object(
        count=_COUNT,
        max_model_len=_COUNT,
        tokens=_list(_COUNT),
        token_strs={"type": ["array", "null"], "items": _STRING},
    ),
    "Text": _object(prompt=_STRING),
    "Health": _object(status=_const("ok")),
    "Version": _object(version=_STRING, deterministic={"type": ["boolean", "null"]}),
}

ERROR_SCHEMAS: Json = {
    "OpenAI": _object(error=_object(message=_STRING, type=_STRING, param=_TEXT_OR_NULL, code=_TEXT_OR_NULL)),
    "Anthropic": _object(
        {"request_id": _STRING},
        type=_const("error"),
        error=_object({"details": _object(error_code=_STRING)}, type=_STRING, message=_STRING),
    ),
    "Z.ai": _object(error=_object(code={"type": "string", "pattern": "^[0-9]+$"}, message=_STRING)),
}
"""Of the surfaces with errors of their own; all others have OpenAI's."""


def components() -> Json:
    """Return all schemas by the names that they have among the components of the description."""
    answers = {f"{ANSWERS}.{name}": schema for name, schema in ANSWER_SCHEMAS.items()}
    return answers | {f"{ERRORS}.{name}": schema for name, schema in ERROR_SCHEMAS.items()}


def reference(kind: str, names: list[str]) -> Json:
    """Return a schema that is one of these components. kind: ANSWERS or ERRORS."""
    references = [{"$ref": f"#/components/schemas/{kind}.{name}"} for name in names]
    return references[0] if len(references) == 1 else {"anyOf": references}
