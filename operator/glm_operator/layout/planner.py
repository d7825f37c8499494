"""plan(deployment) -> Layout, or a Refusal that says what would fit.

Pure. Decides how one copy of the model lies over ranks and pods. A Refusal always names the value and what is allowed,
and where values are counted the nearest one that is.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from glm_operator.api.engine import Execution
from glm_operator.api.quantity import parse_quantity, to_bytes
from glm_operator.api.rules import MAX_RANKS_PER_POD
from glm_operator.api.spec import GLMDeployment, GLMDeploymentSpec, ModelSpec
from glm_operator.layout.floor import Floor, least_time
from glm_operator.layout.products import product_of
from glm_operator.shapes import SHAPES, Shape, allowed_tensor, divisors

BUILTIN = "builtin://"
PVC = "pvc://"
FILE = "file://"
CLAIM_MOUNT = "/models"

BYTES = {"Float32": 4, "Bfloat16": 2}
DEFAULT_DTYPE = {"cpu": "Float32", "cuda": "Bfloat16"}
"""The widest that a rank's weights have by themselves: on cpu it is Bfloat16 where checkpoint and CPU make it so."""


@dataclass(frozen=True)
class Memory:
    """What a layout costs, exactly, where the model's shape is known."""

    parameters: int  # of the whole model
    weight_bytes_per_rank: int
    kv_bytes_per_token_per_rank: int

    @classmethod
    def of(cls, shape: Shape, *, tensor: int, expert: int, width: int, kv_width: int) -> Memory:
        """width, kv_width: bytes of one element of weights and of the KV cache."""
        return cls(
            parameters=shape.parameters,
            weight_bytes_per_rank=shape.parameters_per_rank(tensor=tensor, expert=expert) * width,
            kv_bytes_per_token_per_rank=shape.kv_bytes_per_token(tensor=tensor, bytes_per_element=kv_width),
        )


@dataclass(frozen=True)
class Layout:
    """How one copy of the model lies over ranks and pods. Every group of a deployment has the same."""

    tensor: int
    expert: int
    ranks_per_pod: int
    pods_per_group: int
    gpus_per_pod: int
    model: str  # what the worker is told to load: a folder of its pod, or builtin://…
    claim: str | None  # PersistentVolumeClaim mounted read-only at CLAIM_MOUNT
    memory: Memory | None  # None: the shape is the worker's to read
    floor: Floor | None = None  # None: of a shape, or a GPU, that the planner does not know; of a CPU

    @property
    def ranks(self) -> int:
        """Ranks of one group: its world size."""
        return self.ranks_per_pod * self.pods_per_group

    @property
    def gpus_per_group(self) -> int:
        return self.gpus_per_pod * self.pods_per_group


@dataclass(frozen=True)
class Refusal:
    """Why a spec cannot be laid out, in one sentence for people."""

    message: str


def plan(deployment: GLMDeployment) -> Layout | Refusal:
    """Return the layout of one group, or the first reason why there is none."""
    spec = deployment.spec
    shape = SHAPES.get(spec.model.name)
    refusal = (
        _refuse_degrees(spec, shape)
        or _refuse_pods(spec)
        or _refuse_context(spec, shape)
        or _refuse_cache(spec)
        or _refuse_resources(spec)
    )
    if refusal is not None:
        return refusal
    tensor, expert = spec.parallelism.tensor, spec.parallelism.expert
    ranks_per_pod = spec.hardware.ranks_per_pod or _ranks_per_pod(spec)
    width, kv_width = _widths(spec)
    model, claim = _locate(spec.model)
    return Layout(
        tensor=tensor,
        expert=expert,
        ranks_per_pod=ranks_per_pod,
        pods_per_group=expert // ranks_per_pod,
        gpus_per_pod=ranks_per_pod if spec.hardware.device == "cuda" else 0,
        model=model,
        claim=claim,
        memory=None
        if shape is None
        else Memory.of(shape, tensor=tensor, expert=expert, width=width, kv_width=kv_width),
        floor=_floor(spec, shape),
    )


def nearest(value: int, allowed: list[int]) -> int:
    """Return the allowed value nearest to one that is not; the larger of two equally near."""
    return min(allowed, key=lambda candidate: (abs(candidate - value), -candidate))


def _ranks_per_pod(spec: GLMDeploymentSpec) -> int:
    """Return as many ranks as fit a node and divide the group evenly."""
    most = spec.hardware.gpu.per_node if spec.hardware.gpu else MAX_RANKS_PER_POD
    return max(d for d in divisors(spec.parallelism.expert) if d <= most)


def _widths(spec: GLMDeploymentSpec) -> tuple[int, int]:
    """Return the bytes of one element of weights and of the KV cache."""
    execution = spec.engine.execution or Execution()
    dtype = execution.dtype or DEFAULT_DTYPE[spec.hardware.device]
    return BYTES[dtype], BYTES[execution.kv_dtype or dtype]


