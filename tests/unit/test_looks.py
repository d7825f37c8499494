"""How the stories look at a cluster: paths of the API server, what a list lacks, when a Deployment is rolled out."""

from typing import Any

import httpx
import pytest

from e2e.api import Api, path_of
from e2e.operator_release import is_rolled_out
from glm_cluster.errors import CommandFailed


def answering(code: int, body: dict[str, Any], asked: list[str]) -> Api:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path.decode())
        return httpx.Response(code, json=body)

    return Api(httpx.Client(base_url="http://api", transport=httpx.MockTransport(answer)))


def test_an_object_lies_below_its_group_and_namespace() -> None:
    assert path_of("pods", "models", "nano-g0-0:9090", "proxy", "group") == (
        "/api/v1/namespaces/models/pods/nano-g0-0:9090/proxy/group"
    )
    assert path_of("controllerrevisions.apps", "models") == "/apis/apps/v1/namespaces/models/controllerrevisions"


def test_what_is_listed_is_selected_by_labels_and_says_its_kind() -> None:
    asked: list[str] = []
    api = answering(200, {"items": [{"metadata": {"name": "a"}}]}, asked)
    assert api.items("statefulsets", "models", "a=b") == [{"kind": "StatefulSet", "metadata": {"name": "a"}}]
    assert asked == ["/apis/apps/v1/namespaces/models/statefulsets?labelSelector=a%3Db"]


def test_what_is_not_there_is_told_as_kubectl_tells_it() -> None:
    with pytest.raises(CommandFailed, match=r"GET /api/v1/namespaces/models/pods/a was answered 404: .*not found"):
        answering(404, {"message": "not found"}, []).read(path_of("pods", "models", "a"))


@pytest.mark.parametrize(
    ("replicas", "status", "is_so"),
    [
        (1, {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}, True),
        (0, {"observedGeneration": 2}, True),
        (1, {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}, False),
        (1, {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 1}, False),
        (1, {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1}, False),
        (1, {}, False),
    ],
    ids=["all there", "none wanted", "of an older spec", "an old pod is left", "not available", "nothing known"],
)
def test_a_deployment_is_rolled_out_when_all_its_pods_are_new_and_available(
    replicas: int, status: dict[str, int], is_so: bool
) -> None:
    found = {"metadata": {"generation": 2}, "spec": {"replicas": replicas}, "status": status}
    assert is_rolled_out(found) == is_so
