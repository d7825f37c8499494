"""Reading a request's body: bounded, and aware that the client may go away meanwhile."""

from starlette.types import Receive

from glm_worker.errors import RequestRefused
from glm_worker.server.checkpoint import Checkpoint

MAX_BODY_BYTES = 16 * 2**20
_MAX_DISCARDED_BYTES = 4 * MAX_BODY_BYTES  # a client that has sent it all reads the answer; one cut off sees a reset


class ClientGone(Exception):
    """The connection closed before the body was complete."""


async def read_body(receive: Receive, checkpoint: Checkpoint) -> bytes:
    """Return the whole body. Raises ClientGone, and RequestRefused when the body is too long for us or the model.

    Parsing megabytes holds up all streams, so what cannot fit is refused unparsed.
    """
    enough = min(checkpoint.max_prompt_json_bytes or MAX_BODY_BYTES, MAX_BODY_BYTES)
    chunks: list[bytes] = []
    num_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk: bytes = message.get("body", b"")
        num_bytes += len(chunk)
        if num_bytes <= enough:
            chunks.append(chunk)
        else:
            chunks.clear()
        if not message.get("more_body", False) or num_bytes > _MAX_DISCARDED_BYTES:
            break
    if num_bytes > MAX_BODY_BYTES:
        raise RequestRefused(
            f"the body is larger than {MAX_BODY_BYTES} bytes, which is what this server reads",
            code="body_too_large",
            status=413,
        )
    if num_bytes > enough:
        raise RequestRefused(
            f"the model's context is {checkpoint.max_model_len} tokens, for which {enough} bytes of JSON are enough; "
            f"the body has {num_bytes}",
            code="context_length_exceeded",
        )
    return b"".join(chunks)
