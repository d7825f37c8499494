"""GLMDeployment: its fields, rules, status and reasons; the source of the CRD. Pure."""
