"""What the API server refuses at once, and the one sentence it answers: every rule of the CRD, by dry runs."""

import json
from typing import Any

import pytest

from e2e.conftest import MODEL_NAMESPACE
from e2e.deployments import Deployed, nano
from e2e.operator_release import Release
from glm_cluster.errors import CommandFailed

GLM45 = {"name": "GLM-4.5", "source": "pvc://models/glm-4.5"}
AIR = {"name": "GLM-4.5-Air", "source": "pvc://models/glm-4.5-air"}
CPU = {"device": "cpu"}
CUDA = {"device": "cuda", "gpu": {"perNode": 8}}

# Name, what the spec of nano is changed to, and what is answered.
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "experts-of-nano",
        {"parallelism": {"tensor": 1, "expert": 3}, "hardware": CPU},
        "parallelism.expert 3 does not divide the 8 routed experts of glm-nano; allowed are 1, 2, 4, 8",
    ),
    (
        "heads-of-nano",
        {"parallelism": {"tensor": 8, "expert": 8}},
        "parallelism.tensor 8 does not divide the 4 heads and 4 KV heads of glm-nano; allowed are 1, 2, 4",
    ),
    (
        "experts-of-glm45",
        {"model": GLM45, "hardware": CUDA, "parallelism": {"tensor": 1, "expert": 6}},
        "parallelism.expert 6 does not divide the 160 routed experts of GLM-4.5; allowed are 1, 2, 4, 5, 8, 10, 16,",
    ),
    (
        "heads-of-glm45",
        {"model": GLM45, "hardware": CUDA, "parallelism": {"tensor": 16, "expert": 160}},
        "parallelism.tensor 16 does not divide the 96 heads and 8 KV heads of GLM-4.5; allowed are 1, 2, 4, 8",
    ),
    (
        "experts-of-air",
        {"model": AIR, "hardware": CUDA, "parallelism": {"tensor": 1, "expert": 160}},
        "parallelism.expert 160 does not divide the 128 routed experts of GLM-4.5-Air; allowed are 1, 2, 4, 8, 16,",
    ),
    (
        "heads-of-air",
        {"model": AIR, "hardware": CUDA, "parallelism": {"tensor": 16, "expert": 16}},
        "parallelism.tensor 16 does not divide the 96 heads and 8 KV heads of GLM-4.5-Air; allowed are 1, 2, 4, 8",
    ),
    (
        "tensor-in-expert",
        {"parallelism": {"tensor": 4, "expert": 2}},
        "parallelism.tensor 4 does not divide parallelism.expert 2, the ranks of a group",
    ),
    (
        "pods-in-a-group",
        {"hardware": {**CPU, "ranksPerPod": 3}},
        "hardware.ranksPerPod 3 does not divide parallelism.expert 2, the ranks of a group",
    ),
    (
        "ranks-on-a-node",
        {"hardware": {"device": "cuda", "gpu": {"perNode": 4}, "ranksPerPod": 8}, "parallelism": {"expert": 8}},
        "hardware.ranksPerPod 8 is more than the 4 GPUs of a node (hardware.gpu.perNode); a rank takes one GPU",
    ),
    (
        "cuda-kernels-on-cpu",
        {"engine": {"execution": {"cudaKernels": "Triton"}}},
        "engine.execution.cudaKernels is for device cuda",
    ),
    ("gpu-on-cpu", {"hardware": {**CPU, "gpu": {}}}, "device cpu uses no GPU: remove hardware.gpu"),
    ("cuda-without-gpu", {"hardware": {"device": "cuda"}}, "device cuda needs hardware.gpu, as in gpu: {perNode: 8}"),
    (
        "limit-of-gpus",
        {"hardware": {**CUDA, "resources": {"limits": {"nvidia.com/gpu": 2}}}},
        "hardware.resources must not name the GPU resource: it follows from ranksPerPod",
    ),
    (
        "request-of-gpus",
        {
            "hardware": {
                "device": "cuda",
                "gpu": {"resourceName": "example.com/gpu"},
                "resources": {"requests": {"example.com/gpu": "2"}},
            }
        },
        "hardware.resources must not name the GPU resource: it follows from ranksPerPod",
    ),
    (
        "builtin-of-another-model",
        {"model": {**AIR, "source": "builtin://glm-nano"}},
        "source builtin://glm-nano holds the model glm-nano only; use pvc://CLAIM/PATH or file:///PATH for others",
    ),
    *(
        (
            f"{where}-of-source",
            {"model": {"name": "custom", "source": source}},
            "must not step out of its folder with ..",
        )
        for where, source in (("inside", "file:///models/../etc"), ("end", "pvc://models/.."))
    ),
    (
        "scheme",
        {"model": {"name": "custom", "source": "hf://zai-org/GLM-4.5"}},
        'model.source "hf://zai-org/GLM-4.5" names no folder that a worker can read; allowed is builtin://glm-nano,',
    ),
    (
        "lines-of-source",
        {"model": {"name": "custom", "source": "file:///a\nfile:///b"}},
        "model.source names no folder that a worker can read; allowed is builtin://glm-nano,",
    ),
    # What the schema says of a number, no rule may garble.
    (
        "expert-0",
        {"parallelism": {"expert": 0}},
        "spec.parallelism.expert in body should be greater than or equal to 1",
    ),
    (
        "expert-1024",
        {"parallelism": {"expert": 1024}},
        "spec.parallelism.expert in body should be less than or equal to",
    ),
    (
        "tensor-0",
        {"parallelism": {"tensor": 0, "expert": 2}},
        "spec.parallelism.tensor in body should be greater than or equal to 1",
    ),
    (
        "ranks-per-pod-0",
        {"hardware": {**CPU, "ranksPerPod": 0}},
        "spec.hardware.ranksPerPod in body should be greater than or equal to 1",
    ),
    (
        "negative-quantity",
        {"hardware": {**CPU, "sharedMemory": -1}},
        "spec.hardware.sharedMemory in body should be greater than or equal to 0",
    ),
    (
        "promise-of-nothing",
        {"slo": {"classes": [{"name": "chat"}]}},
        "a class must promise something: give it ttft, ttfa, itl or e2e",
    ),
    (
        "class-default",
        {"slo": {"classes": [{"name": "default", "ttft": "1s"}]}},
        "the name default is taken: it is for the requests that no class matches",
    ),
    ("same-class-twice", {"slo": {"classes": [{"name": "a", "ttft": "1s"}, {"name": "a", "itl": "1s"}]}}, "Duplicate"),
    ("scaling-without-max", {"scaling": {"min": 2}}, "mode Active and Observe need max, the most groups"),
    ("min-over-max", {"scaling": {"min": 3, "max": 2}}, "scaling.min must not be more than scaling.max"),
    (
        "schedule-of-nothing",
        {"scaling": {"max": 2, "schedules": [{"name": "day", "cron": "0 8 * * *", "duration": "8h"}]}},
        "a schedule must change something: give it min or max",
    ),
    (
        "schedule-min-over-max",
        {
            "scaling": {
                "max": 2,
                "schedules": [{"name": "d", "cron": "0 8 * * *", "duration": "8h", "min": 3, "max": 2}],
            }
        },
        "min of a schedule must not be more than its max",
    ),
    (
        "schedule-over-max",
        {"scaling": {"max": 2, "schedules": [{"name": "d", "cron": "0 8 * * *", "duration": "8h", "min": 3}]}},
        "min of a schedule must not be more than scaling.max; give the schedule a max of its own",
    ),
    (
        "roles-of-nobody",
        {"reasoning": {"visibility": "ByRole"}, "access": {"trustProxyHeaders": True}},
        "visibility ByRole needs visibleTo, the roles that are shown reasoning",
    ),
    (
        "roles-without-by-role",
        {"reasoning": {"visibleTo": ["developer"]}},
        "visibleTo is for visibility ByRole; set visibility to ByRole, or remove visibleTo",
    ),
    (
        "roles-that-nobody-is-believed",
        {"reasoning": {"visibility": "ByRole", "visibleTo": ["developer"]}},
        "reasoning.visibility ByRole needs access.auth, which tells the roles of callers",
    ),
    (
        "same-role-twice",
        {"reasoning": {"visibility": "ByRole", "visibleTo": ["a", "a"]}, "access": {"trustProxyHeaders": True}},
        "Duplicate",
    ),
    (
        "threshold-over-1",
        {"reasoning": {"autoThreshold": 1.5}},
        "spec.reasoning.autoThreshold in body should be less than or equal to 1",
    ),
    ("replicas", {"replicas": -1}, "spec.replicas in body should be greater than or equal to 0"),
    ("text", {"replicas": "2"}, "spec.replicas in body must be of type integer"),
    ("unknown", {"hardware": {**CPU, "gpus": 3}}, 'unknown field "spec.hardware.gpus"'),
]

