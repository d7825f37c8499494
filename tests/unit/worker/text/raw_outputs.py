"""What GLM models write, and what it means: raw outputs for the law that no way of cutting a stream changes an answer.

Written by hand, or put together from a value and the format around it; never taken from the parser.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from glm_worker.server.text.argument_types import Tools, parameters_of
from glm_worker.server.text.parsing import State

STRING = {"type": "string"}
SCHEMAS: dict[str, dict[str, Any] | None] = {
    "get_weather": {"type": "object", "properties": {"city": STRING, "days": {"type": "integer"}}},
    "now": None,
    "run_in_terminal": {"properties": {"command": STRING, "background": {"type": "boolean"}}},
    "write_file": {"properties": {"path": STRING, "text": STRING, "append": {"type": "boolean"}}},
    "search": {"properties": {"query": STRING, "limit": {"type": "integer"}}},
    "set": {
        "properties": {
            "count": {"type": "integer"},
            "ratio": {"type": "number"},
            "is_on": {"type": "boolean"},
            "nothing": {"type": "null"},
            "tags": {"type": "array", "items": STRING},
            "options": {"type": "object"},
            "note": {"anyOf": [STRING, {"type": "null"}]},
            "label": {"type": ["string", "null"]},
            "old_note": {"type": "string", "nullable": True},
            "level": {"enum": [1, "2", "max", None, True]},
            "unit": {"enum": ["c", "f", "null", "1"]},
            "either": {"oneOf": [STRING, {"type": "number"}]},
            "list_or_text": {"anyOf": [{"type": "array"}, STRING]},
            "referred": {"$ref": "#/$defs/Count"},
            "free": {},
        },
        "$defs": {"Count": {"allOf": [{"type": "number"}, {"type": "integer"}]}},
    },
    "combined": {
        "anyOf": [{"properties": {"id": {"type": "integer"}}}, {"$ref": "#/$defs/ByName"}],
        "allOf": [{"properties": {"code": STRING}}],
        "additionalProperties": STRING,
        "$defs": {"ByName": {"type": "object", "properties": {"name": STRING}}},
    },
}
TOOLS: Tools = {name: parameters_of(schema) for name, schema in SCHEMAS.items()}


@dataclass(frozen=True)
class Said:
    """One output and its meaning.

    calls: name and arguments, a dict where they are complete and JSON text where the call was cut.
    thought: the part of the output whose tokens are reasoning, tags included, and the stop token where it is open.
    thread: where another engine got this wrong.
    """

    name: str
    raw: str
    reasoning: str = ""
    content: str = ""
    calls: list[tuple[str, dict[str, Any] | str]] = field(default_factory=list)
    finish: str = ""
    thought: str = ""
    state: State = State.CONTENT
    tools: Tools = field(default_factory=lambda: TOOLS)
    any_name: bool = False
    thread: str = ""

    @property
    def finish_reason(self) -> str:
        return self.finish or ("tool_calls" if self.calls else "stop")


def call(name: str, *arguments: tuple[str, str], compact: bool = False) -> str:
    """Return a call as GLM-4.5 writes it; compact: as GLM-4.7 does."""
    line = "" if compact else "\n"
    inner = "".join(f"<arg_key>{key}</arg_key>{line}<arg_value>{value}</arg_value>{line}" for key, value in arguments)
    return f"<tool_call>{name}{line}{inner}</tool_call>"


BONN = call("get_weather", ("city", "Bonn"))
BONN_CALL: tuple[str, dict[str, Any]] = ("get_weather", {"city": "Bonn"})
NOW_CALL: tuple[str, dict[str, Any]] = ("now", {})
OPEN_CITY = "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>"

STRINGS: dict[str, str] = {
    "a word": "Bonn",
    "nothing": "",
    "a blank": " ",
    "blanks around": "  Bad Ems \t",
    "line breaks around": "\n\nline\n\n",
    "carriage returns": "a\r\nb\r\n",
    "quotes and backslashes": 'say "no" \\ or \\n \\u0041',
    "control characters": "a\x00b\x1f\x7f\x85",
    "separators of lines in JavaScript": "a\u2028b\u2029c",
    "emoji of several code points": "👩‍👩‍👧‍👦 🇩🇪 é ñ",
    "right to left": "שלום مرحبا",
    "Chinese": "数字和文字，都在这里。",
    "a number": "42",
    "a word of JSON": "null",
    "a word of Python": "None",
    "an object": '{"a": [1, {"b": "</b>"}], "c": "\\"d\\""}',
    "an array": "[1, 2, [3]]",
    "a quoted string": '"quoted"',
    "broken JSON": '{"a": [1, ',
    "XML": '<?xml version="1.0"?>\n<r a="1"><x/><![CDATA[ </r> ]]></r>\n',
    "HTML with a script": "<script>if (a < b && c > d) { x = '</p>'; }</script>",
    "Python": 'def f(a: dict[str, int]) -> None:\n\tprint(f"{a!r}")  # <tool>\n',
    "C++": "std::vector<std::vector<int>> v{{1},{2}}; v[0]<<=1;",
    "shell": "cat <<'EOF' > x.txt\n$HOME `id` \\\nEOF\n",
    "a patch": "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-<arg>\n+</arg>\n",
    "a regular expression": r"^(?:<[^>]+>|[^<])*$",
    "SQL": "SELECT * FROM t WHERE a <> 'b' AND c <= 3;",
    "Markdown": '# Head\n\n```json\n{"name": "get_weather"}\n```\n',
    "a template of jinja": "{%- if tools -%}{{ '<tool_call>' + name }}{%- endif -%}",
    "the end of a call": "</tool_call>",
    "the end of a call between words": "before</tool_call>after",
    "the end of a call in its line": "a\n</tool_call>\nb",
    "two ends of calls": "</tool_call></tool_call>",
    "the beginning of a call": "<tool_call>",
    "a call without arguments": "<tool_call>now</tool_call>",
    "a call in JSON": '<tool_call>{"name": "now", "arguments": {}}</tool_call>',
    "the name of a tool after a tag": "x<tool_call>get_weather\ny",
    "a key": "<arg_key>city</arg_key>",
    "a key that is not closed": "a<arg_key>b",
    "the end of a key": "a</arg_key>b",
    "the beginning of a value": "<arg_value>v",
    "the end of a value": "a</arg_value>b",
    "the end of a value at the end": "a</arg_value>",
    "the end of a value, alone": "</arg_value>",
    "ends of values": "</arg_value></arg_value>\n</arg_value>",
    "the end of a value before another tag": "a</arg_value>\n</arg_key>b",
    "the end of a value before a line": "a</arg_value>\nb",
    "the end of a value before a beginning of one": "a</arg_value><arg_value>b",
    "the end of a value before prose in a call": "a</arg_value><tool_call>let me see</tool_call>b",
    "the end of a value before an unknown name": "a</arg_value>\n<tool_call>rm\n-rf",
    "the end of a value before the end of thinking": "a</arg_value></think>b",
    "the end of a value before too many blanks": "a</arg_value>" + "\n" * 65 + "</tool_call>b",
    "a piece of the end of a value": "a</arg_value",
    "a shorter piece of it": "a</arg_v",
    "the smallest piece of it": "a<",
    "a piece of a key after the end of a value": "a</arg_value>\n<arg_ke",
    "thinking": "<think>hm</think>",
    "the end of thinking": "a</think>b",
    "a tool's result": "<tool_response>\n12\n</tool_response>",
    "the switch of thinking": "say /nothink",
    "a long text": "Lorem ipsum <dolor> " * 8,
    "a document about this format": (
        "A call is `<tool_call>name`, then `<arg_key>key</arg_key>` and `<arg_value>value</arg_value>`, and it ends"
        " with `</tool_call>`; thinking is `<think>…</think>`."
    ),
}
VALUES: list[tuple[str, str, Any]] = [
    ("count", "42", 42),
    ("count", " 42\n", 42),
    ("count", '"42"', 42),
    ("count", "-7", -7),
    ("count", "12345678901234567890123", 12345678901234567890123),
    ("count", "forty", "forty"),
    ("count", "null", None),
    ("count", "None", None),
    ("count", "4</arg_value>2", "4</arg_value>2"),
    ("ratio", "1.50", 1.5),
    ("ratio", '"1.5"', 1.5),
    ("ratio", "2e3", 2000.0),
    ("ratio", "7", 7),
    ("is_on", "true", True),
    ("is_on", "True", True),
    ("is_on", "False", False),
    ("is_on", '"false"', False),
    ("is_on", '"True"', True),
    ("is_on", "yes", "yes"),
    ("nothing", "None", None),
    ("nothing", "null", None),
    ("tags", '["a", "</tool_call>"]', ["a", "</tool_call>"]),
    ("tags", '["</arg_value>", "<think>"]', ["</arg_value>", "<think>"]),
    ("tags", '"[1, 2]"', [1, 2]),
    ("tags", "a, b", "a, b"),
    ("options", '{"a": {"b": [true, null]}}', {"a": {"b": [True, None]}}),
    ("options", '{"xml": "<arg_key>k</arg_key>"}', {"xml": "<arg_key>k</arg_key>"}),
    ("note", "null", None),
    ("note", "None", None),
    ("note", "nullify it", "nullify it"),
    ("note", "42", "42"),
    ("note", "", ""),
    ("note", "a</tool_call>b", "a</tool_call>b"),
    ("label", "null\n", None),
    ("label", "true", "true"),
    ("label", '{"a": 1}', '{"a": 1}'),
    ("old_note", "null", None),
    ("old_note", "Nonesuch", "Nonesuch"),
    ("level", "1", 1),
    ("level", "2", "2"),
    ("level", "max", "max"),
    ("level", "None", None),
    ("level", "True", True),
    ("unit", "null", "null"),
    ("unit", "1", "1"),
    ("either", "12", 12),
    ("either", "twelve", "twelve"),
    ("either", '"12"', '"12"'),
    ("list_or_text", "[1]", [1]),
    ("list_or_text", "[1", "[1"),
    ("list_or_text", "{}", "{}"),
    ("referred", '"3"', 3),
    ("free", "12", 12),
    ("free", "Bonn", "Bonn"),
    ("free", '"Bonn"', "Bonn"),
    ("free", "None", "None"),
    ("free", "tr</arg_value>ue", "tr</arg_value>ue"),
]


def _strings() -> Iterator[Said]:
    for name, text in STRINGS.items():
        for compact in (False, True):
            raw = call("write_file", ("path", "x"), ("text", text), ("append", "true"), compact=compact)
            arguments = {"path": "x", "text": text, "append": True}
            yield Said(f"string, {name}, {'4.7' if compact else '4.5'}", raw, calls=[("write_file", arguments)])


def _values() -> Iterator[Said]:
    for number, (key, text, value) in enumerate(VALUES):
        yield Said(f"value {number}, {text!r} as {key}", call("set", (key, text)), calls=[("set", {key: value})])


MISSING_TAGS = [
    Said(
        "no opening tag of a value",
        "<tool_call>search\n<arg_key>query</arg_key>text</arg_value>\n</tool_call>",
        calls=[("search", {"query": "text"})],
    ),
    Said(
        "no opening tag of a value, in its line",
        "<tool_call>search\n<arg_key>query</arg_key>\n  text\n</arg_value>\n</tool_call>",
        calls=[("search", {"query": "  text\n"})],
    ),
    Said(
        "no opening tag of a value, as in GLM-4.7",
        "<tool_call>search<arg_key>query</arg_key>a <b> c</arg_value><arg_key>limit</arg_key>3</arg_value></tool_call>",
        calls=[("search", {"query": "a <b> c", "limit": 3})],
    ),
    Said(
        "no opening tag of an empty value",
        "<tool_call>search\n<arg_key>query</arg_key></arg_value>\n</tool_call>",
        calls=[("search", {"query": ""})],
    ),
    Said(
        "no opening tag and tags in the value",
        "<tool_call>search\n<arg_key>query</arg_key>a</tool_call><arg_value>b</arg_value>\n</tool_call>",
        calls=[("search", {"query": "a</tool_call><arg_value>b"})],
    ),
    Said(
        "no opening tag of the first of two values",
        "<tool_call>search\n<arg_key>query</arg_key>q</arg_value>\n<arg_key>limit</arg_key>\n<arg_value>3</arg_value>"
        "\n</tool_call>",
        calls=[("search", {"query": "q", "limit": 3})],
    ),
    Said(
        "no closing tag of a key",
        "<tool_call>search\n<arg_key>query<arg_value>text</arg_value>\n</tool_call>",
        calls=[("search", {"query": "text"})],
    ),
    Said(
        "a key without a value, then another",
        "<tool_call>search\n<arg_key>query</arg_key>\n<arg_key>limit</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
        calls=[("search", {"limit": 3})],
    ),
    Said("a key without a value", "<tool_call>search\n<arg_key>query</arg_key>\n</tool_call>", calls=[("search", {})]),
    Said("a key that is not closed", "<tool_call>search\n<arg_key>query\n</tool_call>", calls=[("search", {})]),
    Said(
        "too many blanks after a key",
        "<tool_call>search\n<arg_key>query</arg_key>" + " " * 65 + "x</arg_value>\n</tool_call>",
        calls=[("search", {"query": " " * 65 + "x"})],
    ),
    Said(
        "a value never closed, then the end",
        f"{OPEN_CITY}Bonn",
        calls=[("get_weather", '{"city": "Bonn')],
        finish="stop",
    ),
    Said(
        "a value never closed, then the end of the call",
        f"{OPEN_CITY}Bonn\n</tool_call>",
        calls=[("get_weather", '{"city": "Bonn\\n</tool_call>')],
        finish="stop",
    ),
    Said(
        "a value never closed, then the end of thinking",
        f"\n<think>hm\n{OPEN_CITY}Bonn</think>\nyes",
        reasoning="hm",
        calls=[("get_weather", '{"city": "Bonn</think>\\nyes')],
        finish="stop",
        thought="<think>hm\n",
    ),
    Said(
        "a number never closed",
        "<tool_call>get_weather\n<arg_key>days</arg_key>\n<arg_value>12",
        calls=[("get_weather", "")],
        finish="stop",
    ),
    Said(
        "a number never closed after a whole argument",
        BONN.replace("</tool_call>", "<arg_key>days</arg_key>\n<arg_value>1"),
        calls=[("get_weather", '{"city": "Bonn"')],
        finish="stop",
    ),
    Said(
        "an end inside the end of a value",
        f"{OPEN_CITY}Bonn</arg_va",
        calls=[("get_weather", '{"city": "Bonn</arg_va')],
        finish="stop",
    ),
    Said(
        "an end inside a key",
        "<tool_call>get_weather\n<arg_key>ci",
        calls=[("get_weather", "")],
        finish="stop",
    ),
    Said(
        "an end after a key",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n",
        calls=[("get_weather", "")],
        finish="stop",
    ),
    Said(
        "thinking that ends inside a key",
        "\n<think>hm<tool_call>get_weather\n<arg_key>ci</think>yes",
        reasoning="hm",
        content="yes",
        calls=[("get_weather", "")],
        finish="stop",
        thought="<think>hm",
    ),
    Said(
        "a whole call, then one that is cut",
        f"{BONN}\n{OPEN_CITY}Ro",
        calls=[BONN_CALL, ("get_weather", '{"city": "Ro')],
        finish="stop",
    ),
    Said("no end of the call", BONN.removesuffix("</tool_call>"), calls=[BONN_CALL]),
    Said("no end of the call, right after the value", BONN.removesuffix("\n</tool_call>"), calls=[BONN_CALL]),
    Said("no end of a call without arguments", "<tool_call>now\n", calls=[NOW_CALL]),
    Said("no end of a call, not even of its line", "<tool_call>now", calls=[NOW_CALL]),
    Said("a call begins in one without arguments", f"<tool_call>now\n{BONN}", calls=[NOW_CALL, BONN_CALL]),
    Said(
        "a call begins after the value of another",
        f"{BONN.removesuffix('</tool_call>')}{BONN}",
        calls=[BONN_CALL, BONN_CALL],
    ),
    Said(
        "a call without arguments begins after the value of another",
        f"{BONN.removesuffix('</tool_call>')}<tool_call>now</tool_call>",
        calls=[BONN_CALL, NOW_CALL],
    ),
    Said("a tag written twice", f"<tool_call>{BONN}", calls=[BONN_CALL]),
    Said("an end written twice", f"{BONN}</tool_call>", calls=[BONN_CALL]),
    Said(
        "an argument given twice",
        call("get_weather", ("city", "Bonn"), ("city", "Rome"), ("days", "2")),
        calls=[("get_weather", {"city": "Bonn", "days": 2})],
    ),
]

NAMES = [
    Said(
        "prose after the tag",
        "Use <tool_call>to call a tool</tool_call> here.",
        content="Use <tool_call>to call a tool</tool_call> here.",
    ),
    Said(
        "prose after the tag, never closed",
        "The token <tool_call> is special.",
        content="The token <tool_call> is special.",
    ),
    Said(
        "a JSON body",
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Bonn"}}</tool_call>',
        content='<tool_call>{"name": "get_weather", "arguments": {"city": "Bonn"}}</tool_call>',
    ),
    Said(
        "a JSON body in lines of its own",
        '\n<tool_call>\n{"name": "now"}\n</tool_call>\n',
        content='<tool_call>\n{"name": "now"}\n</tool_call>\n',
    ),
    Said(
        "a JSON body, then a call",
        f'<tool_call>{{"name": "now"}}</tool_call>\n{BONN}',
        content='<tool_call>{"name": "now"}</tool_call>',
        calls=[BONN_CALL],
    ),
    Said("prose after the tag, then a call", f"a <tool_call> b\n{BONN}", content="a <tool_call> b", calls=[BONN_CALL]),
    Said("a call of Python", "<tool_call>now()</tool_call>", content="<tool_call>now()</tool_call>"),
    Said(
        "a name with blanks in it",
        "<tool_call>get weather\n</tool_call>",
        content="<tool_call>get weather\n</tool_call>",
    ),
    Said("blanks around a name", "<tool_call>\n now \t\n</tool_call>", calls=[NOW_CALL]),
    Said(
        "a name before a key",
        "<tool_call> now <arg_key>a</arg_key>1</arg_value></tool_call>",
        calls=[("now", {"a": 1})],
    ),
    Said("a name that is not offered", "<tool_call>rm\n</tool_call>", content="<tool_call>rm\n</tool_call>"),
    Said(
        "a name that is not offered, with an argument",
        call("rm", ("path", "/")),
        content=call("rm", ("path", "/")),
    ),
    Said(
        "a name that begins like one on offer",
        "<tool_call>get_wea</tool_call>",
        content="<tool_call>get_wea</tool_call>",
    ),
    Said("a name that goes on after one on offer", "<tool_call>nowhere\nx", content="<tool_call>nowhere\nx"),
    Said("a name that is not offered, passed on", "<tool_call>rm\n</tool_call>", calls=[("rm", {})], any_name=True),
    Said(
        "a name that is not offered, passed on with arguments",
        call("rm", ("path", "/"), ("force", "true"), compact=True),
        calls=[("rm", {"path": "/", "force": True})],
        any_name=True,
    ),
    Said(
        "prose, where names are passed on",
        "<tool_call>no call at all</tool_call>",
        content="<tool_call>no call at all</tool_call>",
        any_name=True,
    ),
    Said("a name that is too long", f"<tool_call>{'n' * 129}\n", content=f"<tool_call>{'n' * 129}\n", any_name=True),
    Said("too many blanks before a name", "<tool_call>" + "\n" * 65 + "now", content="<tool_call>" + "\n" * 65 + "now"),
    Said("no name", "x<tool_call>\n</tool_call>", content="x"),
    Said("no name, between words", "x<tool_call></tool_call>y", content="x\ny"),
    Said(
        "no name, but an argument",
        "<tool_call>\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
        content="<tool_call>\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
    ),
    Said(
        "a tag in thinking that is only mentioned",
        "\n<think>I may write <tool_call> or not.</think>\nNo.",
        reasoning="I may write <tool_call> or not.",
        content="No.",
        thought="<think>I may write <tool_call> or not.</think>",
    ),
    Said(
        "a tag in thinking, then its end",
        "\n<think>hm <tool_call></think>yes",
        reasoning="hm <tool_call>",
        content="yes",
        thought="<think>hm <tool_call></think>",
    ),
    Said(
        "a name in thinking that is not offered, then a call",
        f"\n<think>not <tool_call>rm</tool_call> but\n{BONN}",
        reasoning="not <tool_call>rm</tool_call> but",
        calls=[BONN_CALL],
        thought="<think>not <tool_call>rm</tool_call> but\n",
    ),
    Said(
        "a name in thinking, cut by its end",
        "\n<think>hm<tool_call>now</think>yes",
        reasoning="hm",
        content="yes",
        calls=[NOW_CALL],
        thought="<think>hm",
    ),
    Said("the end of a call that never began", "a</tool_call>b", content="ab"),
    Said("a call, where no tools are offered", f"a\n{BONN}", content=f"a\n{BONN}", tools={}),
]

COMBINED = [
    Said("one of the alternatives of the root", call("combined", ("id", '"7"')), calls=[("combined", {"id": 7})]),
    Said("another of them, by reference", call("combined", ("name", "7")), calls=[("combined", {"name": "7"})]),
    Said("what all of the root says", call("combined", ("code", "007")), calls=[("combined", {"code": "007"})]),
    Said("what others are", call("combined", ("else", "true")), calls=[("combined", {"else": "true"})]),
]

REASONING = [
    Said("no opening tag", "hm</think>\nyes", content="hm\nyes"),
    Said("no opening tag and no line", "reasoning</think>answer", content="reasoning\nanswer"),
    Said(
        "no opening tag, where the prompt has it",
        "reasoning</think>answer",
        "reasoning",
        "answer",
        thought="reasoning</think>",
        state=State.REASONING,
    ),
    Said("an end of thinking at the end", "Paris</think>", content="Paris"),
    Said("only an end of thinking", "</think>\nyes", content="yes"),
    Said(
        "thinking, then an answer",
        "\n<think>1+1=2</think>\nIt is 2.",
        "1+1=2",
        "It is 2.",
        thought="<think>1+1=2</think>",
    ),
    Said(
        "thinking twice",
        "<think>a</think>\nb\n<think>c</think>d",
        "a\nc",
        "b\nd",
        thought="<think>a</think><think>c</think>",
    ),
    Said("thinking that never ends", "\n<think>hm", "hm", thought="<think>hm<|user|>"),
    Said("empty thinking", "\n<think></think>\nHi", content="Hi", thought="<think></think>"),
    Said(
        "white space in thinking",
        "\n<think>\n\na\n\nb \n</think>\n  x",
        "a\n\nb",
        "  x",
        thought="<think>\n\na\n\nb \n</think>",
    ),
    Said(
        "characters of several tokens",
        "\n<think>数字 🙂</think>\nÄ – 🙂é",
        "数字 🙂",
        "Ä – 🙂é",
        thought="<think>数字 🙂</think>",
    ),
]

THREADS = [
    Said(
        "thinking after tool results stays thinking",
        f"\n<think>I have the first result.\nNow the next.</think>\n{BONN}",
        "I have the first result.\nNow the next.",
        calls=[BONN_CALL],
        thought="<think>I have the first result.\nNow the next.</think>",
        thread="vllm-project/vllm#27703",
    ),
    Said(
        "a call inside thinking",
        f"\n<think>hm\n{BONN}",
        "hm",
        calls=[BONN_CALL],
        thought="<think>hm\n",
        thread="vllm-project/vllm#42400",
    ),
    Said(
        "thinking that ends after the call in it",
        f"\n<think>hm\n{BONN}\n</think>\nyes",
        "hm",
        "yes",
        [BONN_CALL],
        thought="<think>hm\n",
        thread="vllm-project/vllm#46040",
    ),
    Said(
        "a name that begins like another's",
        call("run_in_terminal", ("command", "ls -la"), ("background", "False")),
        calls=[("run_in_terminal", {"command": "ls -la", "background": False})],
        thread="vllm-project/vllm#39757",
    ),
    Said("a call without arguments", "<tool_call>now</tool_call>", calls=[NOW_CALL], thread="vllm-project/vllm#44326"),
    Said(
        "a call without arguments, in lines",
        "a\n<tool_call>now\n</tool_call>\n",
        content="a",
        calls=[NOW_CALL],
        thread="vllm-project/vllm#41654",
    ),
    Said(
        "several arguments in one delta",
        call("write_file", ("path", "a.txt"), ("text", "b"), ("append", "true"), compact=True),
        calls=[("write_file", {"path": "a.txt", "text": "b", "append": True})],
        thread="vllm-project/vllm#34449",
    ),
    Said(
        "several calls in one delta",
        BONN.replace("\n", "") * 3,
        calls=[BONN_CALL] * 3,
        thread="vllm-project/vllm#42167",
    ),
    Said(
        "a call right after thinking, in one delta",
        f"<think>x</think>{call('search', ('query', 'y'), compact=True)}",
        "x",
        calls=[("search", {"query": "y"})],
        thought="<think>x</think>",
        thread="vllm-project/vllm#39253",
    ),
    Said(
        "the last argument is JSON",
        call("set", ("options", '{"a": "{}"}')),
        calls=[("set", {"options": {"a": "{}"}})],
        thread="vllm-project/vllm#35208",
    ),
    Said(
        "an argument that is JSON in a string",
        call("search", ("query", '{"a": "b"}')),
        calls=[("search", {"query": '{"a": "b"}'})],
        thread="vllm-project/vllm#36410",
    ),
    Said("no arguments at the end", "<tool_call>now", calls=[NOW_CALL], thread="vllm-project/vllm#39615"),
    Said(
        "a long string",
        call("write_file", ("text", "word " * 40)),
        calls=[("write_file", {"text": "word " * 40})],
        thread="vllm-project/vllm#32829",
    ),
    Said(
        "a long string that is cut",
        f"<tool_call>write_file\n<arg_key>text</arg_key>\n<arg_value>{'word ' * 50}",
        calls=[("write_file", '{"text": "' + "word " * 50)],
        finish="stop",
        thread="vllm-project/vllm#33218",
    ),
    Said(
        "a long string of lines",
        call("write_file", ("text", "a line\n" * 20), ("path", "x")),
        calls=[("write_file", {"text": "a line\n" * 20, "path": "x"})],
        thread="sgl-project/sglang#11888",
    ),
    Said(
        "a string of escapes",
        call("write_file", ("text", 'a\\n"b"\\\\' * 10)),
        calls=[("write_file", {"text": 'a\\n"b"\\\\' * 10})],
        thread="sgl-project/sglang#11589",
    ),
    Said(
        "values of every type at once",
        call("set", ("count", "1"), ("ratio", "1.0"), ("is_on", "False"), ("tags", "[]"), ("note", "None")),
        calls=[("set", {"count": 1, "ratio": 1.0, "is_on": False, "tags": [], "note": None})],
        thread="sgl-project/sglang#39493",
    ),
    Said(
        "a string that looks like a number",
        call("get_weather", ("city", "007"), ("days", "7")),
        calls=[("get_weather", {"city": "007", "days": 7})],
        thread="sgl-project/sglang#35625",
    ),
    Said(
        "a string that ends in a backslash",
        call("write_file", ("path", "C:\\")),
        calls=[("write_file", {"path": "C:\\"})],
        thread="sgl-project/sglang#36688",
    ),
    Said(
        "an object as Python writes it",
        call("set", ("options", "{'a': [True, None]}")),
        calls=[("set", {"options": {"a": [True, None]}})],
        thread="sgl-project/sglang#39136",
    ),
    Said(
        "repeated words in an argument",
        call("write_file", ("text", "no no no no")),
        calls=[("write_file", {"text": "no no no no"})],
        thread="team-telnyx/ai#252",
    ),
    Said(
        "tags without tools",
        "a <tool_call>a a</tool_call> a",
        content="a <tool_call>a a</tool_call> a",
        tools={},
        thread="local-inference-lab/vllm#29",
    ),
    Said(
        "only the end of thinking, as GLM-4.7 writes it",
        "I think.</think>It is.",
        "I think.",
        "It is.",
        thought="I think.</think>",
        state=State.REASONING,
        thread="vllm-project/vllm#31319",
    ),
    Said("an answer without thinking", "It is.", content="It is.", thread="vllm-project/vllm#31383"),
    Said(
        "an answer without thinking, with a call",
        f"It is.{BONN.replace(chr(10), '')}",
        content="It is.",
        calls=[BONN_CALL],
        thread="vllm-project/vllm#31449",
    ),
    Said(
        "thinking skipped, and the end",
        "The whole answer.\nTwo lines.",
        content="The whole answer.\nTwo lines.",
        thread="sgl-project/sglang#37645",
    ),
    Said(
        "thinking although it was switched off",
        "\n<think>still</think>\nyes",
        "still",
        "yes",
        thought="<think>still</think>",
        thread="vllm-project/vllm#54744",
    ),
    Said("thinking switched off", "\nParis", content="Paris", thread="zai-org/GLM-4.5#42"),
    Said(
        "thinking switched off, an end of it all the same",
        "</think>\nParis",
        content="Paris",
        thread="zai-org/GLM-4.5#110",
    ),
    Said(
        "arguments of GLM-4.7 in a stream",
        call("get_weather", ("city", "Bad Ems"), ("days", "3"), compact=True),
        calls=[("get_weather", {"city": "Bad Ems", "days": 3})],
        thread="zai-org/GLM-4.5#146",
    ),
    Said(
        "nested thinking",
        "\n<think><think>hm</think>\nyes",
        "hm",
        "yes",
        thought="<think><think>hm</think>",
        thread="Vali-98/ChatterUI#503",
    ),
    Said(
        "thinking ended twice",
        "\n<think>hm</think>\n</think>\nyes",
        "hm",
        "yes",
        thought="<think>hm</think>",
        thread="waybarrios/vllm-mlx#295",
    ),
    Said(
        "calls of an agent, one after the other",
        f"\n<think>a</think>\nfirst\n{BONN}\n{call('run_in_terminal', ('command', 'x && y'))}",
        "a",
        "first",
        [BONN_CALL, ("run_in_terminal", {"command": "x && y"})],
        thought="<think>a</think>",
        thread="vllm-project/vllm#25993",
    ),
    Said("nothing but exclamation marks", "!" * 80, content="!" * 80, thread="vllm-project/vllm#49844"),
    Said("one mark, then the end", "!", content="!", thread="vllm-project/vllm#35293"),
]

OUTPUTS: dict[str, Said] = {
    said.name: said for said in [*_strings(), *_values(), *MISSING_TAGS, *NAMES, *COMBINED, *REASONING, *THREADS]
}
KNOWN_THREADS = {  # by repository
    "vllm-project/vllm": "27703 42400 46040 39757 44326 41654 34449 42167 39253 35208 36410 39615 32829 33218"
    " 31319 31383 31449 54744 25993 49844 35293",
    "sgl-project/sglang": "11888 11589 39493 35625 36688 39136 37645",
    "team-telnyx/ai": "252",
    "local-inference-lab/vllm": "29",
    "zai-org/GLM-4.5": "42 110 146",
    "Vali-98/ChatterUI": "503",
    "waybarrios/vllm-mlx": "295",
}
