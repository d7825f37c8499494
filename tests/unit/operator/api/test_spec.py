"""What is a GLMDeployment and what is not."""

from typing import Any

import pytest

from glm_operator.api.forms import FORMS
from glm_operator.api.spec import MOVES_NOTHING, GLMDeploymentSpec, InvalidSpec, Metadata, parse_deployment
from unit.operator.operator_builders import a_body

CPU = {"device": "cpu"}


def refusal(body: dict[str, Any]) -> str:
    with pytest.raises(InvalidSpec) as caught:
        parse_deployment(body)
    return str(caught.value)


def test_defaults_are_filled_in() -> None:
    deployment = parse_deployment(a_body(), default_image="worker:7")
    spec = deployment.spec
    assert (spec.replicas, deployment.image, spec.engine.limits.drain_deadline_seconds) == (1, "worker:7", 120)
    assert spec.rollout.model_dump() == {
        "max_unavailable": "1",
        "min_ready_seconds": 0,
        "progress_deadline_seconds": None,
        "node_loss_seconds": 300,
        "paused": False,
        "adopt": "Manual",
    }


def test_a_default_image_is_no_part_of_the_spec() -> None:
    forms = [parse_deployment(a_body(), default_image=image).spec.normal_form() for image in ("worker:7", "worker:8")]
    assert forms[0] == forms[1]


def test_an_image_that_is_named_wins_over_the_default() -> None:
    body = a_body(engine={"image": "mine:1"})
    assert parse_deployment(body, default_image="worker:7").image == "mine:1"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hardware": {"device": "cpu", "gpus": 3}}, "spec.hardware.gpus is not a known field"),
        ({"replicas": -1}, "spec.replicas is -1"),
        ({"hardware": {}}, "spec.hardware.device is required"),
        ({"hardware": {"device": "tpu"}}, "spec.hardware.device is 'tpu'"),
        ({"hardware": {"device": "cuda"}}, "device cuda needs hardware.gpu"),
        ({"hardware": {"device": "cpu", "gpu": {}}}, "device cpu uses no GPU"),
        (
            {"hardware": {**CPU, "sharedMemory": "1GiB"}},
            "spec.hardware.sharedMemory is '1GiB'; allowed is a number that is not negative, with an optional unit",
        ),
        (
            {"hardware": {**CPU, "sharedMemory": -1}},
            "spec.hardware.sharedMemory is '-1'; allowed is a number that is not",
        ),
        (
            {"hardware": {**CPU, "resources": {"limits": {"cpu": 0.5}}}},
            'spec.hardware.resources.limits.cpu is 0.5: a fraction is no integer; write it as text: "0.5"',
        ),
        ({"hardware": {**CPU, "sharedMemory": True}}, "spec.hardware.sharedMemory is True"),
        ({"parallelism": {"expert": "4"}}, "spec.parallelism.expert is '4'"),
        ({"hardware": {**CPU, "ranks_per_pod": 1}}, "spec.hardware.ranks_per_pod is not a known field"),
        ({"hardware": {**CPU, "nodeSelector": {"a": "b c"}}}, "spec.hardware.nodeSelector.a is 'b c'"),
        (
            {"hardware": {**CPU, "nodeSelector": {"a b": "c"}}},
            "nodeSelector.keys is 'a b'; allowed is the key of a label",
        ),
        (
            {"hardware": {"device": "cuda", "gpu": {}, "resources": {"limits": {"nvidia.com/gpu": 1}}}},
            "must not name nvidia.com/gpu",
        ),
        ({"model": {"name": "GLM-4.5", "source": "builtin://glm-nano"}}, "holds the model glm-nano only"),
        ({"model": {"name": "custom", "source": "file:///models/../etc"}}, "must not step out"),
        (
            {"model": {"name": "custom", "source": "hf://zai-org/GLM-4.5"}},
            "spec.model.source is 'hf://zai-org/GLM-4.5'; allowed is builtin://glm-nano, pvc://CLAIM/PATH or file:///PATH",
        ),
        ({"engine": {"image": "a b"}}, "spec.engine.image is 'a b'"),
        *(
            (
                {"engine": {"tracing": {"endpoint": endpoint}}},
                f"spec.engine.tracing.endpoint is '{endpoint}'; allowed is the URL of an OTLP/HTTP collector",
            )
            for endpoint in ("", "collector:4318", "http://", "http://a b/", "grpc://a:4317", "http://me:secret@a/")
        ),
        (
            {"rollout": {"maxUnavailable": 0}},
            "spec.rollout.maxUnavailable is '0'; allowed is a number of groups from 1",
        ),
        ({"rollout": {"maxUnavailable": "101%"}}, "maxUnavailable is '101%'; allowed is a number of groups"),
        ({"rollout": {"maxUnavailable": True}}, "expected a whole number from 1, or a percentage as text, like 25%"),
        ({"rollout": {"maxUnavailable": 1.5}}, "expected a whole number from 1, or a percentage as text, like 25%"),
        ({"rollout": {"nodeLossSeconds": 0}}, "spec.rollout.nodeLossSeconds is 0"),
        ({"rollout": {"adopt": "automatic"}}, "spec.rollout.adopt is 'automatic'"),
    ],
)
def test_a_spec_that_cannot_be_is_refused_with_field_and_value(change: dict[str, Any], said: str) -> None:
    assert said in refusal(a_body(**change))


