"""A program that keeps a supervisor's promises towards local mode, in a tenth of a second instead of ten.

PRETEND says how it behaves: serves, crashes (at once), loads (never ready), hangs (ignores SIGTERM), fails (backs off).
START_S is how long a follower takes before it is there, MEMORY_BYTES what a pod holds (it takes time to give back).
A leader is ready when all pods of its group are there, as a real one. It answers completions with as many words as are
asked for, WORD_S between two of them, its group's name the first. LAST_WORD names a file that the last word waits for.
SIGTERM lets those under way end.
Its child stands for ranks: it outlives a supervisor that is killed.
"""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType

MODE = os.environ.get("PRETEND", "serves")
HOST, PORT = os.environ["GLM_HOST"], int(os.environ["GLM_MANAGEMENT_PORT"])
INDEX, NUM_PODS = int(os.environ["GLM_POD_INDEX"]), int(os.environ["GLM_NUM_PODS"])
GENERATIONS = [
    {
        "id": "x-1",
        "started_at": 1.0,
        "ready_at": None,
        "ended_at": 2.0,
        "cause": {"rank": 1, "pod": 0, "reason": "failed"},
    }
]
DIGESTS: dict[str, str | None] = {"/slo": None, "/policy": None}  # of what was put there last
VIEW = {
    "serves": {"state": "serving", "generation": "x-1"},
    "loads": {"state": "starting", "generation": "x-1", "load": {"done_bytes": 5, "total_bytes": 10}},
    "fails": {"state": "backing_off", "generation": None, "consecutive_start_failures": 3, "generations": GENERATIONS},
}


WORD_S = float(os.environ.get("WORD_S", "0"))
LAST_WORD = Path(os.environ.get("LAST_WORD", os.devnull))
UNDER_WAY: set[int] = set()
ENDING: list[str] = []


class Completions(BaseHTTPRequestHandler):
    """The port for clients, without frames: as a worker from before there were gateways."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        UNDER_WAY.add(id(self))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for number in range(asked["max_tokens"]):
            while number == asked["max_tokens"] - 1 and not LAST_WORD.exists():
                time.sleep(0.01)
            word = f" {number}" if number else os.environ["GLM_GROUP"]
            choice = {"index": 0, "text": word, "finish_reason": None}
            self.wfile.write(
                f"data: {json.dumps({'id': 'c', 'object': 'text_completion', 'choices': [choice]})}\n\n".encode()
            )
            time.sleep(WORD_S)
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True
        UNDER_WAY.discard(id(self))

    def log_message(self, *_: object) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/load":
            self.tell_load()
            return
        view = {"group": os.environ["GLM_GROUP"], "slo_digest": DIGESTS["/slo"], "policy_digest": DIGESTS["/policy"]}
        view |= VIEW.get(MODE, VIEW["serves"])
        ready = view["state"] == "serving" and all(map(is_there, range(INDEX + 1, NUM_PODS)))
        body = json.dumps(view).encode() if self.path == "/group" else b"ok"
        self.send_response(200 if ready or self.path != "/readyz" else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def tell_load(self) -> None:
        """Say five times a second that it is ready, until nobody listens."""
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(json.dumps({"ready": MODE == "serves" and not ENDING}).encode() + b"\n")
                time.sleep(0.2)

    def do_PUT(self) -> None:
        """Take promises or a policy from who knows the token."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        knows = self.headers["Authorization"] == f"Bearer {os.environ['GLM_MANAGEMENT_TOKEN']}"
        if knows:
            canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
            DIGESTS[self.path] = hashlib.sha256(canonical.encode()).hexdigest()[:16]
        self.send_response(200 if knows else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def is_there(pod: int) -> bool:
    """Whether a pod of this group listens; from then on it has its child and heeds SIGTERM."""
    network = HOST.rpartition(".")[0]
    with socket.socket() as connection:
        return connection.connect_ex((f"{network}.{pod + 1}", PORT)) == 0


def main() -> None:
    print(f"{os.environ['GLM_GROUP']} pod {INDEX}: {sys.argv[1:]}", flush=True)
    if INDEX > 0:
        time.sleep(float(os.environ.get("START_S", "0")))
    if MODE == "crashes":
        sys.exit("no such model: /nowhere")
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])

    def finish(_number: int, _frame: FrameType | None) -> None:
        ENDING.append("told")
        if MODE != "hangs":
            threading.Thread(target=end).start()

    def end() -> None:
        while UNDER_WAY:
            time.sleep(0.01)
        child.kill()
        child.wait()
        os._exit(0)

    signal.signal(signal.SIGTERM, finish)
    _held = b"x" * int(os.environ.get("MEMORY_BYTES", "0"))
    if INDEX == 0:
        clients = ThreadingHTTPServer((HOST, int(os.environ["GLM_HTTP_PORT"])), Completions)
        threading.Thread(target=clients.serve_forever, daemon=True).start()
    server = ThreadingHTTPServer((HOST, PORT), Handler)
    server.serve_forever()


if __name__ == "__main__":
    main()
