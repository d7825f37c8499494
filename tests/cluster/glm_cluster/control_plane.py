"""etcd, the API server, the controller manager and the scheduler: their command lines. Pure."""

from pathlib import Path

from glm_cluster.addresses import NODE_IP, SERVICE_CIDR
from glm_cluster.paths import Paths

ETCD_CLIENTS = "http://127.0.0.1:2379"  # in the namespace, where only the cluster's own programs are
ETCD_PEERS = "http://127.0.0.1:2380"


def etcd_flags(paths: Paths) -> list[str]:
    """Return etcd's flags. Without fsync: the data live as long as the cluster and no longer."""
    return [
        f"--data-dir={paths.etcd_data}",
        f"--listen-client-urls={ETCD_CLIENTS}",
        f"--advertise-client-urls={ETCD_CLIENTS}",
        f"--listen-peer-urls={ETCD_PEERS}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def apiserver_flags(paths: Paths) -> list[str]:
    pki = paths.pki
    return [
        f"--etcd-servers={ETCD_CLIENTS}",
        "--secure-port=6443",
        "--bind-address=0.0.0.0",
        f"--advertise-address={NODE_IP}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        *requestheader_flags(pki),
        f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
        f"--proxy-client-key-file={pki}/front-proxy-client.key",
        f"--audit-policy-file={paths.config}/audit-policy.json",
        f"--audit-log-path={paths.audit_log}",
    ]


def requestheader_flags(pki: Path) -> list[str]:
    return [
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    ]


def controller_manager_flags(paths: Paths) -> list[str]:
    pki = paths.pki
    return [
        *kubeconfig_flags(paths.kubeconfigs / "controller-manager.conf"),
        f"--root-ca-file={pki}/ca.crt",
        f"--service-account-private-key-file={pki}/sa.key",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        "--use-service-account-credentials",
        f"--flex-volume-plugin-dir={paths.state}/volume-plugins",
        "--leader-elect=false",
        "--node-monitor-grace-period=20s",
        f"--client-ca-file={pki}/ca.crt",
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
    ]


def scheduler_flags(paths: Paths) -> list[str]:
    return [*kubeconfig_flags(paths.kubeconfigs / "scheduler.conf"), "--leader-elect=false"]


def kubeconfig_flags(kubeconfig: Path) -> list[str]:
    names = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    return [f"--{name}={kubeconfig}" for name in names]


def audit_policy() -> dict[str, object]:
    """Return the policy: which verbs on what every service account uses, but for Kubernetes' own controllers.

    That is how a test sees what the operator really asks for and what it is refused, in whichever namespace it runs.
    """
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
            {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
            {"level": "None"},
        ],
    }
