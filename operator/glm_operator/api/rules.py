"""The CEL rules of the CRD, as data: what the API server refuses at once, and the sentence it answers.

Pure. `api.py` hangs them on its models and `crd.py` writes them out. The API server refuses a CRD whose rules could
become expensive, and estimates that from declared bounds alone: degrees are spelled out for each model instead of
looked up in a map, and numbers are written digit by digit.

A number outside its field's own bounds stops no rule: the rules that divide by it or write it hold there, and leave
the word to the schema.
"""

from pydantic import JsonValue

from glm_operator.api.forms import DEPLOYMENT_NAME_PATTERN, FORMS, SOURCE_PATTERN
from glm_operator.names import MAX_NAME_LENGTH, RESERVED_SUFFIXES, SUFFIXES
from glm_operator.shapes import SHAPES, Shape, allowed_tensor, divisors

Rules = dict[str, JsonValue]
"""A piece of JSON schema, to be merged into a model's own (pydantic's json_schema_extra)."""

# Greatest values of fields, at most three digits: _number writes no more.
MAX_TENSOR = 64
MAX_EXPERT = 512
MAX_RANKS_PER_POD = 64
MAX_GPUS_PER_NODE = 64


def _number(expression: str) -> str:
    """Return CEL that writes a number of at most three digits.

    Not string(…): the API server takes the length of its result for unbounded, and the message for too expensive.
    """

    def digit(place: int) -> str:
        value = f"{expression} / {place} % 10"
        written = f"'0123456789'.substring({value}, {value} + 1)"
        return written if place == 1 else f"({expression} >= {place} ? {written} : '')"

    return " + ".join(digit(place) for place in (100, 10, 1))


_TENSOR = _number("self.parallelism.tensor")
_EXPERT = _number("self.parallelism.expert")


def _outside(expression: str, maximum: int) -> str:
    """Return CEL that holds for a number the schema refuses by itself."""
    return f"{expression} < 1 || {expression} > {maximum}"


_NO_TENSOR = _outside("self.parallelism.tensor", MAX_TENSOR)
_NO_EXPERT = _outside("self.parallelism.expert", MAX_EXPERT)


def _rule(expression: str, *message: str, field_path: str | None = None, plain: str = "not allowed") -> Rules:
    """Return one rule. message: one plain sentence, or the parts of a CEL expression that makes one."""
    rule: Rules = {"rule": expression, "message": message[0], "reason": "FieldValueInvalid"}
    if len(message) > 1:
        # The API server wants a plain message too, for the day the expression fails or makes more than one line.
        rule |= {"message": plain, "messageExpression": " + ".join(message)}
    return rule | ({"fieldPath": field_path} if field_path else {})


def _listed(values: list[int]) -> str:
    return ", ".join(str(value) for value in values)


def _degrees(name: str, shape: Shape) -> list[JsonValue]:
    experts, heads, kv_heads = shape.num_routed_experts, shape.num_heads, shape.num_kv_heads
    return [
        _rule(
            f"self.model.name != '{name}' || {_NO_EXPERT} || {experts} % self.parallelism.expert == 0",
            "'parallelism.expert '",
            _EXPERT,
            f"' does not divide the {experts} routed experts of {name}; allowed are {_listed(divisors(experts))}'",
            field_path=".parallelism.expert",
        ),
        _rule(
            f"self.model.name != '{name}' || {_NO_TENSOR} || ({heads} % self.parallelism.tensor == 0"
            f" && {kv_heads} % self.parallelism.tensor == 0)",
            "'parallelism.tensor '",
            _TENSOR,
            f"' does not divide the {heads} heads and {kv_heads} KV heads of {name};"
            f" allowed are {_listed(allowed_tensor(shape))}'",
            field_path=".parallelism.tensor",
        ),
    ]


