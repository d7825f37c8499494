"""The pod of a replica group: environment, probes, volumes, resources, security. Pure.

The pod meets the *restricted* Pod Security Standard and asks for nothing it does not use. It has no empty field that
the API server would drop: the live object would never hold what is wanted, and every pass would write it again.
"""

from glm_operator import names
from glm_operator.api.engine import Chat, Execution, Switch, Tracing
from glm_operator.api.pods import Toleration
from glm_operator.api.quantity import canonical, mebibytes, to_bytes
from glm_operator.api.spec import GLMDeployment
from glm_operator.layout import CLAIM_MOUNT, Layout
from glm_operator.manifest import Manifest
from glm_operator.render.labels import group_labels, scrape_annotations

WORKER_UID = 65532
"""User of the worker image, named by number so that the kubelet can tell that it is not root."""

GRACE_MARGIN_S = 15
"""Between the end of a drain and SIGKILL: the exit of the ranks and of the pod's other processes."""

PERIOD_S = 1
"""Of the probes that a start and a drain wait for: the shortest that Kubernetes has."""

READINESS_FAILURES = 3
READINESS_LAG_S = PERIOD_S * READINESS_FAILURES
"""How long a pod that says it is not ready still counts as ready, and is sent requests."""

CERTIFICATE_FOLDER = "/etc/glm/tls"

PROBE_TIMEOUT_S = 5
DEFAULT_KV_BYTES_ON_CPU = 256 * 2**20  # the worker's own default
BASE_MEMORY_BYTES = 512 * 2**20  # supervisor, server, its stand-by, and one imported torch that forked ranks share


def pod_template(
    deployment: GLMDeployment, layout: Layout, group: str, revision: str, *, has_tls: bool = False
) -> Manifest:
    """Return the pod template of one group. It names its revision, in a label and to its supervisor.

    has_tls: its port of requests speaks TLS, with who has a certificate of the namespace's authority.
    """
    spec, limits = deployment.spec, deployment.spec.engine.limits
    optional = {
        "imagePullSecrets": [secret.model_dump() for secret in spec.engine.image_pull_secrets or []],
        "nodeSelector": dict(spec.hardware.node_selector or {}),
        "tolerations": [toleration(each) for each in spec.hardware.tolerations or []],
    }
    return {
        "metadata": {
            "labels": group_labels(deployment.name, group, revision),
            "annotations": scrape_annotations(),
        },
        "spec": {
            "serviceAccountName": names.service_account(deployment.name),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": (
                limits.drain_accept_seconds + READINESS_LAG_S + limits.drain_deadline_seconds + GRACE_MARGIN_S
            ),
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": WORKER_UID,
                "runAsGroup": WORKER_UID,
                "fsGroup": WORKER_UID,
                # A claim with a big checkpoint would be walked file by file at each mount otherwise.
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_container(deployment, layout, group, revision, has_tls=has_tls)],
            "volumes": _volumes(deployment, layout, has_tls=has_tls),
            **{key: value for key, value in optional.items() if value},
        },
    }


def speaks_tls(template: Manifest) -> bool:
    """Tell whether pods of a template speak TLS, whichever version has rendered it."""
    containers = template["spec"].get("containers") or []
    return any(port.get("name") == names.HTTPS for each in containers for port in each.get("ports") or [])


