"""`glm-gateway`: reads its file and its secrets, serves, and waits for its requests when it is to stop."""

import asyncio
import gc
import logging
import os
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import uvloop

from glm_edge.kept_memory import keep_freed_memory
from glm_edge.logs import Discreet
from glm_edge.open_files import raise_open_files
from glm_gateway.config.file import BadConfig
from glm_gateway.config.secrets import Secrets, secrets_in
from glm_gateway.config.source import ConfigSource
from glm_gateway.runtime.serve import ENDPOINTS_FOLLOW_S, serve

GC_ALLOCATIONS = 10_000
"""Between two looks for garbage, of which requests leave little: Python's own 700 are one or two requests."""

log = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(prog="glm-gateway", description="The address of GLMDeployments.")
    parser.add_argument("--config", type=Path, required=True, help="the gateway's file, JSON or YAML")
    parser.add_argument(
        "--follow-seconds",
        type=float,
        default=ENDPOINTS_FOLLOW_S,
        help="how long it takes requests after it was told to stop; default: %(default)g, for a cluster to hear of it",
    )
    given = parser.parse_args(arguments)
    path: Path = given.config
    handler = logging.StreamHandler()
    handler.setFormatter(Discreet(LOG_FORMAT))  # what errors quote may be a prompt
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        source, secrets = ConfigSource(path), secrets_in(os.environ)
        log.info("files that may be open: %d", raise_open_files())
        keep_freed_memory()
        gc.collect()
        gc.set_threshold(GC_ALLOCATIONS)
        gc.freeze()  # what was imported stays: looking at it again and again would hold up every stream
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_signalled(source, secrets, given.follow_seconds))
    except OSError as error:
        sys.stderr.write(f"glm-gateway: {error}\n")
        return 1
    except BadConfig as error:
        sys.stderr.write(f"glm-gateway: {path}: {error}\n")
        return 2
    return 0


async def _until_signalled(source: ConfigSource, secrets: Secrets, follow_s: float) -> None:
    """Serve until the first signal. A second one changes nothing: what is under way has its time."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await serve(source, secrets, stopping, follow_s=follow_s)


if __name__ == "__main__":
    sys.exit(main())
