"""Who tells which groups a model has: a file, or the EndpointSlices of a Service."""

from collections.abc import Callable, Mapping

from glm_gateway.config.models import GroupsConfig
from glm_gateway.groups.file import FileSource
from glm_gateway.groups.found import Found
from glm_gateway.groups.slice_watch import Access, SliceSource


def source_of(
    where: GroupsConfig, take: Callable[[list[Found]], None], environ: Mapping[str, str]
) -> FileSource | SliceSource:
    """Return the source that the gateway's file names. environ: says where the API server of the cluster is."""
    if where.file is not None:
        return FileSource(where.file, take)
    assert where.service is not None
    assert where.namespace is not None
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
    return SliceSource(Access.in_cluster(host, port), where.namespace, where.service, take)