def environment(deployment: GLMDeployment, layout: Layout, group: str, revision: str) -> list[Manifest]:
    """Return the worker's settings as environment, named as in glm_worker.settings (a contract test compares)."""
    spec, limits = deployment.spec, deployment.spec.engine.limits
    chat, tracing = spec.engine.chat or Chat(), spec.engine.tracing or Tracing()
    execution = spec.engine.execution or Execution()
    leader = names.leader_host(deployment.name, group, deployment.namespace)
    values: dict[str, object] = {
        "MODEL": layout.model,
        "SERVED_MODEL_NAME": spec.model.served_name or (None if spec.model.name == "custom" else spec.model.name),
        "DEVICE": spec.hardware.device,
        "NAMESPACE": deployment.namespace,
        "DEPLOYMENT": deployment.name,
        "GROUP": group,
        "REVISION": revision,
        "NUM_PODS": layout.pods_per_group,
        "RANKS_PER_POD": layout.ranks_per_pod,
        "TENSOR_PARALLEL": layout.tensor,
        "EXPERT_PARALLEL": layout.expert,
        "LEADER_HOST": leader if layout.pods_per_group > 1 else "127.0.0.1",
        "HTTP_PORT": names.HTTP_PORT,
        "MANAGEMENT_PORT": names.MANAGEMENT_PORT,
        "MANAGEMENT_TOKEN": names.management_token(deployment.metadata.uid),
        "GATEWAY_TOKEN": names.gateway_token(deployment.metadata.uid),
        "AWAITS_POLICY": "true",  # whatever it is: an edit of it moves no group
        "COORDINATOR_PORT": names.COORDINATOR_PORT,
        "RENDEZVOUS_PORT": names.RENDEZVOUS_PORT,
        "MAX_MODEL_LEN": limits.max_model_len,
        "MAX_BATCH_TOKENS": limits.max_batch_tokens,
        "MAX_NUM_SEQS": limits.max_num_seqs,
        "MAX_WAITING_REQUESTS": limits.max_waiting_requests,
        "KV_CACHE_BYTES": limits.kv_cache and to_bytes(limits.kv_cache),
        "HEARTBEAT_LIMIT_S": limits.heartbeat_limit_seconds,
        "START_LIMIT_S": limits.start_limit_seconds,
        "DRAIN_ACCEPT_S": limits.drain_accept_seconds,
        "READINESS_LAG_S": READINESS_LAG_S,
        "DRAIN_DEADLINE_S": limits.drain_deadline_seconds,
        # None where the spec says nothing: an operator that knows more fields moves no group by that.
        "CONTROL_TOKENS": chat.control_tokens and chat.control_tokens.lower(),
        "UNDECLARED_TOOLS": chat.undeclared_tools and chat.undeclared_tools.lower(),
        "MAX_WAITING_TOKENS": limits.max_waiting_tokens,
        "PREFIX_CACHE": _as_bool(execution.prefix_cache),
        "DETERMINISTIC": _as_bool(execution.deterministic),
        "DTYPE": execution.dtype and execution.dtype.lower(),
        "KV_CACHE_DTYPE": execution.kv_dtype and execution.kv_dtype.lower(),
        "THREADS_PER_RANK": execution.threads_per_rank,
        "CUDA_KERNELS": execution.cuda_kernels and execution.cuda_kernels.lower(),
        "LOOK_AHEAD": execution.look_ahead and execution.look_ahead.lower(),
        "TRACE_ENDPOINT": tracing.endpoint,
    }
    literal = [{"name": f"GLM_{name}", "value": str(value)} for name, value in values.items() if value is not None]
    index = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{names.POD_INDEX_LABEL}']"}}
    return [*literal, {"name": "GLM_POD_INDEX", "valueFrom": index}]


def _as_bool(switch: Switch | None) -> str | None:
    return None if switch is None else str(switch == "Enabled").lower()


