"""Orders and jobs as the OpenAI surface makes them of bodies, for tests that start there."""

import json
from typing import Any

from glm_worker.messages import Policy
from glm_worker.server.checkpoint import Checkpoint
from glm_worker.server.jobs.context import Caller, Context, Rules
from glm_worker.server.jobs.job import Job
from glm_worker.server.jobs.order import Order
from glm_worker.server.openai.chat.intake import chat_order
from glm_worker.server.openai.completions.intake import completion_order
from unit.worker.server_builders import checkpoint


def a_context(of: Checkpoint | None = None, *, rules: Rules | None = None, policy: Policy | None = None) -> Context:
    return Context(
        checkpoint=of or checkpoint(),
        rules=rules or Rules(),
        policy=policy or Policy(),
        caller=Caller(request_id="r"),
    )


def chat_of(body: bytes | dict[str, Any], of: Checkpoint | None = None, rules: Rules | None = None) -> Order:
    return chat_order(body if isinstance(body, bytes) else json.dumps(body).encode(), a_context(of, rules=rules))


def chat_job(body: bytes, of: Checkpoint | None = None, rules: Rules | None = None) -> Job:
    (job,) = chat_of(body, of, rules).jobs
    return job


def completion_of(body: bytes | dict[str, Any], of: Checkpoint | None = None) -> Order:
    return completion_order(body if isinstance(body, bytes) else json.dumps(body).encode(), a_context(of))


def completion_job(body: bytes, of: Checkpoint | None = None) -> Job:
    (job,) = completion_of(body, of).jobs
    return job