@pytest.mark.parametrize("name", ["glm-4.5-air", "4chat", "Chat", "x" * 41, "chat-g0", "chat-ranks", "chat-worker"])
def test_a_name_that_nothing_can_be_derived_from_is_refused(name: str) -> None:
    assert "metadata" in refusal(a_body(name))


@pytest.mark.parametrize("name", ["chat", "a", "x" * 40, "chat-g", "chat-g0s", "glm-4-5-air"])
def test_other_names_are_taken(name: str) -> None:
    assert parse_deployment(a_body(name)).name == name


@pytest.mark.parametrize(
    "url", ["http://a", "https://a.b:4318/v1/traces", "http://[::1]:4318/v1/traces", "http://10.0.0.1/x"]
)
def test_a_collector_of_spans_has_the_url_that_was_given(url: str) -> None:
    tracing = parse_deployment(a_body(engine={"tracing": {"endpoint": url}})).spec.engine.tracing
    assert tracing is not None
    assert tracing.endpoint == url


def test_another_kind_is_refused() -> None:
    assert "kind is 'Deployment'; expected 'GLMDeployment'" in refusal({**a_body(), "kind": "Deployment"})


def test_what_a_pattern_allows_is_told_in_words() -> None:
    schemas = (model.model_json_schema() for model in (GLMDeploymentSpec, Metadata))
    assert {pattern for schema in schemas for pattern in patterns(schema)} <= FORMS.keys()


def patterns(schema: object) -> set[str]:
    """Return every pattern in a JSON schema, those of keys with them."""
    if isinstance(schema, list):
        return set().union(*map(patterns, schema))
    if not isinstance(schema, dict):
        return set()
    own = {schema["pattern"]} if isinstance(schema.get("pattern"), str) else set()
    return own | set(schema.get("patternProperties", {})) | patterns(list(schema.values()))


def test_several_faults_are_told_together() -> None:
    said = refusal(a_body(replicas=-1, parallelism={"expert": 0}))
    assert "spec.replicas" in said
    assert "spec.parallelism.expert" in said


def test_null_is_a_field_left_out() -> None:
    spec = parse_deployment(a_body(replicas=None, hardware={**CPU, "gpu": None, "nodeSelector": {"a": None}})).spec
    assert (spec.replicas, spec.hardware.gpu, spec.hardware.node_selector) == (1, None, {})


@pytest.mark.parametrize("change", [{"replicas": 3}, {"rollout": {"maxUnavailable": "50%", "paused": True}}])
def test_what_moves_no_group_is_no_new_spec(change: dict[str, Any]) -> None:
    before, after = (parse_deployment(a_body(**spec)).spec.normal_form() for spec in ({}, change))
    assert before == after
    assert not MOVES_NOTHING & before.keys()


@pytest.mark.parametrize(
    ("most", "replicas", "number"),
    [
        (1, 0, 1),
        (3, 2, 3),
        ("1000", 9, 1000),
        ("25%", 7, 1),
        ("25%", 8, 2),
        ("1%", 10, 1),
        ("100%", 5, 5),
        ("50%", 0, 1),
    ],
)
def test_a_budget_in_per_cent_is_rounded_down_and_at_least_one(most: int | str, replicas: int, number: int) -> None:
    rollout = parse_deployment(a_body(rollout={"maxUnavailable": most})).spec.rollout
    assert rollout.most_unavailable(replicas) == number


@pytest.mark.parametrize("quantity", [2, "2", "200m", "1.5Gi"])
def test_a_quantity_may_be_a_number_or_text(quantity: object) -> None:
    body = a_body(hardware={**CPU, "resources": {"limits": {"memory": quantity}}})
    resources = parse_deployment(body).spec.hardware.resources
    assert resources is not None
    assert resources.limits == {"memory": str(quantity)}
