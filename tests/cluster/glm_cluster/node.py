"""What makes this machine a node: the configuration of containerd, the pods' network, kubelet and kube-proxy. Pure."""

from glm_cluster.addresses import (
    CGROUP,
    CLUSTER_DOMAIN,
    DNS_SERVER,
    NODE_IP,
    NODE_NAME,
    NODE_POD_CIDR,
    POD_CIDR,
    REGISTRY,
)
from glm_cluster.paths import Paths
from glm_cluster.programs import PAUSE


def pause_image() -> str:
    """Return the name of the image that holds a pod's namespaces open; another program of ours is another image."""
    return f"localhost/pause:{PAUSE.key}"


def containerd_config(paths: Paths) -> str:
    """Return containerd's TOML.

    restrict_oom_score_adj: without CAP_SYS_RESOURCE no process may make itself less likely to be killed, and every
    sandbox would fail with "can't get final child's PID from pipe: EOF".
    """
    return f"""\
version = 2
root = "{paths.containerd_root}"
state = "{paths.containerd_state}"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]

[grpc]
address = "{paths.containerd_socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause_image()}"
disable_apparmor = true
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".containerd]
discard_unpacked_layers = true
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{paths.config}/cni"

[plugins."io.containerd.grpc.v1.cri".registry.mirrors."{REGISTRY}"]
endpoint = ["http://{REGISTRY}"]
"""


def cni_conflist(paths: Paths) -> dict[str, object]:
    """Return the pods' network: one bridge, addresses from the node's range, host ports."""
    return {
        "cniVersion": "0.4.0",
        "name": "glm",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": NODE_POD_CIDR}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": str(paths.state / "cni"),
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def kubelet_configuration(paths: Paths) -> dict[str, object]:
    """Return the KubeletConfiguration. Every folder of it is in the state; cgroup v1 and v2 both work."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{paths.pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "clusterDNS": [DNS_SERVER],
        "clusterDomain": CLUSTER_DOMAIN,
        "containerRuntimeEndpoint": f"unix://{paths.containerd_socket}",
        # Never for want of disk: it would first remove every image, and the pause image it could not pull again.
        "evictionHard": {
            "memory.available": "200Mi",
            "nodefs.available": "0%",
            "imagefs.available": "0%",
            "nodefs.inodesFree": "0%",
        },
        "failCgroupV1": False,
        "failSwapOn": False,
        # Images are the cache's: the kubelet never collects them.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "podLogsDir": str(paths.logs / "pods"),
        "resolvConf": f"{paths.config}/resolv.conf",
        "serializeImagePulls": False,
        "volumePluginDir": str(paths.state / "volume-plugins"),
    }


def kubelet_flags(paths: Paths) -> list[str]:
    return [
        f"--config={paths.config}/kubelet.json",
        f"--kubeconfig={paths.kubeconfigs}/kubelet.conf",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={NODE_IP}",
        f"--root-dir={paths.kubelet_root}",
        f"--cert-dir={paths.kubelet_root}/pki",
    ]


def kube_proxy_flags(paths: Paths) -> list[str]:
    return [
        f"--kubeconfig={paths.kubeconfig}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={POD_CIDR}",
        "--conntrack-max-per-core=0",  # the machine's limit stays as it is
        f"--hostname-override={NODE_NAME}",
    ]
