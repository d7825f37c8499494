"""Every error the worker raises on purpose.

GlmWorkerError
├── ConfigError        settings or a model folder that can never work; the process exits at once
├── RequestRefused     the client asked for something it may not have (4xx); carries status, param and code
├── Overloaded         no room now (503); carries retry_after_s
├── AnswerFailed       an answer cannot go on by a fault of ours, and the others do (500)
├── GenerationLost     the ranks that computed an answer died twice, and it does not go on (503)
└── EngineFailed       this rank cannot go on; its generation ends and the next one starts
"""


class GlmWorkerError(Exception):
    """Root of the tree above."""


class ConfigError(GlmWorkerError):
    """A setting or a checkpoint that no retry can mend. The message names it, its value and what is allowed."""


class RequestRefused(GlmWorkerError):
    """A request that is the client's to mend, in the words and the shape of the OpenAI API."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status


class Overloaded(GlmWorkerError):
    """The queue is full. The same request may succeed after retry_after_s seconds."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class DeadlinePassed(GlmWorkerError):
    """A request had a deadline of its own, and its answer was not complete by then."""

    def __init__(self, deadline_s: float) -> None:
        super().__init__(f"the answer was not complete within the {deadline_s:g} seconds that the request allows")


class AnswerFailed(GlmWorkerError):
    """One answer that the engine cannot go on with, though nothing is wrong with its request. Others go on."""


class GenerationLost(GlmWorkerError):
    """An answer whose generation died, and the next one as well. The same request may well succeed."""


class EngineFailed(GlmWorkerError):
    """A broken invariant or a lost peer: the rank ends, and its generation with it."""
