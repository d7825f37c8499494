"""EndpointSlices of a Service, read into groups. Pure.

A Service of a deployment selects the first pod of each group; so an endpoint is a group, and its pod has the group's
name and -0. Unknown conditions mean what the API says they mean: ready is true, terminating is false.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from glm_gateway.groups.found import MANAGEMENT_PORT, BadSource, Found

HTTP_PORT_NAME = "http"
HTTPS_PORT_NAME = "https"
"""Of pods whose template speaks TLS. The Service has both, each by the name of a container's port: Kubernetes leaves
out of a slice what its pods do not have, so a slice says what its own groups speak."""

MANAGEMENT_PORT_NAME = "management"
DEPLOYMENT_LABEL = "glm-operator.io/deployment"
FIRST_POD = "-0"


class _Metadata(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None


class _Port(msgspec.Struct):
    name: str | None = None
    port: int | None = None


class _Conditions(msgspec.Struct):
    ready: bool | None = None
    terminating: bool | None = None


class _Target(msgspec.Struct):
    name: str = ""


class _Endpoint(msgspec.Struct, rename="camel"):
    addresses: list[str]
    conditions: _Conditions | None = None
    hostname: str | None = None
    target_ref: _Target | None = None


class _Slice(msgspec.Struct, rename="camel"):
    metadata: _Metadata
    address_type: str
    endpoints: list[_Endpoint] | None = None
    ports: list[_Port] | None = None


def groups_of(slices: Iterable[Mapping[str, Any]]) -> list[Found]:
    """Return the groups in order of their names, each once. Raises BadSource for what is no EndpointSlice.

    While a pod is replaced, and where a Service has addresses of two families, a name is there several times: one that
    does not leave is taken, then one that is ready, then IPv4.
    """
    best: dict[str, tuple[tuple[bool, bool, bool], Found]] = {}
    for each in slices:
        try:
            read = msgspec.convert(each, _Slice)
        except msgspec.ValidationError as error:
            raise BadSource(f"an EndpointSlice cannot be read: {error}") from error
        for found in _groups_of(read):
            rank = (not found.is_leaving, found.is_ready, read.address_type == "IPv4")
            known = best.get(found.name)
            if known is None or rank > known[0]:
                best[found.name] = rank, found
    return [best[name][1] for name in sorted(best)]


def _groups_of(read: _Slice) -> Iterable[Found]:
    ports = {port.name: port.port for port in read.ports or () if port.port is not None}
    port = ports.get(HTTPS_PORT_NAME) or ports.get(HTTP_PORT_NAME)
    if read.address_type == "FQDN" or port is None:
        return
    deployment, speaks_tls = (read.metadata.labels or {}).get(DEPLOYMENT_LABEL, ""), HTTPS_PORT_NAME in ports
    # A slice that says not whose it is asks no name; but ours do, so no other's worker stands in for a group.
    is_named = speaks_tls and deployment and read.metadata.namespace
    server_name = server_name_of(deployment, read.metadata.namespace) if is_named else ""
    for endpoint in read.endpoints or ():
        name = endpoint.hostname or (endpoint.target_ref.name if endpoint.target_ref is not None else "")
        if not name or not endpoint.addresses:
            continue
        conditions = endpoint.conditions or _Conditions()
        is_leaving = bool(conditions.terminating)
        yield Found(
            name=name.removesuffix(FIRST_POD),
            host=endpoint.addresses[0],
            port=port,
            management_port=ports.get(MANAGEMENT_PORT_NAME) or MANAGEMENT_PORT,
            is_ready=conditions.ready is not False and not is_leaving,
            is_leaving=is_leaving,
            speaks_tls=speaks_tls,
            server_name=server_name,
            deployment=deployment,
        )


def server_name_of(deployment: str, namespace: str) -> str:
    """Return the name that the certificate of a deployment's workers has; glm_operator.names says the same."""
    return f"{deployment}-worker.{namespace}.svc"
