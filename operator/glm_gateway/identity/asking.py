"""One question to somebody outside: bounded in time and size, without redirects, as JSON."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import httpx

MAX_BYTES = 2**20


class NoAnswer(Exception):
    """Nothing came that can be used. The sentence is for the log, and tells nothing of what came."""


async def client_for(url: str, *, ca_file: Path | None = None, max_connections: int = 4) -> httpx.AsyncClient:
    """Return a client for one address. ca_file: who vouches for it; None: whom the system trusts.

    Raises OSError for a file that cannot be read or has no certificate.
    """
    verify: ssl.SSLContext | bool = False  # of an address without TLS
    if url.startswith("https:"):
        verify = await asyncio.to_thread(ssl.create_default_context, cafile=None if ca_file is None else str(ca_file))
    limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
    return httpx.AsyncClient(verify=verify, limits=limits, trust_env=False, follow_redirects=False)


async def answer(client: httpx.AsyncClient, request: httpx.Request, limit_s: float) -> tuple[int, Any]:
    """Return status and value of an answer; a value only of a 200. Raises NoAnswer."""
    try:
        async with asyncio.timeout(limit_s):
            response = await client.send(request, stream=True)
            try:
                if response.status_code != 200:
                    return response.status_code, None
                parts, num_bytes = [], 0
                async for part in response.aiter_bytes():
                    parts.append(part)
                    num_bytes += len(part)
                    if num_bytes > MAX_BYTES:
                        raise NoAnswer(f"it answered with more than {MAX_BYTES} bytes")
                return 200, httpx.Response(200, content=b"".join(parts)).json()
            finally:
                await response.aclose()
    except TimeoutError:
        raise NoAnswer(f"it did not answer within {limit_s:g} s") from None
    except (httpx.HTTPError, OSError) as error:
        raise NoAnswer(f"it cannot be asked: {type(error).__name__}") from error
    except (ValueError, RecursionError):
        raise NoAnswer("it answered with what is no JSON") from None
