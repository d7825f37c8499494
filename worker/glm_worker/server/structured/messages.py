"""What the server and its compile process say to each other, framed as on all control links (control.py)."""

import msgspec

from glm_worker.server.structured.recipe import Recipe


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Process to server: xgrammar and the vocabulary are loaded."""


class CannotStart(msgspec.Struct, frozen=True, tag=True):
    """Process to server: it ends, and why."""

    reason: str


class Compile(msgspec.Struct, frozen=True, tag=True):
    """Server to process: one recipe. The next one is sent after the answer to this."""

    recipe: Recipe


class Compiled(msgspec.Struct, frozen=True, tag=True):
    """Process to server: the grammar, packed by model/grammar_vocabulary.py."""

    compiled: bytes


class NotCompiled(msgspec.Struct, frozen=True, tag=True):
    """Process to server: it cannot be compiled. is_too_large: within the limits; else at all."""

    reason: str
    is_too_large: bool


FromProcess = Ready | CannotStart | Compiled | NotCompiled
