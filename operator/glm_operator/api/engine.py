"""spec.engine: the worker program, its bounds, how it computes, and how it reads chats."""

from typing import Literal

from pydantic import Field

from glm_operator.api.fields import Quantity, SpecModel
from glm_operator.api.forms import COLLECTOR_PATTERN, IMAGE_PATTERN
from glm_operator.api.pods import PullSecret

Device = Literal["cpu", "cuda"]
Switch = Literal["Enabled", "Disabled"]


class Limits(SpecModel):
    """Bounds of one group's engine. What is left out follows from the checkpoint and the memory."""

    max_model_len: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="Tokens of prompt and answer together. Default: as the checkpoint says.",
    )
    max_batch_tokens: int | None = Field(
        default=None,
        ge=16,
        le=1_048_576,
        description="Tokens of one step; longer prompts go in chunks. Default: 2048.",
    )
    max_num_seqs: int | None = Field(
        default=None, ge=1, le=65_536, description="Requests that run at once. Default: 64."
    )
    max_waiting_requests: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        description="Requests that wait; past this the answer is 503. Default: 256.",
    )
    max_waiting_tokens: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000_000,
        description="Prompt tokens that wait; past this the answer is 503. Default: 1048576.",
    )
    kv_cache: Quantity | None = Field(
        default=None,
        description="KV cache of one rank. Default: what weights and the largest step leave of the GPU; 256Mi on cpu.",
    )
    drain_accept_seconds: int = Field(
        default=5,
        ge=0,
        le=3_600,
        description="How long a pod that stops still accepts: what sends it requests needs the time to notice.",
    )
    drain_deadline_seconds: int = Field(
        default=120,
        ge=0,
        le=86_400,
        description="Most that requests in flight may take to finish after that. A pod ends as soon as none is left: "
        "deletion takes this long only while requests run, and seconds when idle.",
    )
    heartbeat_limit_seconds: int = Field(
        default=30, ge=1, le=3_600, description="A rank that stands still this long with work pending is killed."
    )
    start_limit_seconds: int = Field(
        default=1800,
        ge=10,
        le=86_400,
        description="A group must serve within this time of its pods having met, loading included.",
    )


class Chat(SpecModel):
    """How the worker reads chats. A field that is left out stays out of the pods: the worker's default holds."""

    control_tokens: Literal["Text", "Token"] | None = Field(
        default=None,
        description="What control tokens, those of turns, thoughts and calls, are in what clients send. Text: nobody "
        "forges a turn. Token: what the tokenizer makes of them. Default: Text.",
    )
    undeclared_tools: Literal["Text", "Call"] | None = Field(
        default=None,
        description="What the call is of a tool that the request does not offer. Text: a part of the content. Call: a "
        "tool call, for clients that know tools which they do not offer. Default: Text.",
    )


class Execution(SpecModel):
    """How the worker computes. A field that is left out stays out of the pods: the worker's default holds."""

    prefix_cache: Switch | None = Field(
        default=None,
        description="Whether requests of a tenant share what was computed of prompts that begin alike. Default: "
        "Enabled.",
    )
    deterministic: Switch | None = Field(
        default=None,
        description="On cpu: whether the bits of an answer depend on its request alone, whoever shares its steps. "
        "Disabled: nothing is won where the kernels in C compute; where torch does, decode steps of 8 take a tenth "
        "less. Refused with cuda, where it does nothing. Default: Enabled.",
    )
    dtype: Literal["Float32", "Bfloat16"] | None = Field(
        default=None,
        description="Type of the weights in memory, and of what is computed with them. Default: on cuda Bfloat16; on "
        "cpu Bfloat16 where the checkpoint has no more and the CPU multiplies in it, else Float32.",
    )
    kv_dtype: Literal["Float32", "Bfloat16"] | None = Field(
        default=None,
        description="Type of the KV cache. Bfloat16 beside weights in Float32 holds twice the tokens in the same "
        "memory; keys and values then keep 8 bits. Default: that of the weights.",
    )
    threads_per_rank: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="CPU threads of a rank. Default: on cpu the CPUs that the pod may use, divided by its ranks; on "
        "cuda 1.",
    )
    cuda_kernels: Literal["Torch", "Triton"] | None = Field(
        default=None,
        description="What computes the layers on cuda. Triton: kernels of our own, and graphs for decode steps; no GPU "
        "has run them yet. Refused with cpu. Default: Torch.",
    )
    look_ahead: Literal["Off", "On"] | None = Field(
        default=None,
        description="Whether a step is launched while the one before runs; no GPU has run it yet. Default: On with "
        "cudaKernels Triton, else Off.",
    )


class Tracing(SpecModel):
    """Where the worker sends its spans."""

    endpoint: str | None = Field(
        default=None,
        pattern=COLLECTOR_PATTERN,
        max_length=512,
        description="URL of an OTLP/HTTP collector that gets a span of each request, with the path, as in "
        "http://collector:4318/v1/traces. No text of a prompt or an answer is in them. Default: no spans.",
    )


class Engine(SpecModel):
    """The worker program."""

    image: str | None = Field(
        default=None,
        pattern=IMAGE_PATTERN,
        max_length=512,
        description="Worker image. Default: the one the operator was installed with.",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="When to pull the image."
    )
    image_pull_secrets: list[PullSecret] | None = Field(
        default=None, max_length=8, description="Secrets to pull the image with."
    )
    limits: Limits = Field(default=Limits(), description="Bounds of one group's engine.")
    execution: Execution | None = Field(default=None, description="How a group computes.")
    chat: Chat | None = Field(default=None, description="How chats are read; docs/http.md has more.")
    tracing: Tracing | None = Field(default=None, description="Spans of requests; docs/http.md has more.")


def check_engine(engine: Engine, device: Device) -> None:
    """Raise ValueError where the device would ignore what is asked of it. The CRD has the same rules."""
    execution = engine.execution or Execution()
    if device == "cpu" and execution.cuda_kernels is not None:
        raise ValueError("engine.execution.cudaKernels is for device cuda; remove it, or set device to cuda")
    if device == "cuda" and execution.deterministic is not None:
        raise ValueError("engine.execution.deterministic is for device cpu, and does nothing on cuda: remove it")
