"""What a client's script prints: one JSON object, with what came of each of its cases.

A case is a function that talks to the server and returns what it got. One that fails says so under its name, and the
others go on. Before a gateway a script gets a key, and others whose limits it is to run into.
"""

import argparse
import contextlib
import json
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from typing import Any

MODEL = "glm-nano"
START_LIMIT_S = 200.0
STALLED = "stalled"
LIMITED_TO = 600
"""Tokens of answers a minute, for each limited key: ten in a second."""

Case = Callable[[], dict[str, Any]]


@cache
def options() -> argparse.Namespace:
    """Return the arguments of the script: url, key, limited, only."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url", help="of the server, as http://127.0.0.1:8000")
    parser.add_argument("--key", default="none", help="to ask with; a server without a gateway takes any")
    parser.add_argument("--limited", help="the beginning of keys with limits: the cases that are about them run, too")
    parser.add_argument("--only", help="names of the cases to run, with commas")
    return parser.parse_args()


def server_url() -> str:
    """Return the address of the server, once it serves: packages are long to import."""
    url = str(options().url).rstrip("/")
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


def key() -> str:
    """Return the key to ask with."""
    return str(options().key)


def limited_key(case: str) -> str:
    """Return the key whose limits a case runs into. Each has its own: what one has used counts for no other."""
    return f"{options().limited}-{case}"


@contextlib.contextmanager
def nearly_used_up(url: str, limited: str) -> Iterator[float]:
    """While this is entered, a request of another model, which does not end, has all that a limited key may have.

    Yields the moment at which it was asked, of time.monotonic(): twenty tokens more are there two seconds later.
    """
    body = json.dumps({"model": STALLED, "prompt": "1", "max_tokens": LIMITED_TO, "stream": True}).encode()
    headers = {"authorization": f"Bearer {limited}", "content-type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/completions", body, headers)
    asked_s = time.monotonic()
    with urllib.request.urlopen(request):
        yield asked_s


def report(package: str, cases: dict[str, Case]) -> None:
    """Run the cases one after the other and print what came of them, and nothing that packages print beside it."""
    results = {}
    only = options().only
    for name, case in cases.items():
        if only is not None and name not in only.split(","):
            continue
        try:
            with contextlib.redirect_stdout(sys.stderr):
                results[name] = case()
        except Exception:  # noqa: BLE001 - whatever it is, it is what came of the case
            results[name] = {"failed": traceback.format_exc()}
    json.dump({"version": version(package), "cases": results}, sys.stdout)
