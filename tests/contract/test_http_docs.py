"""docs/http.md names settings that the worker has, with their defaults and the values that they may have."""

import re
from pathlib import Path
from typing import Literal, get_args, get_origin

from glm_edge.http import heads, protocol
from glm_worker.server.edge import body
from glm_worker.server.edge.bounds import JsonBounds
from glm_worker.settings import WorkerSettings

PAGE = (Path(__file__).resolve().parents[2] / "docs/http.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `GLM_([A-Z_]+)` \| (`[^`]+`|none) \| (.*) \|$", PAGE, re.MULTILINE)


def test_every_setting_of_the_page_has_a_row_and_is_the_workers() -> None:
    named = set(re.findall(r"GLM_([A-Z_]+)", PAGE.partition("## Settings")[2]))
    assert {name for name, _, _ in ROWS} == {name for name in named if not name.endswith("_")}
    assert {name.lower() for name in re.findall(r"GLM_([A-Z_]+[A-Z])", PAGE)} <= set(WorkerSettings.model_fields)


def test_the_defaults_are_the_workers() -> None:
    for name, default, _ in ROWS:
        value = WorkerSettings.model_fields[name.lower()].default
        said = "none" if value in ("", 0) and value is not False else f"`{str(value).lower()}`"
        assert default == said, name


def test_every_value_that_a_setting_may_have_is_told() -> None:
    for name, default, text in ROWS:
        annotation = WorkerSettings.model_fields[name.lower()].annotation
        if get_origin(annotation) is Literal:
            assert {f"`{value}`" for value in get_args(annotation)} <= {default, *re.findall(r"`[^`]+`", text)}, name


def test_the_bounds_are_the_servers() -> None:
    json, mebi, kibi = JsonBounds(), 2**20, 2**10
    for what, bound in {
        "body": f"{heads.MAX_BODY_BYTES // mebi} MiB, or what the model's context can need",
        "objects and lists in a body; strings; values; depth": (
            f"{json.containers:,}; {json.strings:,}; {json.values:,}; {json.depth}"
        ),
        "head of a request": (
            f"{protocol.MAX_HEAD_BYTES // kibi} KiB, {protocol.MAX_HEADERS} headers, {protocol.HEAD_S:g} s"
        ),
        "body, between two parts; whole": f"{body.IDLE_S:g} s; {body.TOTAL_S:g} s",
        "connection without a request": f"{protocol.IDLE_S:g} s",
        "client that reads nothing on, while much is written for it": f"{protocol.UNREAD_S:g} s",
        "connections": f"{protocol.MAX_CONNECTIONS:,}",
    }.items():
        assert f"\n| {what} | {bound} |" in PAGE, what
