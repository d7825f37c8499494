"""Log lines of every process of a pod: one line each, to stderr, with the group and the pod in key=value form."""

import logging
import sys
import traceback
from collections.abc import Iterator
from copy import copy

from glm_worker.errors import GlmWorkerError
from glm_worker.settings import WorkerSettings


class OneLine(logging.Formatter):
    """Folds a traceback into its record's line, so that a line stays a record."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", " | ")


class Discreet(OneLine):
    """Leaves out of a traceback what errors say, but for our own and the system's: others quote prompts and answers.

    The frames stay, and what kind of error it was.
    """

    def format(self, record: logging.LogRecord) -> str:
        record = copy(record)
        record.exc_text = None  # as another formatter has written it
        return super().format(record)

    def formatException(self, ei: object) -> str:  # noqa: N802 - logging's name
        assert isinstance(ei, tuple)
        return "\n".join(line for error in reversed(list(_chain(ei[1]))) for line in _told(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those behind it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _told(error: BaseException) -> Iterator[str]:
    yield "Traceback (most recent call last):"
    for frame in traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False):
        yield f"  {frame.filename}:{frame.lineno} {frame.name}"
    said = f": {error}" if isinstance(error, GlmWorkerError | OSError) else ""
    yield f"{type(error).__name__}{said}"


def configure_logging(settings: WorkerSettings, process: str) -> None:
    """Send everything from INFO up to stderr. process: supervisor, zygote, rank-3, server."""
    handler = logging.StreamHandler(sys.stderr)
    where = f"group={settings.group} pod={settings.pod_index} process={process}".replace("%", "%%")
    formatter = Discreet if process == "server" else OneLine  # the only one that meets texts
    handler.setFormatter(formatter(f"%(asctime)s %(levelname)s {where} %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # it greets as a program of its own, which it is not
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)  # a line a probe would drown the rest
