"""What a group's leading supervisor or a gateway says of itself, and what a group is promised: management ports."""

from collections.abc import Mapping
from typing import Any, TypeVar

import httpx
import msgspec
from pydantic import ValidationError

from glm_operator import names
from glm_operator.local.gateway.view import DemandView, StateView
from glm_operator.observe.report import GroupReport

TIMEOUT_S = 5.0

V = TypeVar("V")


class Management:
    """A client of management ports. Close it after use."""

    def __init__(self) -> None:
        self._http = httpx.Client(timeout=TIMEOUT_S, trust_env=False)  # a proxy has no business on loopback

    def __enter__(self) -> "Management":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def is_ready(self, address: str) -> bool:
        response = self._get(address, "/readyz")
        return response is not None and response.status_code == httpx.codes.OK

    def group(self, address: str) -> GroupReport | None:
        """What the group says; None while nobody answers."""
        response = self._get(address, "/group")
        if response is None or response.status_code != httpx.codes.OK:
            return None
        try:
            return GroupReport.model_validate_json(response.content)
        except ValidationError:
            return None  # not a worker's answer

    def gateway(self, address: str) -> StateView | None:
        """What the gateway says; None while it does not answer, or is not ready."""
        return self._view(address, "/state", StateView) if self.is_ready(address) else None

    def demand(self, address: str) -> DemandView | None:
        """Who asks the gateway; None while it does not answer."""
        return self._view(address, "/demand", DemandView)

    def put_slo(self, address: str, token: str, body: Mapping[str, object]) -> bool:
        """Put promises to the group; return whether it took them."""
        return self._put(address, names.SLO_PATH, token, body)

    def put_policy(self, address: str, token: str, body: Mapping[str, object]) -> bool:
        """Put a policy to the group; return whether it took it."""
        return self._put(address, names.POLICY_PATH, token, body)

    def _put(self, address: str, path: str, token: str, body: Mapping[str, object]) -> bool:
        url = f"http://{address}:{names.MANAGEMENT_PORT}{path}"
        try:
            response = self._http.put(url, json=body, headers={"Authorization": f"Bearer {token}"})
        except httpx.TransportError:
            return False
        return response.status_code == httpx.codes.OK

    def _view(self, address: str, path: str, form: type[V]) -> V | None:
        response = self._get(address, path)
        if response is None or response.status_code != httpx.codes.OK:
            return None
        try:
            return msgspec.json.decode(response.content, type=form)
        except msgspec.MsgspecError:
            return None  # not a gateway's answer

    def _get(self, address: str, path: str) -> Any:
        try:
            return self._http.get(f"http://{address}:{names.MANAGEMENT_PORT}{path}")
        except httpx.TransportError:
            return None
