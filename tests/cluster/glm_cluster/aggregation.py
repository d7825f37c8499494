"""How the API server finds an API that a program in the cluster's network namespace serves. Pure."""

from glm_cluster.addresses import NODE_IP

PORT_NAME = "https"


def api_service_name(group: str, version: str) -> str:
    return f"{version}.{group}"


def api_service(program: str, namespace: str, port: int, group: str, version: str) -> list[dict[str, object]]:
    """Return a Service without pods, the address behind it, and the APIService that names it.

    kube-proxy leads the Service's address to the program: the API server is in the same network namespace. Its
    certificate is not checked, for the program makes it itself.
    """
    metadata = {"name": program, "namespace": namespace}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"ports": [{"name": PORT_NAME, "port": 443, "targetPort": port}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": program}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": True}}],
            "ports": [{"name": PORT_NAME, "port": port, "protocol": "TCP"}],
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": api_service_name(group, version)},
            "spec": {
                "group": group,
                "version": version,
                "service": {"name": program, "namespace": namespace, "port": 443},
                "insecureSkipTLSVerify": True,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
            },
        },
    ]
