"""How the commands speak: results on stdout, everything else on stderr, an error as one sentence and exit status 1."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from glm_operator.api.spec import InvalidSpec
from glm_operator.api.url import base_url, redacted
from glm_operator.cli.files import FileError
from glm_operator.errors import KubeError
from glm_operator.local.errors import LocalError

out = Console(highlight=False, soft_wrap=True)
err = Console(highlight=False, soft_wrap=True, stderr=True)

QUIET_S = 2.0

SpecFile = Annotated[
    Path, typer.Option("--file", "-f", help="YAML file with one GLMDeployment; - reads standard input.")
]


class CommandError(Exception):
    """What a command cannot do, in a sentence for the person who typed it."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what a person has to mend into a sentence and exit status 1; all else is a bug and keeps its traceback."""
    try:
        yield
    except (CommandError, FileError, InvalidSpec, KubeError, LocalError) as error:
        err.print(f"error: {error}", markup=False)
        raise typer.Exit(1) from error


def url_of_option(prometheus: str) -> str:
    """Return what --prometheus names as queries are added to it. Raises CommandError with what is allowed."""
    try:
        return base_url(prometheus)
    except ValueError as error:
        raise CommandError(f"--prometheus {redacted(prometheus)}: {error}") from None


def size(num_bytes: int) -> str:
    """A size for people, in binary units."""
    value, units = float(num_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] in ("B", "KiB", "MiB") else f"{value:.1f} {units[0]}"


@contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """Show what is being waited for: a spinner on a terminal, else a line when it changes, not too often."""
    if err.is_terminal:
        with err.status(text) as status:
            yield status.update
        return
    shown, since = text, time.monotonic()
    err.print(text, markup=False)

    def show(new: str) -> None:
        nonlocal shown, since
        if new != shown and time.monotonic() - since >= QUIET_S:
            shown, since = new, time.monotonic()
            err.print(new, markup=False)

    yield show
