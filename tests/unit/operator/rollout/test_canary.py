"""The newest revision is the target's, but while groups go back from one that never got all of them."""

import json
from dataclasses import replace
from typing import Any

import pytest

from glm_operator.rollout.canary import newest_revision
from unit.operator.operator_builders import a_group, moving_to, observed


def said(revision: str | None) -> dict[str, Any]:
    canary = {} if revision is None else {"canary": {"revision": revision, "weight": 10}}
    return {
        "data": {
            "gateway.json": json.dumps(
                {"models": [{"name": "m", "deployment": "chat", "groups": {"service": "s"}, **canary}]}
            )
        }
    }


@pytest.mark.parametrize(
    ("target", "running", "file", "newest"),
    [
        ("r2", ["r1", "r1"], None, "r2"),
        ("r2", ["r1", "r2"], "r2", "r2"),
        ("r2", ["r1", "r2"], None, "r2"),
        ("r1", ["r1", "r2"], "r2", "r2"),  # taken back: most callers stay with what they had
        ("r1", ["r1", "r1"], "r2", "r1"),
        ("r3", ["r1", "r2"], "r2", "r3"),  # a third one, before the second one had all
        ("r1", ["r2", "r2"], "r2", "r1"),  # an older one is released again, once the rollout before has ended
        ("r1", ["r2", "r1"], "r1", "r1"),
    ],
)
def test_which_one_it_is(target: str, running: list[str], file: str | None, newest: str) -> None:
    groups = [a_group(index, revision=revision) for index, revision in enumerate(running)]
    live = {("v1", "ConfigMap", "chat-gateway"): said(file)}
    seen = replace(observed(*groups), live=live)
    assert newest_revision(replace(moving_to(replicas=2), revision=target), seen) == newest


@pytest.mark.parametrize("data", [{}, {"gateway.json": "no json"}, {"gateway.json": "[]"}])
def test_a_file_that_says_nothing_is_no_memory(data: dict[str, str]) -> None:
    seen = replace(observed(a_group(0)), live={("v1", "ConfigMap", "chat-gateway"): {"data": data}})
    target = moving_to(replicas=1)
    assert newest_revision(target, seen) == newest_revision(target, observed()) == target.revision
