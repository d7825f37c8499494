"""How soon the KV blocks of a request are free when its client goes away.

`glm-worker serve` with glm-nano on two CPU ranks of this machine. A client asks for 1,500 tokens, waits until KV blocks
are in use, and closes its connection. Measured: from the close to the first look at /metrics that shows no block in
use. Half of the requests are streamed. There is no peer: what is compared is the promise of 1 s.

Ends with a JSON line for each kind of request: seconds as p95.
"""

import argparse
import json
import socket
import sys
import tempfile
import time
from pathlib import Path

import httpx
from recovery import GIVE_UP_S, Question, loopback_address, our_group, percentile

GOAL_S = 1.0
QUESTION = Question("builtin://glm-nano", "cpu", "What is 12+30?", "42")


def blocks_in_use(client: httpx.Client, host: str) -> float:
    text = client.get(f"http://{host}:9090/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("glm_kv_cache_usage_ratio{")]
    return float(lines[0].rpartition(" ")[2]) if lines else 0.0


def wait_until(client: httpx.Client, host: str, *, in_use: bool) -> None:
    deadline = time.monotonic() + GIVE_UP_S
    while (blocks_in_use(client, host) > 0) != in_use:
        if time.monotonic() > deadline:
            raise SystemExit(f"blocks were {'never' if in_use else 'still'} in use after {GIVE_UP_S:.0f} s")
        time.sleep(0.005)


def cancel(client: httpx.Client, host: str, *, stream: bool) -> float:
    """Ask, go away, and return the seconds until no block was in use."""
    messages = [{"role": "user", "content": "Count from 1 to 90."}]
    body = {"model": "glm-nano", "messages": messages, "max_tokens": 1500, "ignore_eos": True, "stream": stream}
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: nano\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    with socket.create_connection((host, 8000)) as connection:
        connection.sendall(head + data)
        wait_until(client, host, in_use=True)
    gone_at = time.monotonic()
    wait_until(client, host, in_use=False)
    return time.monotonic() - gone_at


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20, help="of each kind")
    arguments = parser.parse_args()
    host, lines = loopback_address(), []
    with (
        tempfile.TemporaryDirectory() as folder,
        our_group(QUESTION, [host], 2, Path(folder)) as group,
        httpx.Client(trust_env=False) as client,
    ):
        if group.wait_for_answer(QUESTION.expect, GIVE_UP_S) is None:
            raise SystemExit("the group does not answer")
        for kind, stream in (("streamed", True), ("whole", False)):
            seconds = [cancel(client, host, stream=stream) for _ in range(arguments.requests)]
            p50, p95, most = (percentile(seconds, p) for p in (50, 95, 100))
            print(f"{kind}: {len(seconds)} requests, p50 {p50:.3f} s, p95 {p95:.3f} s, max {most:.3f} s", flush=True)
            lines.append(
                {
                    "bench": "cancel",
                    "metric": f"p95 seconds until a lost client's blocks are free, {kind}, {len(seconds)} requests",
                    "ours": round(p95, 3),
                    "peer": None,
                    "ratio": None,
                    "goal": GOAL_S,
                    "met": p95 <= GOAL_S,
                }
            )
    for line in lines:
        print(json.dumps(line))
    return 0 if all(line["met"] for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
