"""A small Kubernetes in memory, behind real HTTP: the API server the operator needs and the controllers around it.

Honest where it matters: server-side apply removes what its manager no longer sends and refuses another uid, status is a
subresource, immutable fields are immutable, deletes honour preconditions, owners take their children with them, watches
stream. Nothing happens by itself: `step()` runs the garbage collector, the StatefulSet controller and the kubelet once.
"""

import asyncio
import copy
import itertools
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

Manifest = dict[str, Any]
Key = tuple[str, str, str]  # plural, namespace, name

KINDS = {
    "glmdeployments": ("glm-operator.io", "v1alpha1", "GLMDeployment"),
    "statefulsets": ("apps", "v1", "StatefulSet"),
    "controllerrevisions": ("apps", "v1", "ControllerRevision"),
    "services": ("", "v1", "Service"),
    "serviceaccounts": ("", "v1", "ServiceAccount"),
    "pods": ("", "v1", "Pod"),
    "events": ("", "v1", "Event"),
    "deployments": ("apps", "v1", "Deployment"),
    "configmaps": ("", "v1", "ConfigMap"),
    "roles": ("rbac.authorization.k8s.io", "v1", "Role"),
    "rolebindings": ("rbac.authorization.k8s.io", "v1", "RoleBinding"),
    "networkpolicies": ("networking.k8s.io", "v1", "NetworkPolicy"),
    "poddisruptionbudgets": ("policy", "v1", "PodDisruptionBudget"),
    "secrets": ("", "v1", "Secret"),
    "endpointslices": ("discovery.k8s.io", "v1", "EndpointSlice"),
}
NEVER = "9999-12-31T23:59:59Z"
KEPT_AS_SENT = ("emptyDir", "nodeSelector")  # a pointer, and a map of the user's
DEFAULTS: dict[str, Manifest] = {
    "services": {"spec": {"sessionAffinity": "None"}},
    "statefulsets": {"spec": {"revisionHistoryLimit": 10}},
}


class Refused(Exception):
    """An answer other than success."""

    def __init__(self, status: int, reason: str, message: str = "", causes: tuple[str, ...] = ()) -> None:
        super().__init__(message or reason)
        details = {"causes": [{"reason": cause} for cause in causes]}
        self.status = status
        self.body = {"kind": "Status", "code": status, "reason": reason, "message": str(self), "details": details}


