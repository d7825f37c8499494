"""A program: answers for the leader of every group on fake nodes that it serves.

Their pods run nothing, and their addresses are the cluster's own network namespace, where this listens.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REPORT = {
    "state": "serving",
    "generation": "1",
    "in_flight_tokens": 0,
    "generations": [{"id": "1", "ready_at": "2026-01-01T00:00:00Z"}],
}
"""Of /group: that it has served since its first generation, and nothing else of note."""


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(REPORT).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: the operator asks often."""


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Answer).serve_forever()
