"""The management port of a gateway: probes, metrics, what stands, who waits. For the cluster, never for clients."""
