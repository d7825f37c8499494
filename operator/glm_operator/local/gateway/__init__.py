"""The gateway of a deployment, as a process of this machine."""
