"""What a client's script prints: one JSON object, with what came of each of its cases.

A case is a function that talks to the server and returns what it got. One that fails says so under its name, and the
others go on.
"""

import argparse
import contextlib
import json
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

MODEL = "glm-nano"
START_LIMIT_S = 200.0

Case = Callable[[], dict[str, Any]]


def server_url() -> str:
    """Return the address of the server, the script's only argument, once it serves: packages are long to import."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url", help="of the server, as http://127.0.0.1:8000")
    url = str(parser.parse_args().url).rstrip("/")
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            urllib.request.urlopen(f"{url}/health").close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return url


def report(package: str, cases: dict[str, Case]) -> None:
    """Run the cases one after the other and print what came of them, and nothing that packages print beside it."""
    results = {}
    for name, case in cases.items():
        try:
            with contextlib.redirect_stdout(sys.stderr):
                results[name] = case()
        except Exception:  # noqa: BLE001 - whatever it is, it is what came of the case
            results[name] = {"failed": traceback.format_exc()}
    json.dump({"version": version(package), "cases": results}, sys.stdout)
