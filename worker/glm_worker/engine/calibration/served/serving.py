"""A real `glm-worker serve` of this group: how long it takes to serve, and what a request takes besides its steps."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

import httpx

from glm_worker.engine.calibration.result import PrefillCost
from glm_worker.engine.calibration.served.backlog import Foretold
from glm_worker.engine.calibration.served.streams import stream_all
from glm_worker.errors import EngineFailed
from glm_worker.settings import WorkerSettings

NUM_REQUESTS = 20
NUM_BACKLOGS = 5
LOOK_S = 0.02
STOP_LIMIT_S = 30.0
_log = logging.getLogger("glm_worker.calibration")


def cold_starts(settings: WorkerSettings, environment: Mapping[str, str], num_starts: int) -> list[float]:
    """Start the group so many times; return the seconds of each start until it served. Raises EngineFailed."""
    seconds = []
    for _ in range(num_starts):
        with serving(settings, environment) as start_s:
            seconds.append(start_s)
    return seconds


def overhead_s(settings: WorkerSettings, prefill: PrefillCost) -> float:
    """Return the median over short requests, one after the other, of what is left of their first token's time.

    The group serves already. Raises EngineFailed.
    """
    seconds = []
    with httpx.Client(trust_env=False, timeout=settings.start_limit_s) as client:
        name = _model_name(client, settings)
        for number in range(1 + NUM_REQUESTS):
            first_token_s, prompt_tokens = _ask(client, settings, name, number)
            if number:  # the first of all pays for what is made once
                seconds.append(max(0.0, first_token_s - prefill.seconds(prompt_tokens, prompt_tokens**2 / 2)))
    return median(seconds)


def token_s(
    settings: WorkerSettings, requests: Sequence[tuple[int, int]], foretold: Foretold
) -> tuple[float, list[float]]:
    """Return what a generated token takes when it is served, besides its row in a step; and the seconds of each round.

    A backlog is streamed to a client. Its steps take longer than those that the engine was seen to take alone: they
    share caches, memory and cores with what reads, sends and receives their tokens, and a full batch of long requests
    reads more than caches hold. requests: tokens of each prompt and answer; foretold: what the costs of the engine
    alone say of them. The group serves already. Raises EngineFailed.
    """
    with httpx.Client(trust_env=False, timeout=settings.start_limit_s) as client:
        name = _model_name(client, settings)
    bodies = [_backlog_body(name, number, *tokens) for number, tokens in enumerate(requests)]
    rounds = []
    for number in range(1 + NUM_BACKLOGS):
        times = asyncio.run(stream_all(settings.host or "127.0.0.1", settings.http_port, bodies))
        if number:  # the first of all pays for what is made once
            rounds.append(max(last_s for _, last_s in times) - min(first_s for first_s, _ in times))
    return max(0.0, median(rounds) - foretold.seconds) / max(1, foretold.tokens), rounds


@contextlib.contextmanager
def serving(settings: WorkerSettings, environment: Mapping[str, str]) -> Iterator[float]:
    """Have the group serve; the value is how many seconds its start took. It has ended when this returns.

    environment: that of its process, with the settings in it. Raises EngineFailed if it does not serve in time.
    """
    began_s = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "glm_worker.main", "serve"], env=dict(environment))
    try:
        _wait(process, settings, began_s + settings.start_limit_s)
        start_s = time.monotonic() - began_s
        _log.info("the group serves after %.2f s", start_s)
        yield start_s
    finally:
        _stop(process)


def _wait(process: subprocess.Popen[bytes], settings: WorkerSettings, deadline_s: float) -> None:
    url = f"{_url(settings, settings.management_port)}/readyz"
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each look is noise
    with httpx.Client(trust_env=False, timeout=5.0) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if client.get(url).status_code == httpx.codes.OK:
                    return
            if process.poll() is not None:
                raise EngineFailed(f"glm-worker serve ended with exit code {process.returncode} before it served")
            if time.monotonic() > deadline_s:
                raise EngineFailed(f"the group does not serve after start_limit_s {settings.start_limit_s:g}")
            time.sleep(LOOK_S)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End it without a drain: nobody is there to be drained."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(LOOK_S)
        os.kill(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _ask(client: httpx.Client, settings: WorkerSettings, name: str, number: int) -> tuple[float, int]:
    """Return the seconds until the first token of a short request, and the tokens of its prompt."""
    body = {
        "model": name,
        "messages": [{"role": "user", "content": f"What is {number}+{number}?"}],
        "max_tokens": 4,
        "thinking": {"type": "disabled"},  # or the first token is a mark that no client sees
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began_s, first_s, prompt_tokens = time.monotonic(), 0.0, 0
    url = f"{_url(settings, settings.http_port)}/v1/chat/completions"
    with client.stream("POST", url, json=body) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if not first_s and any(_has_text(choice["delta"]) for choice in event["choices"]):
                first_s = time.monotonic() - began_s
            prompt_tokens = (event.get("usage") or {}).get("prompt_tokens", prompt_tokens)
    if not first_s or not prompt_tokens:
        raise EngineFailed("a request of the calibration brought no token")
    return first_s, prompt_tokens


def _model_name(client: httpx.Client, settings: WorkerSettings) -> str:
    models = client.get(f"{_url(settings, settings.http_port)}/v1/models").json()
    return str(models["data"][0]["id"])


def _backlog_body(name: str, number: int, prompt: int, answer: int) -> bytes:
    token_ids = [1 + (i + number) % 97 for i in range(prompt)]  # any vocabulary has these
    asked = {"model": name, "prompt": token_ids, "max_tokens": answer, "ignore_eos": True, "stream": True}
    return json.dumps(asked | {"temperature": 1, "top_p": 1, "top_k": 0, "min_p": 0}).encode()  # as in the experiments


def _has_text(delta: Mapping[str, object]) -> bool:
    return any(delta.get(name) for name in ("content", "reasoning_content", "tool_calls"))


def _url(settings: WorkerSettings, port: int) -> str:
    host = settings.host or "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
