"""One HTTP request to the cluster: without the machine's proxies, and with every failure as a ClusterError."""

import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from glm_cluster.errors import ClusterError

SAID_BYTES = 500
"""How much of an error's body is told: a sentence, but no page of HTML."""


def get(
    url: str, *, headers: Mapping[str, str] | None = None, authority: Path | None = None, method: str = "GET"
) -> bytes:
    """Return the body of a 2xx answer. authority: the certificate that an https server's must be signed by."""
    try:
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if authority is not None:
            trusted = ssl.create_default_context(cafile=authority)
            handlers.append(urllib.request.HTTPSHandler(context=trusted))
        request = urllib.request.Request(url, headers=dict(headers or {}), method=method)
        with urllib.request.build_opener(*handlers).open(request, timeout=5) as response:
            body: bytes = response.read()
            return body
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            said = error.read(SAID_BYTES).decode(errors="replace").strip()
        raise ClusterError(f"{url} answers {error.code}: {said}") from error
    except OSError as error:  # a refused connection, a timeout, a certificate that is not there yet
        raise ClusterError(f"{url} does not answer: {error}") from error
