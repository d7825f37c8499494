"""An OIDC issuer: its keys are fetched and kept, and say of tokens who sent them.

Keys are fetched again now and then, and at once for a token signed with one that is not known, at most every
`UNKNOWN_S`. While the issuer is not there, the keys that it told last are good: a gateway does not go down with it.
"""

import asyncio
import logging
from dataclasses import dataclass, field

import httpx

from glm_edge.errors.failure import Failure
from glm_gateway.access.config import JwtConfig
from glm_gateway.access.decide import unknown_caller
from glm_gateway.access.tokens import BadKeySet, BadToken, KeySet, claims_of, head_of, key_set_in
from glm_gateway.access.who import BadWho, Who, who_in
from glm_gateway.identity.asking import NoAnswer, answer, client_for

log = logging.getLogger(__name__)

DISCOVERY = "/.well-known/openid-configuration"
ASK_S = 5.0
AGAIN_S = 5


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds between two fetches. unknown_s: for keys that are not known; retry_s: after one that failed."""

    refresh_s: float = 600.0
    unknown_s: float = 30.0
    retry_s: float = 5.0


@dataclass
class Issuer:
    """Use it from one event loop, between `open` and `close`."""

    config: JwtConfig
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        self._keys: KeySet | None = None
        self._trouble = ""  # why the last fetch failed
        self._began_s = float("-inf")  # of the last fetch
        self._fetching = asyncio.Lock()
        self._client: httpx.AsyncClient | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to fetch keys; the first time is waited for. An issuer that is not there is no error: it may come."""
        if self.config.issuer.startswith("http:"):
            log.warning("auth.jwt.issuer has no TLS: whoever is between it and this gateway can let anybody in")
        self._client = await client_for(self.config.issuer, ca_file=self.config.ca_file)
        await self._fetch()
        self._task = asyncio.create_task(self._refresh_on())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def who(self, secret: str) -> Who | Failure:
        """Return who sent a token; or why that cannot be said."""
        config = self.config
        try:
            head = head_of(secret)
            key = None if self._keys is None else self._keys.find(head)
            if key is None:
                await self._fetch_for_unknown()
                key = None if self._keys is None else self._keys.find(head)
            if key is None:
                if self._keys is None or self._trouble:
                    return Failure(
                        503,
                        "the gateway cannot read the keys of its issuer now, so it cannot tell whose token this is",
                        "server_error",
                        None,
                        "unavailable",
                        AGAIN_S,
                    )
                return unknown_caller("the token is signed with a key that its issuer does not have")
            claims = claims_of(secret, key, issuer=config.issuer, audience=config.audience)
            return who_in(claims, name=config.name_claim, group=config.group_claim, role=config.role_claim)
        except BadToken as error:
            return unknown_caller(str(error))
        except BadWho as error:
            return unknown_caller(f"of the token's claims, {error}")

    async def _fetch_for_unknown(self) -> None:
        """Fetch keys, unless that was done a moment ago: strangers choose the names of keys."""
        if self._fetching.locked():  # somebody does it now
            async with self._fetching:
                return
        wait_s = self.pace.unknown_s if not self._trouble else self.pace.retry_s
        if asyncio.get_running_loop().time() - self._began_s >= wait_s:
            await self._fetch()

    async def _fetch(self) -> None:
        async with self._fetching:
            await self._fetch_once()

    async def _fetch_once(self) -> None:
        self._began_s = asyncio.get_running_loop().time()
        try:
            found = await self._asked()
        except (NoAnswer, BadKeySet) as error:
            if str(error) != self._trouble:
                kept = "no token is good" if self._keys is None else "the last keys stay good"
                log.error("cannot read the keys of the issuer %s: %s; %s", self.config.issuer, error, kept)
            self._trouble = str(error)
            return
        if self._trouble or self._keys is None:
            log.info("the issuer %s has %d keys", self.config.issuer, found.num_keys)
        self._keys, self._trouble = found, ""

    async def _asked(self) -> KeySet:
        """Return the keys as the issuer tells them. Raises NoAnswer and BadKeySet."""
        url = self.config.jwks_url or await self._jwks_url()
        return key_set_in(await self._document(url))

    async def _jwks_url(self) -> str:
        issuer = self.config.issuer
        said = await self._document(issuer.rstrip("/") + DISCOVERY)
        if not isinstance(said, dict) or said.get("issuer") != issuer:
            raise NoAnswer("it describes itself as another issuer")
        url = said.get("jwks_uri")
        begins = "https://" if issuer.startswith("https:") else ("http://", "https://")
        if not isinstance(url, str) or not url.startswith(begins):
            raise NoAnswer("its description has no jwks_uri that can be asked")
        return url

    async def _document(self, url: str) -> object:
        assert self._client is not None
        status, said = await answer(self._client, self._client.build_request("GET", url), ASK_S)
        if status != 200:
            raise NoAnswer(f"it answered {status}")
        return said

    async def _refresh_on(self) -> None:
        while True:
            await asyncio.sleep(self.pace.retry_s if self._trouble else self.pace.refresh_s)
            await self._fetch()
