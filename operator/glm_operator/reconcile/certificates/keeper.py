"""Keeps the certificates of each deployment good: reads three Secrets, decides, writes what has to change.

What was seen is remembered for a while, so that a fleet costs few requests. A failure stops nothing else of a pass: it
is returned, to be told.
"""

import asyncio
import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

from glm_operator import names
from glm_operator.api.trouble import Trouble
from glm_operator.errors import Conflict, ForeignObject, KubeError, LeftOver, Vanishing
from glm_operator.manifest import Manifest, name_of
from glm_operator.observe.ownership import check_ownership
from glm_operator.reconcile.certificates.decide import Leaf, Step, kept, needs_next, signer, step
from glm_operator.reconcile.certificates.issue import Use, leaf, new_key, root
from glm_operator.reconcile.certificates.secrets import (
    Authority,
    Held,
    Unreadable,
    authority_secret,
    host_of_leaf,
    is_ours,
    leaf_secret,
    name_of_leaf,
    read_authority,
    read_leaf,
    user_reference,
)

logger = logging.getLogger(__name__)

REMEMBERED = timedelta(minutes=10)
"""How long what was seen counts, unless the deployment was edited: three requests a deployment in that time."""

SOON = timedelta(seconds=30)
"""The same while a pod does not run yet: it may wait for a Secret that somebody has deleted."""

FAILED, PASSING = timedelta(minutes=1), timedelta(seconds=5)
"""The same of a failure, and of one that passes by itself."""

TRIES = 3
"""Of one look: another operator, or a person, may write the same Secret at the same moment."""

Name = tuple[str, str]


class Secrets(Protocol):
    """What is needed of the API server (glm_operator.cluster.kube.Kube)."""

    async def secret(self, namespace: str, name: str) -> Manifest | None: ...
    async def put_secret(self, manifest: Manifest, version: str | None) -> None: ...


@dataclass(frozen=True)
class Standing:
    """How it is. ends: when the first of them ends, as far as known. trouble: what keeps them from being renewed.

    written: what was made anew, and a mark of it: pods that mount it are told. look_at: again then; None: as ever.
    """

    ends: datetime | None = None
    trouble: Trouble | None = None
    written: Mapping[Use, str] = field(default_factory=dict)
    look_at: datetime | None = None


@dataclass(frozen=True)
class _Known:
    uid: str
    generation: int
    seen: datetime
    until: datetime
    standing: Standing

    def counts_until(self, is_awaited: bool) -> datetime:
        return min(self.until, self.seen + SOON) if is_awaited else self.until


