"""A program that keeps a supervisor's promises towards local mode, in a tenth of a second instead of ten.

PRETEND says how it behaves: serves, crashes (at once), loads (never ready), hangs (ignores SIGTERM), fails (backs off).
Its child stands for ranks: it outlives a supervisor that is killed.
"""

import json
import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType

MODE = os.environ.get("PRETEND", "serves")
GENERATIONS = [
    {
        "id": "x-1",
        "started_at": 1.0,
        "ready_at": None,
        "ended_at": 2.0,
        "cause": {"rank": 1, "pod": 0, "reason": "failed"},
    }
]
VIEW = {
    "serves": {"state": "serving", "generation": "x-1"},
    "loads": {"state": "starting", "generation": "x-1", "load": {"done_bytes": 5, "total_bytes": 10}},
    "fails": {"state": "backing_off", "generation": None, "consecutive_start_failures": 3, "generations": GENERATIONS},
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        view = {"group": os.environ["GLM_GROUP"]} | VIEW.get(MODE, VIEW["serves"])
        ready = view["state"] == "serving"
        body = json.dumps(view).encode() if self.path == "/group" else b"ok"
        self.send_response(200 if ready or self.path != "/readyz" else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    print(f"{os.environ['GLM_GROUP']} pod {os.environ['GLM_POD_INDEX']}: {sys.argv[1:]}", flush=True)
    if MODE == "crashes":
        sys.exit("no such model: /nowhere")
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])

    def finish(_number: int, _frame: FrameType | None) -> None:
        if MODE != "hangs":
            child.kill()
            child.wait()
            os._exit(0)

    signal.signal(signal.SIGTERM, finish)
    server = ThreadingHTTPServer((os.environ["GLM_HOST"], int(os.environ["GLM_MANAGEMENT_PORT"])), Handler)
    server.serve_forever()


if __name__ == "__main__":
    main()
