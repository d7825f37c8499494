"""The gateway: the address of GLMDeployments, which keeps promises while groups come, go and break."""
