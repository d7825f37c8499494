"""The labelled prompts that ship with the tests."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from glm_worker.server.thinking.features import Features, PastTurn, features_of


@dataclass(frozen=True)
class Labelled:
    """A conversation, and whether thinking pays off for its answer."""

    turns: tuple[PastTurn, ...]
    num_tools: int
    thinks: bool
    language: str

    @property
    def features(self) -> Features:
        return features_of(self.turns, self.num_tools)


@cache
def prompts(name: str) -> tuple[Labelled, ...]:
    lines = (Path(__file__).parent / f"prompts_{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(
        Labelled(tuple(PastTurn(**turn) for turn in raw["turns"]), raw["num_tools"], raw["thinks"], raw["language"])
        for raw in map(json.loads, lines)
    )
