"""What the server, its compile process and the zygote that forks it say to each other, framed as in control.py."""

import msgspec

from glm_worker.server.structured.recipe import Recipe

# on the link of a compile process: server to process


class Begin(msgspec.Struct, frozen=True, tag=True):
    """The first word, for the life of the process."""

    folder: str  # of the checkpoint
    cpu_s: float  # that one grammar may take
    memory_bytes: int  # that may be allocated beyond what the ready process has
    num_bytes: int  # of one compiled grammar, unpacked


class Compile(msgspec.Struct, frozen=True, tag=True):
    """Compile one recipe. The next one is sent after the answer to this."""

    recipe: Recipe


ToProcess = Begin | Compile

# process to server


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The vocabulary is loaded, and the limits hold."""


class CannotStart(msgspec.Struct, frozen=True, tag=True):
    """The process ends, and why."""

    reason: str


class Compiled(msgspec.Struct, frozen=True, tag=True):
    """The grammar, packed by model/grammar_vocabulary.py."""

    compiled: bytes


class NotCompiled(msgspec.Struct, frozen=True, tag=True):
    """It cannot be compiled. is_too_large: within the limits; else at all."""

    reason: str
    is_too_large: bool


FromProcess = Ready | CannotStart | Compiled | NotCompiled

# on the connection that is the life of a compile process


class Kill(msgspec.Struct, frozen=True, tag=True):
    """Server to zygote: kill the process. The end of the connection says the same."""


class Ended(msgspec.Struct, frozen=True, tag=True):
    """Zygote to server: how the process ended, an exit code or the negative number of a signal. The last word."""

    code: int
