"""How Prometheus is reached and what lets us in: its URL, certificates and credentials, and one GET of its HTTP API.

Every query is a GET: what lets nobody write may well let nobody POST. Files are read again when they change. Nothing is
sent to another host than the one of the URL.
"""

import json
import logging
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx

from glm_operator.api.url import redacted
from glm_operator.cluster.metrics.reading import MetricsProblem

logger = logging.getLogger(__name__)

CONNECT_S = 2.0
MAX_ANSWER_BYTES = 32 * 2**20
"""Demand of 300 groups that are scraped every 5 s is some 5 MiB."""

MAX_REDIRECTS = 3
MAX_QUOTED = 300
_REFUSALS = (400, 401, 403, 422)


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where Prometheus is, and what lets us in. Files are read again when they change: a Secret is mounted there."""

    url: str  # of the server, with the prefix of its path where it has one
    ca_file: Path | None = None  # None: the system's
    certificate_file: Path | None = None  # of the client, with key_file
    key_file: Path | None = None
    bearer_token_file: Path | None = None
    username_file: Path | None = None
    password_file: Path | None = None
    timeout_s: float = 4.0  # of a query, waiting for its turn included
    has_recording_rules: bool = False
    max_window_s: float = 30 * 86400.0  # no query looks further back


class Connection:
    """Asks one Prometheus. Raises MetricsProblem (MetricsUnreachable, MetricsRefused) for all that can go wrong."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._server = f"Prometheus at {redacted(access.url)}"  # as it is told
        self._http: httpx.AsyncClient | None = None
        self._stamp: list[int | None] = []  # of the files that the client was made from
        self._outdated: list[httpx.AsyncClient] = []
        self._warned = ""

    async def close(self) -> None:
        for http in (*self._outdated, self._http):
            if http is not None:
                await http.aclose()
        self._http, self._outdated = None, []

    def unreachable(self, what: str) -> MetricsProblem:
        """Return the problem of an answer that cannot be had."""
        return MetricsProblem("MetricsUnreachable", f"{self._server} {what}")

    async def instant(self, query: str) -> object:
        """Return the result of an instant query as JSON has it."""
        url = httpx.URL(f"{self.access.url}/api/v1/query", params={"query": query, "timeout": self._timeout})
        http = self._client()
        headers, auth = self._credentials()
        for _ in range(MAX_REDIRECTS):
            try:
                async with http.stream("GET", url, headers=headers, auth=auth) as response:
                    body = await self._read(response)
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:  # OSError: a TLS alert after the handshake
                raise self.unreachable(f"cannot be reached: {str(error) or type(error).__name__}") from error
            if response.next_request is None:
                return self._result(response, body)
            if not _is_same_origin(target := response.next_request.url, url):
                break
            url = target
        elsewhere = redacted(str(target.copy_with(query=None)))
        raise MetricsProblem(
            "MetricsRefused",
            f"{self._server} redirects to {elsewhere}; credentials are not taken there. Set the URL that answers.",
        )

    async def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise MetricsProblem("MetricsRefused", f"{self._server} sent more than {MAX_ANSWER_BYTES >> 20} MiB")
        return bytes(body)

    def _result(self, response: httpx.Response, body: bytes) -> object:
        code = response.status_code
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            answer = {}
        data, warnings = answer.get("data"), answer.get("warnings")
        words = f"{answer['errorType']}: {answer['error']}" if {"errorType", "error"} <= answer.keys() else _text(body)
        if code in _REFUSALS:
            raise MetricsProblem("MetricsRefused", f"{self._server} answers {code}: {words}")
        if not response.is_success:
            raise self.unreachable(f"answers {code}: {words}")
        if answer.get("status") != "success" or not isinstance(data, dict) or "result" not in data:
            raise self.unreachable(f"sent an answer that is not Prometheus': {_text(body)}")
        self._note_warnings(warnings if isinstance(warnings, list) else [])
        result: object = data["result"]
        return result

    def _note_warnings(self, warnings: list[object]) -> None:
        """Log what Prometheus warns of, such as parts that are missing; the same words once."""
        words = "; ".join(str(each) for each in warnings)[:MAX_QUOTED]
        if words and words != self._warned:
            logger.warning("%s warns: %s", self._server, words)
        self._warned = words or self._warned

    @property
    def _timeout(self) -> str:
        """How long Prometheus itself may work on a query."""
        return f"{round(self.access.timeout_s * 1000)}ms"

    def _client(self) -> httpx.AsyncClient:
        """Return a client that trusts what the files of authorities and certificates hold now."""
        access = self.access
        files = (access.ca_file, access.certificate_file, access.key_file)
        try:
            stamp = [None if file is None else file.stat().st_mtime_ns for file in files]
            if self._http is None or stamp != self._stamp:
                context = ssl.create_default_context(cafile=access.ca_file)
                if access.certificate_file is not None:
                    context.load_cert_chain(access.certificate_file, access.key_file)
                if self._http is not None:
                    self._outdated.append(self._http)  # queries may still run on it
                timeout = httpx.Timeout(access.timeout_s, connect=min(CONNECT_S, access.timeout_s))
                self._http = httpx.AsyncClient(verify=context, timeout=timeout)
                self._stamp = stamp
        except OSError as error:  # ssl.SSLError is one
            named = ", ".join(str(file) for file in files if file is not None)
            raise self.unreachable(f"cannot be asked: certificates of {named}: {error}") from error
        return self._http

    def _credentials(self) -> tuple[dict[str, str], httpx.Auth | None]:
        """Return the headers and the authentication of a request, from the files as they are now."""
        access = self.access
        try:
            if access.bearer_token_file is not None:
                return {"Authorization": f"Bearer {_token(access.bearer_token_file)}"}, None
            if access.username_file is not None and access.password_file is not None:
                return {}, httpx.BasicAuth(_secret(access.username_file), _secret(access.password_file))
        except (OSError, ValueError) as error:
            raise MetricsProblem(
                "MetricsRefused", f"{self._server} is not asked: credentials cannot be read: {error}"
            ) from error
        return {}, None


def _secret(file: Path) -> str:
    """Return what a file of a Secret holds, without the newline that people leave at its end."""
    secret = file.read_text(encoding="utf-8").strip()
    if not secret or not secret.isprintable():
        raise ValueError(f"{file} is empty, or holds more than one line")
    return secret


def _token(file: Path) -> str:
    """Return the token of a file. It stands in a header, where only ASCII is allowed."""
    token = _secret(file)
    if not token.isascii():
        raise ValueError(f"{file} holds characters that are not ASCII, which no token has")
    return token


def _is_same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def _text(body: bytes) -> str:
    """Return the words of an answer that is not ours to read: a proxy's page, without its tags."""
    plain = " ".join(re.sub(r"<[^>]*>", " ", body[:4096].decode(errors="replace")).split())
    return plain[:MAX_QUOTED] or "nothing"