def _floor(spec: GLMDeploymentSpec, shape: Shape | None) -> Floor | None:
    """Return the least time of a request alone. Where nobody knows the model or the GPU, nobody knows that."""
    product = product_of(spec.hardware)
    if shape is None or product is None:
        return None
    return least_time(shape, product, tensor=spec.parallelism.tensor, expert=spec.parallelism.expert)


def _locate(model: ModelSpec) -> tuple[str, str | None]:
    """Return what the worker loads, and the claim it lies on."""
    if model.source.startswith(PVC):
        claim, _, path = model.source.removeprefix(PVC).partition("/")
        return f"{CLAIM_MOUNT}/{path}" if path else CLAIM_MOUNT, claim
    return model.source if model.source.startswith(BUILTIN) else model.source.removeprefix(FILE), None


def _refuse_degrees(spec: GLMDeploymentSpec, shape: Shape | None) -> Refusal | None:
    tensor, expert, name = spec.parallelism.tensor, spec.parallelism.expert, spec.model.name
    if shape is not None and shape.num_routed_experts % expert:
        allowed = divisors(shape.num_routed_experts)
        return _not_allowed(
            "parallelism.expert",
            expert,
            f"does not divide the {shape.num_routed_experts} routed experts of {name}",
            allowed,
        )
    if shape is not None and tensor not in allowed_tensor(shape):
        heads = f"does not divide the {shape.num_heads} heads and {shape.num_kv_heads} KV heads of {name}"
        return _not_allowed("parallelism.tensor", tensor, heads, allowed_tensor(shape))
    if expert % tensor:
        allowed = [d for d in divisors(expert) if shape is None or d in allowed_tensor(shape)]
        return _not_allowed("parallelism.tensor", tensor, f"does not divide parallelism.expert {expert}", allowed)
    return None


def _refuse_pods(spec: GLMDeploymentSpec) -> Refusal | None:
    ranks_per_pod, expert, gpu = spec.hardware.ranks_per_pod, spec.parallelism.expert, spec.hardware.gpu
    if ranks_per_pod is None:
        return None
    allowed = [d for d in divisors(expert) if gpu is None or d <= gpu.per_node]
    if expert % ranks_per_pod:
        return _not_allowed(
            "hardware.ranksPerPod", ranks_per_pod, f"does not divide the {expert} ranks of a group", allowed
        )
    if gpu is not None and ranks_per_pod > gpu.per_node:
        return _not_allowed(
            "hardware.ranksPerPod", ranks_per_pod, f"is more than the {gpu.per_node} GPUs of a node", allowed
        )
    return None


def _refuse_context(spec: GLMDeploymentSpec, shape: Shape | None) -> Refusal | None:
    asked = spec.engine.limits.max_model_len
    if shape is not None and asked is not None and asked > shape.max_model_len:
        return Refusal(
            f"engine.limits.maxModelLen {asked} is more than the {shape.max_model_len} tokens of {spec.model.name}; "
            f"allowed are 1 to {shape.max_model_len}, nearest: {shape.max_model_len}"
        )
    return None


def _refuse_cache(spec: GLMDeploymentSpec) -> Refusal | None:
    if spec.engine.limits.kv_cache is not None and to_bytes(spec.engine.limits.kv_cache) == 0:
        return Refusal("engine.limits.kvCache 0 holds no token; leave it out, or give at least 1Mi")
    return None


def _refuse_resources(spec: GLMDeploymentSpec) -> Refusal | None:
    resources = spec.hardware.resources
    requests, limits = (resources.requests or {}, resources.limits or {}) if resources else ({}, {})
    for name in sorted(requests.keys() & limits.keys()):
        if parse_quantity(requests[name]) > parse_quantity(limits[name]):
            return Refusal(
                f"hardware.resources.requests {name} {requests[name]} is more than its limit {limits[name]}; "
                f"nearest: {limits[name]}"
            )
    memory = limits.get("memory")
    if memory is not None and parse_quantity(memory) <= parse_quantity(spec.hardware.shared_memory):
        return Refusal(
            f"hardware.resources.limits memory {memory} leaves no room beside hardware.sharedMemory "
            f"{spec.hardware.shared_memory}, which counts towards it; raise the limit or lower sharedMemory"
        )
    if parse_quantity(spec.hardware.shared_memory) <= Fraction(0):
        return Refusal("hardware.sharedMemory 0 is no /dev/shm; nearest: 64Mi")
    return None


def _not_allowed(field: str, value: int, fault: str, allowed: list[int]) -> Refusal:
    listed = ", ".join(str(candidate) for candidate in allowed)
    return Refusal(f"{field} {value} {fault}; allowed are {listed}, nearest: {nearest(value, allowed)}")