NAME_RULES: list[JsonValue] = [
    _rule(
        f"self.metadata.name.matches('{DEPLOYMENT_NAME_PATTERN}')",
        "'metadata.name '",
        "self.metadata.name",
        "' becomes the name of a Service: lower-case letters, digits and dashes, starting with a letter; for example '",
        "(self.metadata.name.matches('^[0-9]') ? 'm' : '')",
        "self.metadata.name.replace('.', '-')",
    ),
    _rule(
        f"self.metadata.name.size() <= {MAX_NAME_LENGTH}",
        "'metadata.name has '",
        _number("self.metadata.name.size()"),
        f"' characters, {MAX_NAME_LENGTH} are allowed: names of pods and labels are made from it; for example '",
        "self.metadata.name.substring(0, 20)",
        "'1'",
    ),
    _rule(
        f"!self.metadata.name.matches('{RESERVED_SUFFIXES}$')",
        "'metadata.name '",
        "self.metadata.name",
        "' ends like the name of an object made for another GLMDeployment "
        f"(-g0, -{', -'.join(SUFFIXES)}); for example '",
        "self.metadata.name",
        "'s'",
    ),
]

SPEC_RULES: Rules = {
    "x-kubernetes-validations": [
        *(rule for name, shape in SHAPES.items() for rule in _degrees(name, shape)),
        _rule(
            f"{_NO_TENSOR} || {_NO_EXPERT} || self.parallelism.expert % self.parallelism.tensor == 0",
            "'parallelism.tensor '",
            _TENSOR,
            "' does not divide parallelism.expert '",
            _EXPERT,
            "', the ranks of a group'",
            field_path=".parallelism.tensor",
        ),
        _rule(
            f"!has(self.hardware.ranksPerPod) || {_outside('self.hardware.ranksPerPod', MAX_RANKS_PER_POD)}"
            f" || {_NO_EXPERT} || self.parallelism.expert % self.hardware.ranksPerPod == 0",
            "'hardware.ranksPerPod '",
            _number("self.hardware.ranksPerPod"),
            "' does not divide parallelism.expert '",
            _EXPERT,
            "', the ranks of a group'",
            field_path=".hardware.ranksPerPod",
        ),
        _rule(
            "self.hardware.device != 'cpu' || !has(self.engine) || !has(self.engine.execution)"
            " || !has(self.engine.execution.cudaKernels)",
            "engine.execution.cudaKernels is for device cuda; remove it, or set device to cuda",
            field_path=".engine.execution.cudaKernels",
        ),
        _rule(
            "self.hardware.device != 'cuda' || !has(self.engine) || !has(self.engine.execution)"
            " || !has(self.engine.execution.deterministic)",
            "engine.execution.deterministic is for device cpu, and does nothing on cuda: remove it",
            field_path=".engine.execution.deterministic",
        ),
        _rule(
            "!has(self.reasoning) || self.reasoning.visibility != 'ByRole'"
            " || (has(self.access) && (self.access.trustProxyHeaders"
            " || (has(self.access.auth) && self.access.auth != 'None')))",
            "reasoning.visibility ByRole needs access.auth, which tells the roles of callers; or "
            "access.trustProxyHeaders: true, with a proxy of yours that sends the header x-glm-role",
            field_path=".reasoning.visibility",
        ),
    ]
}

MODEL_RULES: Rules = {
    "x-kubernetes-validations": [
        _rule(
            f"self.source.matches('{SOURCE_PATTERN}')",
            "'model.source \"'",
            "self.source",
            f"'\" names no folder that a worker can read; allowed is {FORMS[SOURCE_PATTERN]}'",
            field_path=".source",
            plain=f"model.source names no folder that a worker can read; allowed is {FORMS[SOURCE_PATTERN]}",
        ),
        _rule(
            "self.source != 'builtin://glm-nano' || self.name == 'glm-nano'",
            "source builtin://glm-nano holds the model glm-nano only; use pvc://CLAIM/PATH or file:///PATH for others",
            field_path=".source",
        ),
        _rule(
            "!self.source.contains('/../') && !self.source.endsWith('/..')",
            "source must not step out of its folder with ..",
            field_path=".source",
        ),
        # A rollout passes through groups of both models behind one Service: clients would be answered by either.
        _rule(
            "self.name == oldSelf.name",
            "model.name cannot change; create another GLMDeployment for another model",
            field_path=".name",
        ),
    ]
}

