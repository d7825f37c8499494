"""What stands between a client and the server and keeps what both said, unchanged.

It is also an HTTP proxy for everything else: it connects nobody to any other host, and keeps the names of those that
were asked for.
"""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

_OF_ONE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "proxy-connection"}


@dataclass
class Exchange:
    """One request and what came back. is_whole: the response was read to its end and passed on to its end."""

    method: str
    path: str
    request_headers: dict[str, str]
    request_body: bytes
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_whole: bool = False

    @property
    def asked(self) -> dict[str, Any]:
        """Return the request's JSON."""
        return dict(json.loads(self.request_body))


@dataclass
class Recorded:
    """url: where clients find the server. others: hosts that were asked for by who takes this for an HTTP proxy."""

    url: str
    exchanges: list[Exchange] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


@contextmanager
def recording(server: str) -> Iterator[Recorded]:
    """Run the proxy on a free port of 127.0.0.1. server: host:port."""

    class Handler(_Handler):
        upstream = server

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.daemon_threads = True
    Handler.recorded = Recorded(f"http://127.0.0.1:{proxy.server_address[1]}")
    thread = Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield Handler.recorded
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: str
    recorded: Recorded

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Say nothing: the exchanges are kept."""

    def do_CONNECT(self) -> None:
        self._refuse(self.path)

    def do_GET(self) -> None:
        self._pass_on()

    do_POST = do_DELETE = do_PUT = do_HEAD = do_OPTIONS = do_GET

    def _refuse(self, host: str) -> None:
        self.recorded.others.append(host)
        self.send_error(403, "this proxy connects nobody to other hosts")
        self.close_connection = True

    def _pass_on(self) -> None:
        if host := urlsplit(self.path).hostname:  # a proxy is asked with the whole address
            self._refuse(host)
            return
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        exchange = Exchange(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        self.recorded.exchanges.append(exchange)
        upstream = http.client.HTTPConnection(self.upstream, timeout=600)
        sent = {name: value for name, value in exchange.request_headers.items() if name not in _OF_ONE_CONNECTION}
        upstream.request(self.command, self.path, body, sent)
        response = upstream.getresponse()
        exchange.status = response.status
        exchange.headers = {name.lower(): value for name, value in response.getheaders()}
        self.send_response_only(response.status)
        for name, value in exchange.headers.items():
            if name not in _OF_ONE_CONNECTION:
                self.send_header(name, value)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        while part := response.read1():  # as soon as it comes
            exchange.body += part
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        upstream.close()
        exchange.is_whole = True