def _container(deployment: GLMDeployment, layout: Layout, group: str, revision: str, *, has_tls: bool) -> Manifest:
    mounts: list[Manifest] = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108
    if layout.claim is not None:
        mounts.append({"name": "model", "mountPath": CLAIM_MOUNT, "readOnly": True})
    if has_tls:
        mounts.append({"name": "tls", "mountPath": CERTIFICATE_FOLDER, "readOnly": True})
    start_limit_s = deployment.spec.engine.limits.start_limit_seconds
    return {
        "name": names.WORKER_CONTAINER,
        "image": deployment.image,
        "imagePullPolicy": deployment.spec.engine.image_pull_policy,
        # No command: it would replace the image's init, without which an early SIGTERM is lost. The folder as a flag: a
        # worker from before does not know it and ends, where it would pass over a variable and speak plain HTTP.
        "args": ["serve", *(("--tls-folder", CERTIFICATE_FOLDER) if has_tls else ())],
        "env": environment(deployment, layout, group, revision),
        "ports": [
            {"name": name, "containerPort": port, "protocol": "TCP"}
            for name, port in (
                (names.HTTPS if has_tls else names.HTTP, names.HTTP_PORT),
                ("management", names.MANAGEMENT_PORT),
                ("coordinator", names.COORDINATOR_PORT),
            )
        ],
        # The supervisor answers /livez while weights load, and ends a start that takes too long by itself; the start-up
        # probe only keeps a busy node from killing it before it answers at all.
        "startupProbe": probe("/livez", period_s=PERIOD_S, failures=start_limit_s // PERIOD_S),
        "livenessProbe": probe("/livez", period_s=10, failures=6),
        "readinessProbe": probe("/readyz", period_s=PERIOD_S, failures=READINESS_FAILURES),
        "resources": resources(deployment, layout),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # The last lines of the log explain a container that died: they end up in its status, and so in ours.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def resources(deployment: GLMDeployment, layout: Layout) -> Manifest:
    """Return requests and limits of one pod: what it surely needs, overlaid by the spec, and its GPUs."""
    hardware = deployment.spec.hardware
    given = hardware.resources
    limits = {key: canonical(value) for key, value in ((given and given.limits) or {}).items()}
    requests = {key: value for key, value in _default_requests(deployment, layout).items() if key not in limits}
    requests |= {key: canonical(value) for key, value in ((given and given.requests) or {}).items()}
    if hardware.gpu is not None:
        limits[hardware.gpu.resource_name] = str(layout.gpus_per_pod)
    return {key: value for key, value in (("requests", requests), ("limits", limits)) if value}


def _default_requests(deployment: GLMDeployment, layout: Layout) -> dict[str, str]:
    ranks = layout.ranks_per_pod
    if layout.gpus_per_pod:
        # Weights pass through host memory a tensor at a time; CUDA's own context takes about 2 GiB a rank.
        return {"cpu": str(ranks + 1), "memory": mebibytes(BASE_MEMORY_BYTES + ranks * 4 * 2**30)}
    kv_cache = deployment.spec.engine.limits.kv_cache
    kv_bytes = to_bytes(kv_cache) if kv_cache is not None else DEFAULT_KV_BYTES_ON_CPU
    per_rank = (layout.memory.weight_bytes_per_rank if layout.memory else 0) + kv_bytes
    return {"cpu": canonical(f"{100 * ranks}m"), "memory": mebibytes(BASE_MEMORY_BYTES + ranks * per_rank)}


def toleration(given: Toleration) -> Manifest:
    """Return a toleration as a pod has it."""
    fields = given.model_dump(by_alias=True, exclude_none=True)
    return {key: value for key, value in fields.items() if value != ""}


def _volumes(deployment: GLMDeployment, layout: Layout, *, has_tls: bool) -> list[Manifest]:
    shared_memory = canonical(deployment.spec.hardware.shared_memory)
    volumes: list[Manifest] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shared_memory}},
    ]
    if layout.claim is not None:
        volumes.append({"name": "model", "persistentVolumeClaim": {"claimName": layout.claim, "readOnly": True}})
    if has_tls:
        volumes.append({"name": "tls", "secret": secret_for(names.workers_certificate(deployment.name))})
    return volumes


def secret_for(name: str) -> Manifest:
    """Return a Secret as a volume that the group of the container reads, and nobody else."""
    return {"secretName": name, "defaultMode": 0o440}


def probe(path: str, *, period_s: int, failures: int) -> Manifest:
    """Return a probe of the management port."""
    return {
        "httpGet": {"path": path, "port": "management"},
        "periodSeconds": period_s,
        "timeoutSeconds": PROBE_TIMEOUT_S,
        "failureThreshold": failures,
    }