# Name of the deployment and what is answered.
REFUSED_NAMES = [
    ("glm-4.5-air", "lower-case letters, digits and dashes, starting with a letter; for example glm-4-5-air"),
    ("4chat", "lower-case letters, digits and dashes, starting with a letter; for example m4chat"),
    ("x" * 41, "metadata.name has 41 characters, 40 are allowed"),
    (
        "chat-g0",
        "ends like the name of an object made for another GLMDeployment (-g0, -ranks, -worker, ",
    ),
]


def refused(name: str, change: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest of nano with parts of its spec replaced."""
    manifest = nano(name, MODEL_NAMESPACE)
    manifest["spec"] |= change
    return manifest


def dry_run(release: Release, manifest: dict[str, Any]) -> str:
    """Return what kubectl says of a manifest that must not be taken."""
    with pytest.raises(CommandFailed) as caught:
        release.target.kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest))
    return str(caught.value)


@pytest.mark.parametrize(("name", "change", "message"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_cannot_be_is_refused_with_one_sentence(
    release: Release, name: str, change: dict[str, Any], message: str
) -> None:
    said = dry_run(release, refused(f"bad-{name}", change))
    assert message in said
    assert "\n* " not in said, "kubectl lists several faults like this"


@pytest.mark.parametrize(("name", "message"), REFUSED_NAMES)
def test_names_that_nothing_can_be_derived_from_are_refused(release: Release, name: str, message: str) -> None:
    assert message in dry_run(release, nano(name, MODEL_NAMESPACE))


def test_the_model_of_a_deployment_cannot_change(shared: Deployed) -> None:
    change = json.dumps({"spec": {"model": {"name": "custom", "source": "file:///models/other"}}})
    with pytest.raises(CommandFailed, match=r"model\.name cannot change; create another GLMDeployment"):
        shared.target.kubectl(
            "patch", "glmd", shared.name, "-n", MODEL_NAMESPACE, "--type=merge", "--dry-run=server", "-p", change
        )
