"""The glm4_moe architecture: configuration, layers, weights, KV cache. config.py and tensor_map.py need no torch."""