class FakeKubernetes:
    """Objects, the writes made to them, and faults to come."""

    def __init__(self) -> None:
        self.objects: dict[Key, Manifest] = {}
        self.writes: list[str] = []
        self.before_write: Callable[[str], None] = lambda _: None  # may raise Refused
        self.pod_ip: Callable[[str], str | None] = lambda _: None  # of a pod that becomes ready, by its name
        self.pod_quota: int | None = None  # of the namespace; the StatefulSet controller is held to it, too
        self._applied: dict[Key, Manifest] = {}
        self._numbers = itertools.count(1)
        self._log: list[tuple[int, str, str, Manifest]] = []  # version, plural, type, object

    # The API

    def put(self, plural: str, manifest: Manifest) -> Manifest:
        """Create or replace an object as somebody else than the operator."""
        metadata = manifest["metadata"]
        key = plural, metadata.setdefault("namespace", "models"), metadata["name"]
        metadata.setdefault("uid", f"uid-{next(self._numbers)}")
        self._store(key, manifest)
        return manifest

    def edit(self, plural: str, name: str, change: Callable[[Manifest], None]) -> None:
        """Change an object in place; a change of its spec counts up its generation."""
        key = plural, "models", name
        manifest = copy.deepcopy(self.objects[key])
        change(manifest)
        if manifest.get("spec") != self.objects[key].get("spec"):
            manifest["metadata"]["generation"] = manifest["metadata"].get("generation", 0) + 1
        self._store(key, manifest)

    def get(self, plural: str, name: str) -> Manifest:
        return self.objects[plural, "models", name]

    def names(self, plural: str) -> list[str]:
        return sorted(name for kind, _, name in self.objects if kind == plural)

    def apply(self, key: Key, manifest: Manifest, *, force: bool, subresource: str, dry_run: bool = False) -> Manifest:
        live, uid = self.objects.get(key), manifest["metadata"].get("uid")
        if (live is None and (uid or subresource)) or (live and uid and live["metadata"]["uid"] != uid):
            raise Refused(404 if live is None and subresource else 409, "Conflict", "uid mismatch")
        before = self._applied.get((*key[:2], key[2] + subresource), {})
        if live and not subresource and not before and not force:
            raise Refused(409, "Conflict", "another manager owns these fields")
        wanted = {"status": manifest.get("status", {})} if subresource else manifest
        if not subresource:
            wanted = {name: value for name, value in manifest.items() if name != "status"}
        merged = _merged(_without(copy.deepcopy(live or DEFAULTS.get(key[0], {})), before, wanted), wanted)
        if key[0] in ("statefulsets", "deployments"):
            merged["spec"]["template"]["spec"] = _stored(merged["spec"]["template"]["spec"])
        self._check_immutable(key, live, merged)
        if dry_run:
            merged["metadata"].setdefault("resourceVersion", "")
            return merged
        merged["metadata"].setdefault("uid", f"uid-{next(self._numbers)}")
        self._applied[(*key[:2], key[2] + subresource)] = copy.deepcopy(wanted)
        if merged != live:
            self._store(key, merged)
        return self.objects[key]

    def delete(self, key: Key, uid: str | None = None) -> None:
        live = self.objects.get(key)
        if live is None:
            raise Refused(404, "NotFound")
        if uid is not None and live["metadata"]["uid"] != uid:
            raise Refused(409, "Conflict", "precondition failed")
        if key[0] == "pods" and "deletionTimestamp" not in live["metadata"]:
            live = copy.deepcopy(live)
            live["metadata"]["deletionTimestamp"] = NEVER  # no grace period runs out here
            self._store(key, live)
        elif key[0] != "pods":
            self._drop(key)

    @staticmethod
    def _check_immutable(key: Key, live: Manifest | None, merged: Manifest) -> None:
        fields = {"controllerrevisions": [["data"]], "statefulsets": [["spec", "selector"], ["spec", "serviceName"]]}
        for path in fields.get(key[0], []) if live else []:
            before, after = live, merged
            for part in path:
                before, after = (before or {}).get(part), after.get(part)  # type: ignore[assignment]
            if before != after:
                raise Refused(422, "Invalid", f"{'.'.join(path)}: field is immutable")

    def _store(self, key: Key, manifest: Manifest) -> None:
        version = next(self._numbers)
        group, api_version, kind = KINDS[key[0]]
        manifest |= {"apiVersion": f"{group}/{api_version}".lstrip("/"), "kind": kind}
        manifest["metadata"]["resourceVersion"] = str(version)
        event = "MODIFIED" if key in self.objects else "ADDED"
        self.objects[key] = manifest
        self._log.append((version, key[0], event, copy.deepcopy(manifest)))

    def _drop(self, key: Key) -> None:
        self._applied = {applied: body for applied, body in self._applied.items() if applied[:2] != key[:2] or not (
            applied[2] == key[2] or applied[2] == key[2] + "/status"
        )}  # fmt: skip
        gone = self.objects.pop(key)
        self._log.append((next(self._numbers), key[0], "DELETED", gone))

    # The controllers around it

    def step(self) -> bool:
        """Run each controller once; return whether anything changed."""
        before = len(self._log)
        self._collect_garbage()
        self._end_pods()
        self._make_pods()
        self._run_deployments()
        self._run_pods()
        return len(self._log) != before

    def _collect_garbage(self) -> None:
        uids = {manifest["metadata"]["uid"] for manifest in self.objects.values()}
        for key, manifest in list(self.objects.items()):
            owners = [owner["uid"] for owner in manifest["metadata"].get("ownerReferences", [])]
            if owners and not uids & set(owners):
                self.delete(key)

    def _end_pods(self) -> None:
        for key, manifest in list(self.objects.items()):
            if key[0] == "pods" and "deletionTimestamp" in manifest["metadata"]:
                self._drop(key)

    def _make_pods(self) -> None:
        for (plural, namespace, name), stateful_set in list(self.objects.items()):
            if plural != "statefulsets":
                continue
            template, metadata = stateful_set["spec"]["template"], stateful_set["metadata"]
            for index in range(stateful_set["spec"]["replicas"]):
                if ("pods", namespace, f"{name}-{index}") not in self.objects and self._quota_says() is None:
                    labels = template["metadata"]["labels"] | {"apps.kubernetes.io/pod-index": str(index)}
                    owner = {"kind": "StatefulSet", "name": name, "uid": metadata["uid"], "controller": True}
                    pod = {"metadata": {"name": f"{name}-{index}", "namespace": namespace, "labels": labels}}
                    pod["metadata"]["ownerReferences"] = [owner]
                    self.put("pods", copy.deepcopy({**pod, "spec": template["spec"], "status": {}}))

    def _run_deployments(self) -> None:
        """Make as many pods of each Deployment as it wants, of its template; at once, without a roll-out."""
        for (plural, namespace, name), deployment in list(self.objects.items()):
            if plural != "deployments":
                continue
            template, replicas = deployment["spec"]["template"], deployment["spec"]["replicas"]
            owner = {"kind": "ReplicaSet", "name": name, "uid": deployment["metadata"]["uid"], "controller": True}
            for index in range(replicas):
                if ("pods", namespace, f"{name}-{index}x") not in self.objects:
                    pod = {"metadata": {"name": f"{name}-{index}x", "namespace": namespace, **template["metadata"]}}
                    pod["metadata"]["ownerReferences"] = [owner]
                    self.put("pods", copy.deepcopy({**pod, "spec": template["spec"], "status": {}}))
            for key in [key for key in self.objects if key[0] == "pods" and key[2].startswith(f"{name}-")]:
                if int(key[2].rpartition("-")[2].rstrip("x")) >= replicas:
                    self._drop(key)

    def _quota_says(self) -> str | None:
        """Return what the quota says of one more pod; None: it may be made."""
        used = len(self.names("pods"))
        if self.pod_quota is None or used < self.pod_quota:
            return None
        return f"exceeded quota: q, requested: pods=1, used: pods={used}, limited: pods={self.pod_quota}"

    def _run_pods(self) -> None:
        """Make pods ready, but not those whose image is missing."""
        for key, pod in list(self.objects.items()):
            if key[0] != "pods" or pod["status"] or "deletionTimestamp" in pod["metadata"]:
                continue
            image = pod["spec"]["containers"][0]["image"]
            conditions = [{"type": "PodScheduled", "status": "True"}]
            status: Manifest = {"conditions": conditions}
            if "missing" in image:
                state = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
                status["containerStatuses"] = [{"image": image, "state": state}]
            else:
                conditions.append({"type": "Ready", "status": "True"})
                ip = self.pod_ip(key[2])
                status |= {"podIP": ip} if ip is not None else {}
            self._store(key, {**copy.deepcopy(pod), "status": status})

    # HTTP

    def app(self) -> web.Application:
        application = web.Application()
        application.add_routes([web.route("*", "/{path:.*}", self._answer)])
        return application

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._route(request)
        except Refused as refused:
            return web.json_response(refused.body, status=refused.status)

    async def _route(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        if not parts:
            return web.json_response(_discovery(request.path.strip("/")))
        namespace = parts[1] if parts[0] == "namespaces" else ""
        plural, *rest = parts[2:] if namespace else parts
        if plural not in KINDS:
            raise Refused(404, "NotFound")
        if request.method == "GET" and not rest:
            return await self._list(request, plural, namespace)
        if request.method == "GET":
            if (plural, namespace, rest[0]) not in self.objects:
                raise Refused(404, "NotFound")
            return web.json_response(self.objects[plural, namespace, rest[0]])
        return await self._write(request, plural, namespace, *rest)

    async def _write(
        self, request: web.Request, plural: str, namespace: str, name: str = "", subresource: str = ""
    ) -> web.Response:
        body = await request.json() if request.can_read_body else {}
        what = f"{request.method} {plural}/{name}{'/' + subresource if subresource else ''}".rstrip("/")
        dry_run = request.query.get("dryRun") == "All"
        self.before_write(f"{what} (dry run)" if dry_run else what)
        if request.method == "PATCH":
            result = self._patch(request, (plural, namespace, name), subresource, body, dry_run)
            if dry_run:
                return web.json_response(result)
        elif request.method == "DELETE":
            self.delete((plural, namespace, name), body.get("preconditions", {}).get("uid"))
            # What does not end at once is answered as it is now.
            result = self.objects.get((plural, namespace, name), {"kind": "Status", "status": "Success"})
        else:
            assert request.method == "POST"
            if dry_run:
                return self._try(plural, namespace, body)
            if "generateName" in body["metadata"]:
                body["metadata"]["name"] = f"{body['metadata'].pop('generateName')}{next(self._numbers)}"
            if (plural, namespace, body["metadata"]["name"]) in self.objects:
                raise Refused(409, "AlreadyExists", f'{plural} "{body["metadata"]["name"]}" already exists')
            result = self.put(plural, body)
        self.writes.append(what)
        return web.json_response(result)

    def _patch(self, request: web.Request, key: Key, subresource: str, body: Manifest, dry_run: bool) -> Manifest:
        """Change what is there: all but applies are merges, each of a kind that somebody is known to make."""
        manager, is_apply = request.query["fieldManager"], request.content_type == "application/apply-patch+yaml"
        assert is_apply or request.content_type == "application/merge-patch+json"
        assert manager == "glm-operator" or (manager == "kubectl-glm" and not is_apply)
        if manager == "kubectl-glm":
            return self._merge(key, body)
        if key[0] == "secrets":
            assert is_apply
            self._is_of_version(key, body)
            del body["metadata"]["resourceVersion"]
            return self.apply(key, body, force=True, subresource="")
        if not is_apply:
            return self._scale(key, body) if subresource == "scale" else self._note(key, body)
        force = request.query.get("force", "").lower() == "true"
        suffix = f"/{subresource}" if subresource else ""
        return self.apply(key, body, force=force, subresource=suffix, dry_run=dry_run)

    def _scale(self, key: Key, body: Manifest) -> Manifest:
        """Set spec.replicas, and answer with a Scale, as the API server does."""
        live = self.objects.get(key)
        if live is None:
            raise Refused(404, "NotFound")
        version = body.get("metadata", {}).get("resourceVersion")
        if version is not None and version != live["metadata"]["resourceVersion"]:
            raise Refused(409, "Conflict", "the object has been modified; please apply your changes to the latest")
        self.edit(key[0], key[2], lambda found: found["spec"].update(replicas=body["spec"]["replicas"]))
        metadata = self.objects[key]["metadata"]
        return {
            "kind": "Scale",
            "metadata": {name: metadata[name] for name in ("name", "namespace", "uid", "resourceVersion")},
            "spec": {"replicas": body["spec"]["replicas"]},
        }

    def _is_of_version(self, key: Key, body: Manifest) -> None:
        """Refuse a change of an object that is not of the version that it names."""
        live = self.objects.get(key)
        if live is None or body["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]:
            raise Refused(409, "Conflict", "the object has been modified; please apply your changes to the latest")

    def _merge(self, key: Key, body: Manifest) -> Manifest:
        """Merge a patch into an object that has the version that the patch names; null removes."""
        live = self.objects.get(key)
        if live is None:
            raise Refused(404, "NotFound")
        self._is_of_version(key, body)
        self.edit(key[0], key[2], lambda found: found.update(_patched(found, body)))
        return self.objects[key]

    def _note(self, key: Key, body: Manifest) -> Manifest:
        """Merge a patch into an object that has the uid that the patch names."""
        live = self.objects.get(key)
        if live is None:
            raise Refused(404, "NotFound")
        if body["metadata"]["uid"] != live["metadata"]["uid"]:
            raise Refused(409, "Conflict", "uid mismatch")
        self._store(key, _patched(live, body))
        return self.objects[key]

    def _try(self, plural: str, namespace: str, body: Manifest) -> web.Response:
        """Answer a dry run of a creation: admission has its say before the name is looked at."""
        name = body["metadata"].get("name") or f"{body['metadata']['generateName']}x7k2p"
        if plural == "pods" and (said := self._quota_says()) is not None:
            raise Refused(403, "Forbidden", f'pods "{name}" is forbidden: {said}')
        if (plural, namespace, name) in self.objects:
            raise Refused(409, "AlreadyExists", f'{plural} "{name}" already exists')
        return web.json_response(body)

    async def _list(self, request: web.Request, plural: str, namespace: str) -> web.StreamResponse:
        wanted = dict(part.split("=", 1) for part in request.query.get("labelSelector", "").split(",") if part)

        def is_wanted(manifest: Manifest) -> bool:
            labels = manifest["metadata"].get("labels", {})
            return namespace in ("", manifest["metadata"]["namespace"]) and wanted.items() <= labels.items()

        if request.query.get("watch") == "true":
            return await self._watch(request, plural, is_wanted)
        items = [body for key, body in sorted(self.objects.items()) if key[0] == plural and is_wanted(body)]
        bare = [{name: value for name, value in item.items() if name not in ("apiVersion", "kind")} for item in items]
        version = str(self._log[-1][0] if self._log else 0)
        return web.json_response({"metadata": {"resourceVersion": version}, "items": bare})

    async def _watch(
        self, request: web.Request, plural: str, is_wanted: Callable[[Manifest], bool]
    ) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        seen = int(request.query.get("resourceVersion") or 0)
        while True:
            for version, kind, event, manifest in [entry for entry in self._log if entry[0] > seen]:
                seen = version
                if kind == plural and is_wanted(manifest):
                    await response.write(json.dumps({"type": event, "object": manifest}).encode() + b"\n")
            await asyncio.sleep(0.01)


def _discovery(path: str) -> Manifest:
    """Answer kopf's question of what there is. It watches nothing before it has seen namespaces and CRDs."""
    kinds = {
        **KINDS,
        "namespaces": ("", "v1", "Namespace"),
        "customresourcedefinitions": ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
    }
    groups = sorted({(group, version) for group, version, _ in kinds.values() if group})
    if path == "api":
        return {"versions": ["v1"]}
    if path == "apis":
        served = [{"groupVersion": f"{group}/{version}", "version": version} for group, version in groups]
        return {
            "groups": [
                {"name": group, "versions": [one], "preferredVersion": one}
                for (group, _), one in zip(groups, served, strict=True)
            ]
        }
    group, version = (["", "v1"] if path == "api/v1" else path.split("/")[1:])[:2]
    verbs = ["get", "list", "watch", "patch"]
    return {
        "resources": [
            {
                "name": plural,
                "kind": kind,
                "singularName": kind.lower(),
                "namespaced": plural in KINDS,
                "verbs": verbs,
            }
            for plural, (of_group, of_version, kind) in kinds.items()
            if (of_group, of_version) == (group, version)
        ]
    }


def _stored(spec: Any) -> Any:
    """Return a pod's spec as the API server keeps it: nearly all its fields are dropped where they are empty."""
    if isinstance(spec, list):
        return [_stored(item) for item in spec]
    if not isinstance(spec, dict):
        return spec
    kept = {name: value if name in KEPT_AS_SENT else _stored(value) for name, value in spec.items()}
    return {name: value for name, value in kept.items() if name in KEPT_AS_SENT or value not in ("", {}, [])}


def _without(live: Any, before: Any, wanted: Any) -> Any:
    """Return live without what was applied before and is not wanted any more. Lists are one value."""
    if not (isinstance(live, dict) and isinstance(before, dict)):
        return live
    for name, value in before.items():
        if name not in live:
            continue
        if not isinstance(wanted, dict) or name not in wanted:
            if isinstance(value, dict):
                live[name] = _without(live[name], value, {})
                if not live[name]:
                    del live[name]
            else:
                del live[name]
        else:
            live[name] = _without(live[name], value, wanted[name])
    return live


def _patched(live: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    kept = dict(live) if isinstance(live, dict) else {}
    for name, value in patch.items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = _patched(kept.get(name), value)
    return kept


def _merged(live: Any, wanted: Any) -> Any:
    if isinstance(live, dict) and isinstance(wanted, dict):
        return {**live, **{name: _merged(live.get(name), value) for name, value in wanted.items()}}
    return copy.deepcopy(wanted)
