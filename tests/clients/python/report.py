"""What a client's script prints: one JSON object, with what came of each of its cases.

A case is a function that talks to the server and returns what it got. One that fails says so under its name, and the
others go on.
"""

import argparse
import contextlib
import json
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

MODEL = "glm-nano"

Case = Callable[[], dict[str, Any]]


def server_url() -> str:
    """Return the address of the server, which is the script's only argument: http://host:port."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url", help="of the server, as http://127.0.0.1:8000")
    return str(parser.parse_args().url).rstrip("/")


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
