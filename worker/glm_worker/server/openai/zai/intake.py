"""From the body of a chat at Z.ai's paths to its order. No I/O, any thread. Raises RequestRefused."""

from dataclasses import replace

from glm_worker.server.checkpoint import GenerationDefaults
from glm_worker.server.jobs.context import Context
from glm_worker.server.jobs.order import Order
from glm_worker.server.jobs.wishes import Wishes
from glm_worker.server.openai.chat.intake import order_of as chat_order_of
from glm_worker.server.openai.generation import wishes_of
from glm_worker.server.openai.zai.request import ZaiChatRequest


def order_of(request: ZaiChatRequest, context: Context) -> Order:
    wishes = wishes_of(request, context.checkpoint)
    return chat_order_of(request, context, _sampled(wishes, request.do_sample, context.checkpoint.defaults))


def _sampled(wishes: Wishes, do_sample: bool | None, defaults: GenerationDefaults) -> Wishes:
    if do_sample is False:
        return replace(wishes, temperature=0.0)
    if do_sample and wishes.temperature is None and not defaults.do_sample:  # the checkpoint is greedy unless asked
        return replace(wishes, temperature=defaults.temperature)
    return wishes
