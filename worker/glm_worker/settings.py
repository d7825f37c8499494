"""The worker's settings: one frozen value a process, read once from GLM_* environment variables and flags.

Every field can be given as the environment variable GLM_<FIELD> (what the operator renders) or as the flag --<field>
of `glm-worker serve` (what a person types); the flag wins. A value that does not parse stops the process with the
name, the value and the expected form. Units are in the names.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from glm_worker.errors import ConfigError

Device = Literal["cpu", "cuda"]

PREFIX = "GLM_"
NO_SETTINGS = frozenset({"GLM_CPU_ISA", "GLM_LOCAL_TOKEN"})
"""Variables that others read: kernels/cpu/library.py, and `glm local`, which knows its processes by the second."""


class WorkerSettings(BaseSettings):
    """Settings of one worker pod. Each field states why its default is what it is."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    # The model
    model: str = Field(description="Folder of a Hugging Face glm4_moe checkpoint, or builtin://glm-nano.")
    served_model_name: str = Field("", description="Name clients use; empty: the folder's name.")
    device: Device = Field("cpu", description="Explicit: a CUDA device that is missing is an error, never a fall-back.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="auto: bfloat16 on cuda, and on cpu where checkpoint and products of the CPU are; else float32.",
    )

    # The group: one copy of the model over num_pods pods of ranks_per_pod ranks
    namespace: str = Field("default", description="Label of every metric, as the next three.")
    deployment: str = Field("local", description="What the group is one of several of.")
    group: str = Field("local", description="Name of the replica group, for logs and metrics.")
    revision: str = Field("", description="Pods of another revision are refused as peers.")
    num_pods: int = Field(1, ge=1)
    pod_index: int = Field(0, ge=0, description="0 leads: it serves HTTP and holds rank 0.")
    ranks_per_pod: int = Field(1, ge=1)
    tensor_parallel: int = Field(1, ge=1, description="Attention heads are split over this many; divides the ranks.")
    expert_parallel: int = Field(0, ge=0, description="Experts are split over all ranks: their number, or 0.")
    threads_per_rank: int = Field(
        0,
        ge=0,
        le=1024,
        description="CPU threads of each rank; 0: on cpu the CPUs that the pod may use, its quota counted, divided by"
        " its ranks, at least 1; on cuda 1.",
    )

    # Addresses
    host: str = Field(
        "",
        description="Address to listen on; empty: every one, of IPv6 as of IPv4. In local mode each pod has its own"
        " loopback address.",
    )
    leader_host: str = Field("127.0.0.1", description="Name or address of pod 0, resolved anew at each try.")
    http_port: int = Field(8000, ge=1, le=65535)
    management_port: int = Field(9090, ge=1, le=65535)
    management_token: str = Field(
        "",
        repr=False,
        description="Who puts promises or a policy to the management port must know it; empty: nobody may.",
    )
    gateway_token: str = Field(
        "",
        repr=False,
        description="Who knows it is this deployment's gateway, and gets replies in frames; empty: nobody does.",
    )
    tls_folder: str = Field(
        "",
        description="Folder of ca.crt, tls.crt and tls.key: the HTTP port speaks TLS, and to clients alone whose"
        " certificate ca.crt has signed. Read again when they change; empty: plain HTTP.",
    )
    coordinator_port: int = Field(29599, ge=1, le=65535, description="The leading supervisor awaits followers here.")
    rendezvous_port: int = Field(
        29500,
        ge=1,
        le=65471,
        description="First of 64 ports: where several pods form a group, each generation uses two of them, one for"
        " torch's store, one for steps.",
    )
    run_dir: Path = Field(
        Path("/tmp/glm-worker"),  # noqa: S108
        description="Sockets and heartbeat slots; must be writable.",
    )

    # Limits
    max_model_len: int = Field(0, ge=0, description="Tokens of prompt and answer; 0: what the checkpoint says.")
    max_batch_tokens: int = Field(2048, ge=16, description="Tokens of one step; longer prompts go in chunks of it.")
    max_num_seqs: int = Field(64, ge=1, description="Requests that run at once.")
    block_size: int = Field(16, ge=1, description="Tokens of one KV block.")
    kv_cache_bytes: int = Field(
        0,
        ge=0,
        description="KV cache of one rank; 0: on cuda what weights and the largest step leave, on cpu 256 MiB.",
    )
    kv_cache_dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Type of the KV cache; auto: that of the weights. bfloat16 beside float32 weights holds twice the"
        " tokens, and keys and values keep 8 bits.",
    )
    prefix_cache: bool = Field(
        True,
        description="Whether requests of a tenant share the KV blocks of prompts that begin alike, and what was"
        " computed once is kept until its room is needed. Which tokens are sampled does not change, up to rounding.",
    )
    max_waiting_requests: int = Field(256, ge=0, description="Past this the answer is 503 with Retry-After.")
    max_waiting_tokens: int = Field(1_048_576, ge=0, description="Prompt tokens that may wait; past this 503.")

    # Numerics
    deterministic: bool = Field(
        True,
        description="On cpu compute in an order that makes the bits of an answer a function of its request alone,"
        " whoever shares its steps and wherever it goes on. The kernels in C always do; where torch computes, a decode"
        " step of 8 takes a tenth longer, a third at contexts of 193 to 383 tokens. On cuda it does nothing.",
    )

    cuda_kernels: Literal["auto", "torch", "triton"] = Field(
        "auto",
        description="What computes the layers on cuda. triton: kernels of our own, and graphs for decode steps; no GPU"
        " has run them yet. auto: torch, until one has. On cpu it must be auto.",
    )

    look_ahead: Literal["auto", "off", "on"] = Field(
        "auto",
        description="Whether a step is launched while the one before runs, its tokens drawn and handed on by the"
        " device. on: also on cpu, where it gains nothing. auto: on cuda with cuda_kernels triton; no GPU has run it"
        " yet.",
    )

    # What chats mean
    control_tokens: Literal["text", "token"] = Field(
        "text",
        description="What <|user|>, <think>, <tool_call> and the like are in messages and tools of a request. text:"
        " nobody can forge a turn. token: what the tokenizer makes of them.",
    )
    undeclared_tools: Literal["text", "call"] = Field(
        "text",
        description="What a call is of a tool that the request does not offer. text: a part of the content. call: a"
        " tool call, for clients that know tools which they do not offer.",
    )

    # What becomes of thinking, and who is trusted, until somebody puts another policy to the management port
    awaits_policy: bool = Field(
        False,
        description="Whether somebody will put a policy to the management port. Until then reasoning is shown to"
        " nobody, x-glm-role and x-glm-tenant count, and the group waits up to 10 s before it is ready.",
    )
    reasoning_default: Literal["template", "enabled", "disabled", "auto"] = Field(
        "template",
        description="Whether the model thinks where a request does not say. template: as the chat template has it."
        " auto: by a score of the conversation.",
    )
    reasoning_auto_threshold: float = Field(0.5, ge=0, le=1, description="auto thinks from this score on.")
    reasoning_max_tokens: int = Field(
        0, ge=0, le=10_000_000, description="Most tokens of a thought; 0: as many as the answer may have."
    )
    reasoning_effort_tokens: str = Field(
        "",
        description="Most tokens of a thought by the effort that a request names, as in low=1024,high=8192; efforts are"
        " minimal, low, medium, high and xhigh. Those that are missing are minimal=256,low=1024,medium=8192,high=32768;"
        " xhigh has no limit of its own.",
    )
    reasoning_visibility: Literal["visible", "hidden", "by_role"] = Field(
        "visible", description="Who is shown reasoning. by_role: the roles of reasoning_visible_to alone."
    )
    reasoning_visible_to: str = Field(
        "", description="Roles that are shown reasoning, with commas between; with reasoning_visibility by_role only."
    )
    reasoning_fields: Literal["reasoning_content", "both"] = Field(
        "reasoning_content", description="Fields that carry reasoning. both: `reasoning` with the same text as well."
    )
    trust_proxy_headers: bool = Field(
        False,
        description="Whether the headers x-glm-role and x-glm-tenant count. Only behind a gateway that sets them"
        " itself and drops those of clients.",
    )

    trace_endpoint: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="URL of an OTLP/HTTP collector for a span a request, as http://collector:4318/v1/traces; empty: no"
        " spans. They have no text of prompts or answers.",
    )

    # Times
    heartbeat_limit_s: float = Field(30.0, gt=0, description="A rank that stands still this long is killed.")
    peer_limit_s: float = Field(10.0, gt=0, description="A pod of the group that says nothing this long is lost.")
    missing_limit_s: float = Field(
        120.0,
        gt=0,
        description="Requests wait this long for pods that are gone or cannot start; past it the answer is 503.",
    )
    import_limit_s: float = Field(
        600.0, gt=0, description="The engine must be imported, and the server listen, within this."
    )
    start_limit_s: float = Field(1800.0, gt=0, description="A generation must serve within this, loading included.")
    backoff_base_s: float = Field(1.0, gt=0, description="First wait after a generation that never worked; doubles.")
    backoff_max_s: float = Field(60.0, gt=0)
    drain_accept_s: float = Field(5.0, ge=0, description="After SIGTERM accept this long: endpoints must follow.")
    readiness_lag_s: float = Field(
        0.0,
        ge=0,
        description="What a readiness probe takes to see a drain: added when only other pods must go.",
    )
    drain_deadline_s: float = Field(
        120.0, ge=0, description="Requests may finish this long after; all three together below the grace period."
    )

    @property
    def world_size(self) -> int:
        """Ranks of the whole group."""
        return self.num_pods * self.ranks_per_pod

    @property
    def is_leader(self) -> bool:
        return self.pod_index == 0

    @property
    def identity(self) -> dict[str, str]:
        """Labels that every metric of this pod carries."""
        return {
            "namespace": self.namespace,
            "deployment": self.deployment,
            "group": self.group,
            "revision": self.revision,
        }

    @model_validator(mode="after")
    def _consistent(self) -> "WorkerSettings":
        if self.pod_index >= self.num_pods:
            raise ValueError(f"pod_index {self.pod_index} is outside the group; allowed are 0 to {self.num_pods - 1}")
        if self.world_size % self.tensor_parallel:
            raise ValueError(
                f"tensor_parallel {self.tensor_parallel} does not divide the group's {self.world_size} ranks"
            )
        if self.cuda_kernels != "auto" and self.device != "cuda":
            raise ValueError(f"cuda_kernels {self.cuda_kernels} is for device cuda; on {self.device} use auto")
        if self.expert_parallel not in (0, self.world_size):
            raise ValueError(
                f"expert_parallel {self.expert_parallel} is not the group's {self.world_size} ranks;"
                " experts are split over all"
            )
        return self


def read_settings(**flags: object) -> WorkerSettings:
    """Return the settings; flags, given on the command line, win over the environment.

    Raises ConfigError with one line a wrong value: name, value, what is expected.
    """
    try:
        return WorkerSettings(**flags)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigError("\n".join(_sentence(dict(e)) for e in error.errors())) from error


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the names of variables that look like settings and are none: misspelt, or of another version."""
    known = {f"{PREFIX}{name.upper()}" for name in WorkerSettings.model_fields} | NO_SETTINGS
    return sorted(name for name in environment if name.startswith(PREFIX) and name.upper() not in known)


def _sentence(error: dict[str, object]) -> str:
    location = error["loc"]
    assert isinstance(location, tuple)
    message = str(error["msg"]).removeprefix("Value error, ")
    if not location:
        return message
    if error["type"] == "missing":
        return f"GLM_{str(location[0]).upper()} is not set and has no default"
    return f"GLM_{str(location[0]).upper()}={error['input']}: {message}"
