"""The body of a chat at Z.ai's paths: OpenAI's, with a few fields of its own."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from glm_worker.server.openai.chat.request import ChatCompletionRequest
from glm_worker.server.openai.fields import Id, Label


class ZaiChatRequest(ChatCompletionRequest):
    """POST /api/paas/v4/chat/completions"""

    has_no_effect: ClassVar[Mapping[str, tuple[Any, ...]]] = {**ChatCompletionRequest.has_no_effect, "user_id": ()}

    request_id: Id | None = Field(None, description="Sent back. Default: the id that the reply has in its headers.")
    do_sample: bool | None = Field(None, description="false: greedy, whatever temperature and top_p are.")
    tool_stream: bool | None = Field(None, description="Stream arguments of calls. Default: they come whole.")
    user_id: Label | None = Field(None, description="No effect.")