HARDWARE_RULES: Rules = {
    "x-kubernetes-validations": [
        _rule("self.device != 'cuda' || has(self.gpu)", "device cuda needs hardware.gpu, as in gpu: {perNode: 8}"),
        _rule(
            "self.device != 'cpu' || !has(self.gpu)",
            "device cpu uses no GPU: remove hardware.gpu, or set device to cuda",
            field_path=".gpu",
        ),
        _rule(
            f"!has(self.gpu) || !has(self.ranksPerPod) || {_outside('self.ranksPerPod', MAX_RANKS_PER_POD)}"
            f" || {_outside('self.gpu.perNode', MAX_GPUS_PER_NODE)} || self.ranksPerPod <= self.gpu.perNode",
            "'hardware.ranksPerPod '",
            _number("self.ranksPerPod"),
            "' is more than the '",
            _number("self.gpu.perNode"),
            "' GPUs of a node (hardware.gpu.perNode); a rank takes one GPU'",
            field_path=".ranksPerPod",
        ),
        _rule(
            "!has(self.gpu) || !has(self.resources) || ((!has(self.resources.limits)"
            " || !(self.gpu.resourceName in self.resources.limits)) && (!has(self.resources.requests)"
            " || !(self.gpu.resourceName in self.resources.requests)))",
            "hardware.resources must not name the GPU resource: it follows from ranksPerPod",
            field_path=".resources",
        ),
    ]
}

SLO_CLASS_RULES: Rules = {
    "x-kubernetes-validations": [
        _rule(
            "has(self.ttft) || has(self.ttfa) || has(self.itl) || has(self.e2e)",
            "a class must promise something: give it ttft, ttfa, itl or e2e",
        ),
        _rule(
            "self.name != 'default'",
            "the name default is taken: it is for the requests that no class matches",
            field_path=".name",
        ),
    ]
}

REASONING_RULES: Rules = {
    "x-kubernetes-validations": [
        _rule(
            "self.visibility != 'ByRole' || self.visibleTo.size() > 0",
            "visibility ByRole needs visibleTo, the roles that are shown reasoning",
            field_path=".visibleTo",
        ),
        _rule(
            "self.visibility == 'ByRole' || self.visibleTo.size() == 0",
            "visibleTo is for visibility ByRole; set visibility to ByRole, or remove visibleTo",
            field_path=".visibleTo",
        ),
    ]
}

SCALING_RULES: Rules = {
    "x-kubernetes-validations": [
        _rule(
            "self.min > 0 || self.mode in ['Active', 'Observe']",
            "scaling.min 0 needs mode Active or Observe",
            field_path=".min",
        ),
        _rule("!has(self.zero) || self.min == 0", "scaling.zero is for min 0", field_path=".zero"),
        _rule(
            "self.mode in ['External', 'Disabled'] || has(self.max)",
            "mode Active and Observe need max, the most groups",
        ),
        _rule(
            "!has(self.max) || self.min <= self.max",
            "scaling.min must not be more than scaling.max",
            field_path=".min",
        ),
        _rule(
            "!has(self.max) || self.schedules.all(each, !has(each.min) || has(each.max) || each.min <= self.max)",
            "min of a schedule must not be more than scaling.max; give the schedule a max of its own",
            field_path=".schedules",
        ),
    ]
}

SCHEDULE_RULES: Rules = {
    "x-kubernetes-validations": [
        _rule("has(self.min) || has(self.max)", "a schedule must change something: give it min or max"),
        _rule(
            "!has(self.min) || !has(self.max) || self.min <= self.max",
            "min of a schedule must not be more than its max",
            field_path=".min",
        ),
    ]
}

BUDGET_RULES: Rules = {
    "x-kubernetes-validations": [
        _rule("has(self.tokens) != has(self.money)", "a budget has either tokens or money"),
    ]
}

ACCESS_RULES: Rules = {
    "x-kubernetes-validations": [
        _rule(
            "(has(self.auth) && self.auth == 'OIDC') == has(self.oidc)",
            "auth OIDC needs oidc, and only it has oidc",
            field_path=".auth",
        ),
        _rule(
            "(has(self.auth) && self.auth == 'External') == has(self.external)",
            "auth External needs external, and only it has external",
            field_path=".auth",
        ),
        _rule(
            "!has(self.keysSecretRef) || !has(self.auth) || self.auth == 'APIKeys'",
            "keysSecretRef is for auth APIKeys",
            field_path=".keysSecretRef",
        ),
    ]
}

GATEWAY_RULES: Rules = {
    "x-kubernetes-validations": [
        _rule(
            "!has(self.overflow) || self.upstreams.exists(each, each.name == self.overflow.upstream)",
            "overflow.upstream must be one of upstreams",
            field_path=".overflow",
        ),
    ]
}
