"""The fixed addresses and names of the cluster: one cluster a machine, so they never need to be looked up."""

NETNS = "glm-k8s"
HOST_LINK, NODE_LINK = "glm-h", "glm-n"  # the two ends of the veth pair: the machine's and the cluster's

NETWORK = "10.201.0.0/24"
HOST_IP = "10.201.0.1"
NODE_IP = "10.201.0.2"
POD_CIDR = "10.244.0.0/16"
NODE_POD_CIDR = "10.244.0.0/24"
SERVICE_CIDR = "10.96.0.0/16"

NODE_NAME = "node1"
NODE_GPUS = 8
GPU_RESOURCE = "nvidia.com/gpu"
CLUSTER_DOMAIN = "cluster.local"

API_SERVER = f"https://{NODE_IP}:6443"
DNS_SERVER = NODE_IP
REGISTRY = f"{NODE_IP}:5000"
NO_PROXY = ",".join(("localhost", "127.0.0.0/8", NETWORK, POD_CIDR, SERVICE_CIDR, f".{CLUSTER_DOMAIN}"))

CGROUP = "glm-cluster"
"""Parent of every pod's cgroup, so that what is ours can be told from what another kubelet made."""