class Certificates:
    """Of all deployments of an operator."""

    def __init__(self, secrets: Secrets, now: Callable[[], datetime]) -> None:
        self._secrets = secrets
        self._now = now
        self._known: dict[Name, _Known] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by namespace: one authority

    @property
    def ends(self) -> dict[Name, datetime]:
        """When the first certificate of each deployment ends, as it was last seen."""
        return {name: known.standing.ends for name, known in self._known.items() if known.standing.ends is not None}

    def forget(self, name: Name) -> None:
        """Forget a deployment that is gone, or needs none any more."""
        self._known.pop(name, None)

    async def ensure(self, body: Manifest, *, is_awaited: bool = False) -> Standing:
        """See to the certificates of a deployment. is_awaited: pods may wait for them.

        Raises Vanishing where its namespace goes.
        """
        metadata = body["metadata"]
        name, uid, generation = (metadata["namespace"], name_of(body)), metadata["uid"], metadata.get("generation", 0)
        known, now = self._known.get(name), self._now()
        if known is not None and known.uid != uid:
            known = None
        if known is not None and known.generation == generation and now < known.counts_until(is_awaited):
            return known.standing
        standing = await self._seen_to(body, known.standing.ends if known is not None else None)
        until = standing.look_at or now + REMEMBERED
        self._known[name] = _Known(uid, generation, now, until, replace(standing, written={}))
        return standing

    async def _seen_to(self, body: Manifest, ends: datetime | None) -> Standing:
        where = f"{body['metadata']['namespace']}/{name_of(body)}"
        written: dict[Use, str] = {}
        try:
            for number in range(TRIES):
                try:
                    ends = await self._look(body, written)
                    break
                except Conflict:
                    if number == TRIES - 1:
                        raise
        except Vanishing:
            raise
        except (KubeError, Unreadable) as error:
            logger.warning("deployment=%s certificates are not looked after: %s", where, error)
            again = self._now() + (PASSING if isinstance(error, LeftOver | Conflict) else FAILED)
            return Standing(ends, Trouble("certificates", "CertificatesFailed", str(error)), written, again)
        return Standing(ends, written=written)

    async def _look(self, body: Manifest, written: dict[Use, str]) -> datetime:
        """Read, decide, write; return when the first of the leafs ends. written: is added to at each write."""
        namespace, name = body["metadata"]["namespace"], name_of(body)
        read = [names.AUTHORITY_SECRET, *(name_of_leaf(name, use) for use in Use)]
        live, *found = await asyncio.gather(*(self._secrets.secret(namespace, each) for each in read))
        authority = await self._authority(body, live)
        now, roots, held = self._now(), authority.roots, dict[Use, Held | None]()
        for use, secret in zip(Use, found, strict=True):
            if secret is not None:
                _check_leaf(secret, body)
            host = host_of_leaf(name, namespace, use)
            held[use] = read_leaf(secret, authority, use, host) if secret is not None else None
        by = authority.pair(signer(roots, [each.leaf for each in held.values() if each is not None], now).id)
        ends = []
        for use, secret in zip(Use, found, strict=True):
            old = held[use]
            what = step(old.leaf if old is not None else None, roots, now)
            if what is Step.KEEP and old is not None:
                ends.append(old.leaf.ends)
                continue
            is_same = what is Step.TRUST and old is not None
            pair = (
                old.pair
                if is_same and old is not None
                else leaf(by, use, host_of_leaf(name, namespace, use), new_key(), now)
            )
            since = _since(old.leaf if old is not None else None, authority, now)
            await self._secrets.put_secret(leaf_secret(body, use, pair, authority, since), _version(secret))
            written[use] = hashlib.sha256(pair.pem + authority.bundle).hexdigest()[:10]
            ends.append(pair.certificate.not_valid_after_utc)
            logger.info(
                "deployment=%s/%s %s: %s, good until %s",
                *(namespace, name, name_of_leaf(name, use), what.value),
                f"{ends[-1]:%Y-%m-%d}",
            )
        return min(ends)

    async def _authority(self, body: Manifest, live: Manifest | None) -> Authority:
        """Return the authority of the namespace as it is to be, after it was written so.

        Of several deployments that have to write it one does at a time: others of this operator are no conflict.
        """
        namespace = body["metadata"]["namespace"]
        wanted, manifest = self._wanted(body, live)
        if manifest is None:
            return wanted
        async with self._locks[namespace]:
            live = await self._secrets.secret(namespace, names.AUTHORITY_SECRET)
            wanted, manifest = self._wanted(body, live)
            if manifest is not None:
                await self._secrets.put_secret(manifest, _version(live))
                logger.info("namespace=%s %s: %d roots", namespace, names.AUTHORITY_SECRET, len(wanted.pairs))
        return wanted

    def _wanted(self, body: Manifest, live: Manifest | None) -> tuple[Authority, Manifest | None]:
        """Return what the authority is to be, and the Secret to write; None: it is so already."""
        if live is not None and not is_ours(live):
            raise ForeignObject(f"Secret {names.AUTHORITY_SECRET} is somebody else's and is not taken over; rename it")
        try:
            before = read_authority(live) if live is not None else Authority()
        except Unreadable as error:
            raise Unreadable(f"Secret {names.AUTHORITY_SECRET}: {error}; delete it, and another one is made") from None
        now = self._now()
        roots = kept(before.roots, now)
        after = before.only(roots)
        if needs_next(roots, now):
            after = Authority([*after.pairs, root(new_key(), now)])
        owners = list(live["metadata"].get("ownerReferences") or []) if live is not None else []
        has_owner = any(owner.get("uid") == body["metadata"]["uid"] for owner in owners)
        if live is not None and has_owner and after.roots == before.roots:
            return after, None
        owners += [] if has_owner else [user_reference(body)]
        return after, authority_secret(body["metadata"]["namespace"], after, owners)


def _check_leaf(secret: Manifest, body: Manifest) -> None:
    """Raise ForeignObject or LeftOver unless a Secret is ours, and of this deployment."""
    if not is_ours(secret):
        raise ForeignObject(f"Secret {name_of(secret)} is somebody else's and is not taken over; rename it")
    check_ownership({**secret, "kind": "Secret"}, body)


def _since(before: Leaf | None, authority: Authority, now: datetime) -> datetime:
    """Return since when a leaf trusts these roots."""
    ids = {pair.id for pair in authority.pairs}
    return before.trusts_since if before is not None and before.trusts == ids else now


def _version(secret: Manifest | None) -> str | None:
    return None if secret is None else str(secret["metadata"]["resourceVersion"])
