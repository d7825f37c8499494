"""Lines of logs of what meets texts of clients: one line a record, and of errors only what kind they are."""

import logging
import traceback
from collections.abc import Iterator
from copy import copy


class OneLine(logging.Formatter):
    """Folds a traceback into its record's line, so that a line stays a record."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", " | ")


class Discreet(OneLine):
    """Leaves out of a traceback what errors say, but for those that `tells` names: others quote prompts and answers.

    The frames stay, and what kind of error it was.
    """

    tells: tuple[type[BaseException], ...] = (OSError,)

    def format(self, record: logging.LogRecord) -> str:
        record = copy(record)
        record.exc_text = None  # as another formatter has written it
        return super().format(record)

    def formatException(self, ei: object) -> str:  # noqa: N802 - logging's name
        assert isinstance(ei, tuple)
        return "\n".join(line for error in reversed(list(_chain(ei[1]))) for line in self._told(error))

    def _told(self, error: BaseException) -> Iterator[str]:
        yield "Traceback (most recent call last):"
        for frame in traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False):
            yield f"  {frame.filename}:{frame.lineno} {frame.name}"
        said = f": {error}" if isinstance(error, self.tells) else ""
        yield f"{type(error).__name__}{said}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those behind it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
