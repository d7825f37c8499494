"""A deployment whose gateway and groups know each other by certificates, in real passes, and what tests ask of it."""

import base64
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509

from glm_operator import names
from glm_operator.render import group_template
from integration.fake_kubernetes import FakeKubernetes, Refused
from integration.operator_rig import Rig, a_deployment_body, a_rig

KEYS = {"auth": "APIKeys"}
LEAFS = ["chat-worker-client-tls", "chat-worker-tls"]
DAY = timedelta(days=1)


def a_body(name: str = "chat", **spec: Any) -> dict[str, Any]:
    body = a_deployment_body(name, **{"access": KEYS, **spec})
    if "gateway" not in spec:
        del body["spec"]["gateway"]
    return body


@contextlib.asynccontextmanager
async def a_certified_rig() -> AsyncIterator[Rig]:
    """Yield a settled deployment whose groups speak TLS."""
    async with a_rig(_has_chat) as rig:
        rig.certificates, rig.now = True, datetime.now(UTC)
        await rig.settle()
        yield rig


@contextlib.asynccontextmanager
async def an_upgraded_rig() -> AsyncIterator[Rig]:
    """Yield a settled deployment with plain groups, before the first pass of an operator that makes certificates."""
    async with a_rig(_has_chat) as rig:
        await rig.settle()
        await rig.end()
        rig.certificates = True
        yield rig


def _has_chat(fake: FakeKubernetes) -> None:
    fake.put("glmdeployments", a_body())


def certificate(rig: Rig, secret: str, item: str = "tls.crt") -> x509.Certificate:
    text = base64.b64decode(rig.fake.get("secrets", secret)["data"][item])
    return x509.load_pem_x509_certificates(text)[-1]


def serials(rig: Rig) -> list[int]:
    return [certificate(rig, leaf).serial_number for leaf in LEAFS]


def pod_spec(rig: Rig, plural: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = rig.fake.get(plural, name)["spec"]["template"]["spec"]
    return found


def volumes(spec: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("secret") for each in spec["volumes"]}


def speaks_tls(rig: Rig, group: str = "chat-g0") -> bool:
    (container,) = pod_spec(rig, "statefulsets", group)["containers"]
    return "https" in [port["name"] for port in container["ports"]]


def adopt(rig: Rig) -> None:
    message = rig.condition("UpToDate")[2]
    rig.fake.edit(
        "glmdeployments",
        "chat",
        lambda body: (
            body["metadata"].setdefault("annotations", {}).update({names.ADOPT_ANNOTATION: newer_revision(message)})
        ),
    )


def refuse_secrets(what: str) -> None:
    if "secrets" in what:
        raise Refused(403, "Forbidden", 'secrets is forbidden: User "x" cannot create resource "secrets"')


def replace_gateway(rig: Rig) -> None:
    """Have the Deployment's controller make the gateway's pod anew, which the fake one does not of itself."""
    rig.fake.delete(("pods", "models", "chat-gateway-0x"))
    rig.fake.step()


def other_template(*args: Any, **options: Any) -> dict[str, Any]:
    template = group_template(*args, **options)
    return {**template, "spec": {**template["spec"], "podManagementPolicy": "OrderedReady"}}


def newer_revision(message: str) -> str:
    return next(word.strip(".,;()") for word in message.split() if len(word.strip(".,;()")) == 10 and word[0] in HEX)


HEX = "0123456789abcdef"
