"""URLs of a Prometheus as people write them: what may be in one, and how one is shown without what is secret. Pure."""

import re
from urllib.parse import urlsplit


def base_url(value: str) -> str:
    """Return the URL of a Prometheus as queries are added to it.

    Raises ValueError with what is wrong and what is allowed, never with a part of the value: show that `redacted`.
    """
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("the host or the port is wrong; write it as in http://prometheus.monitoring:9090") from None
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(
            "no query, fragment, user or password may be in it; the operator reads credentials from files, and the "
            "commands of glm send none"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", value):
        raise ValueError("write it as in http://prometheus.monitoring:9090 or https://host/prefix")
    if re.search(r"/api/v1(/|$)", parts.path):
        raise ValueError("leave out /api/v1 and what follows")
    return value.rstrip("/")


def redacted(url: str) -> str:
    """Return a URL as it may be logged: without user and password, and without a query, which may hold a token.

    It need not be one: all before the last @ counts as user and password, wherever people put slashes.
    """
    if "@" in url:
        scheme = re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", url)
        url = f"{scheme[0] if scheme else ''}...@{url.rpartition('@')[2]}"
    return re.sub(r"[?#].*", "?...", url, flags=re.DOTALL)
