"""The head of a request: what is wrong with it, and the refusal in our own words whatever the parser says."""

import re

from glm_edge.errors.failure import Failure

MAX_BODY_BYTES = 16 * 2**20
TOO_LARGE = f"the body is larger than {MAX_BODY_BYTES} bytes, which is what this server reads"

RawHeaders = list[tuple[bytes, bytes]]

_TOLD = re.compile(r"[\w.+-]{1,16}(?:, ?[\w.+-]{1,16}){0,4}", re.ASCII)  # names of codings: no key has room in one
_SENTENCES = (  # by a sign in what the parser says; the first that is there counts
    ("pri/upgrade", "it begins HTTP/2, and this server reads HTTP/1.1"),
    ("preface", "it begins HTTP/2, and this server reads HTTP/1.1"),
    ("can't be present", "it has the headers Content-Length and Transfer-Encoding, of which one is allowed"),
    ("duplicate content-length", "the header Content-Length is there twice"),
    ("content-length overflow", "the header Content-Length is too large a number"),
    ("content-length", "the header Content-Length is no number"),
    ("transfer-encoding", "the header Transfer-Encoding is not chunked"),
    ("chunk", "a chunk of its body is malformed"),
    ("version", "its version is not HTTP/1.1"),
    ("expected http/", "its version is not HTTP/1.1"),
    ("method", "its method is not known"),
    ("url", "its URL cannot be read"),
    ("header", "a header is malformed"),
    ("cr", "a line of its head does not end with CR and LF"),
    ("lf", "a line of its head does not end with CR and LF"),
)


class Refused(Exception):
    """What the parser's callbacks raise."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def check_head(headers: RawHeaders, http_version: str) -> None:
    """Raise Refused for a head whose body this server would not read as it is meant. Names are in small letters."""
    if http_version not in ("1.0", "1.1"):
        raise Refused(malformed("its version is not HTTP/1.1"))
    hosts = _values(headers, b"host")
    if len(hosts) > 1 or (not hosts and http_version != "1.0"):
        raise Refused(malformed("the header Host is missing" if not hosts else "the header Host is there twice"))
    codings = _values(headers, b"transfer-encoding")
    if codings and codings != ["chunked"]:
        raise Refused(_not_allowed(501, "Transfer-Encoding", ", ".join(codings), "chunked"))
    encodings = _values(headers, b"content-encoding")
    if any(each != "identity" for each in encodings):
        raise Refused(_not_allowed(415, "Content-Encoding", ", ".join(encodings), "identity"))
    if any(int(each) > MAX_BODY_BYTES for each in _values(headers, b"content-length")):
        raise Refused(body_too_large(TOO_LARGE))


def without_offer(method: bytes, url: bytes, http_version: str, headers: RawHeaders) -> bytes:
    """Return a head that was read, as bytes, without its offer to speak another protocol. Names: in small letters."""
    kept = [name + b": " + value for name, value in headers if name != b"upgrade"]
    return b"\r\n".join([b"%s %s HTTP/%s" % (method, url, http_version.encode()), *kept, b"", b""])


def malformed(reason: str) -> Failure:
    return Failure(400, f"this is no valid HTTP request: {reason}", "invalid_request_error", code="malformed_request")


def unparsed(said: str) -> Failure:
    """Return the refusal of what the parser does not take. said: its words, which are not told."""
    lowered = said.lower()
    return malformed(next((sentence for sign, sentence in _SENTENCES if sign in lowered), "it cannot be parsed"))


def head_too_large(what: str) -> Failure:
    return Failure(431, f"the head of the request {what}", "invalid_request_error", code="headers_too_large")


def body_too_large(what: str) -> Failure:
    return Failure(413, what, "invalid_request_error", code="body_too_large")


def _values(headers: RawHeaders, name: bytes) -> list[str]:
    return [value.strip().lower().decode("latin-1") for each, value in headers if each == name]


def _not_allowed(status: int, name: str, value: str, allowed: str) -> Failure:
    is_value = value if _TOLD.fullmatch(value) else f"a text of {len(value)} characters"
    code = f"unsupported_{name.lower().replace('-', '_')}"
    message = f"the header {name} is {is_value}; allowed: {allowed}"
    return Failure(status, message, "invalid_request_error", code=code)
