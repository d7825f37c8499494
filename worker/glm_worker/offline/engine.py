"""`from glm_worker import Engine`: a model in this process, for notebooks and for work offline."""

import asyncio
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from glm_worker.errors import ConfigError
from glm_worker.offline.asgi import Reply, ask
from glm_worker.offline.group import LocalGroup
from glm_worker.offline.results import Piece, Result, error_of, pieces_of, result_of
from glm_worker.offline.settings import local_settings, model_uri

CHATS, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
Message = dict[str, Any]
_HELD_PARTS = 64  # of a stream that nobody reads: then the engine's answers wait for the reader
_AHEAD = 2  # times as many requests as run at once are under way: a place that comes free is taken at once


class Engine:
    """One model on one device of this machine, computed by the engine that serves, in threads of this process.

    Requests go through the server's own rooms: what a parameter means, what is refused and what an answer says is what
    the HTTP API says. Requests that are under way together are computed together, whichever thread they come from.
    Safe to use from several threads. It is a context manager; `close` frees the memory.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: Literal["cpu", "cuda"] | None = None,
        dtype: Literal["auto", "float32", "bfloat16"] | None = None,
        threads: int | None = None,
        max_model_len: int | None = None,
        **settings: object,
    ) -> None:
        """Load a model: a folder with a Hugging Face glm4_moe checkpoint, or glm-nano, which ships with the worker.

        threads: of the CPU. max_model_len: tokens of prompt and answer together. settings: others of a worker by their
        names, as kv_cache_bytes and max_num_seqs. What is not given is what a worker has: GLM_DEVICE and the like in
        the environment, or the setting's default.
        Raises ConfigError for what cannot be loaded, or is no setting.
        """
        said = {"device": device, "dtype": dtype, "threads_per_rank": threads, "max_model_len": max_model_len}
        given = {name: value for name, value in said.items() if value is not None}
        for name in given.keys() & settings.keys():
            raise ConfigError(f"{name} is given twice")
        self._group = LocalGroup(
            lambda run_dir: local_settings(run_dir, {"model": model_uri(model), **given, **settings})
        )
        self.name = self._group.checkpoint.name
        self.max_model_len = self._group.checkpoint.max_model_len

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what is under way, and free the model's memory. Again, it does nothing."""
        self._group.close()

    def chat(self, messages: Sequence[Message], **params: Any) -> Result:
        """Return the answer to a conversation. params: those of OpenAI's chats, and this server's own.

        Raises RequestRefused for what cannot be asked, EngineFailed where the engine cannot go on.
        """
        return self._result(self._submit(CHATS, {"messages": list(messages), **params}))

    def stream(self, messages: Sequence[Message], **params: Any) -> Iterator[Piece]:
        """Yield an answer as it is written, and in the end what it took. To leave early is to cancel it."""
        body = {"messages": list(messages), **params, "stream": True, "stream_options": {"include_usage": True}}
        return self._pieces(CHATS, body)

    def chats(self, conversations: Iterable[Sequence[Message]], **params: Any) -> Iterator[Result]:
        """Yield the answer to each conversation, in their order. They are read as the engine has room for them."""
        return self._results((CHATS, {"messages": list(messages), **params}) for messages in conversations)

    def generate(self, prompts: Iterable[str], **params: Any) -> Iterator[Result]:
        """Yield what follows each text, in their order: no chat template is applied."""
        return self._results((COMPLETIONS, {"prompt": prompt, **params}) for prompt in prompts)

    def request(self, path: str, body: bytes | dict[str, Any]) -> "Future[Reply]":
        """Post a body to a path of the HTTP API, and return the reply to come. To cancel it is to end the request."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.check()
        return self._group.run(ask(self._group.app, path, data))

    def check(self) -> None:
        """Raise EngineFailed where the engine has failed: what was under way then, and all that comes, fails."""
        self._group.check()

    @property
    def num_under_way(self) -> int:
        """Requests that are worth having under way at once."""
        return _AHEAD * self._group.settings.max_num_seqs

    def _submit(self, path: str, body: dict[str, Any]) -> "Future[Reply]":
        if body.get("stream"):
            raise ConfigError("stream is no parameter here; Engine.stream yields an answer as it is written")
        return self.request(path, {"model": self.name, **body})

    def _result(self, asked: "Future[Reply]") -> Result:
        try:
            reply = asked.result()
        except BaseException:  # an interrupt of the notebook
            asked.cancel()
            raise
        self.check()
        return result_of(reply.status, reply.body)

    def _results(self, requests: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[Result]:
        under_way: deque[Future[Reply]] = deque()
        try:
            for path, body in requests:
                under_way.append(self._submit(path, body))
                if len(under_way) >= self.num_under_way:
                    yield self._result(under_way.popleft())
            while under_way:
                yield self._result(under_way.popleft())
        finally:
            for asked in under_way:
                asked.cancel()

    def _pieces(self, path: str, body: dict[str, Any]) -> Iterator[Piece]:
        self.check()
        parts: asyncio.Queue[bytes | None] = asyncio.Queue(_HELD_PARTS)
        data = json.dumps({"model": self.name, **body}).encode()

        async def asked() -> Reply:
            try:
                return await ask(self._group.app, path, data, parts.put)
            finally:
                if not asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    await parts.put(None)

        reply = self._group.run(asked())
        try:
            while (part := self._group.run(parts.get()).result()) is not None:
                for chunk in _chunks(part):
                    if "error" in chunk:
                        self.check()  # knows more of it
                    yield from pieces_of(chunk)
            self.check()
            if not reply.result().is_events:  # refused before it began
                raise error_of(reply.result().status, json.loads(reply.result().body))
        finally:
            reply.cancel()


def _chunks(part: bytes) -> Iterator[dict[str, Any]]:
    """Yield the objects of whole server-sent events; comments and the end have none."""
    for line in part.split(b"\n"):
        if line.startswith(b"data: {"):
            yield json.loads(line.removeprefix(b"data: "))
