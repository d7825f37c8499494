"""Keys, certificates and kubeconfigs, made by kubeadm."""

from glm_cluster.addresses import NODE_IP, NODE_NAME, SERVICE_CIDR
from glm_cluster.commands import cluster_environment, run
from glm_cluster.paths import Paths
from glm_cluster.programs import KUBERNETES_TOOL, Programs


def create_certificates(paths: Paths) -> None:
    """Make the certificate authorities, every certificate and the kubeconfig of every program."""
    kubeadm = Programs(paths)["kubeadm"]
    common = ("--cert-dir", paths.pki, "--apiserver-advertise-address", NODE_IP)
    version = ("--kubernetes-version", f"v{KUBERNETES_TOOL.version}")
    sans = ("--apiserver-cert-extra-sans", "localhost,127.0.0.1")
    cidr = ("--service-cidr", SERVICE_CIDR)
    run(kubeadm, "init", "phase", "certs", "all", *common, *cidr, *sans, *version, env=cluster_environment())
    folder = ("--kubeconfig-dir", paths.kubeconfigs, "--node-name", NODE_NAME)
    run(kubeadm, "init", "phase", "kubeconfig", "all", *common, *folder, *version, env=cluster_environment())
