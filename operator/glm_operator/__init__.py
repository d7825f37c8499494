"""The operator that turns GLMDeployments into groups of inference workers.

The pure middle, which everything else is built around:
- glm_operator.api.spec.parse_deployment(body, *, default_image=…) -> GLMDeployment, or raises InvalidSpec;
- glm_operator.layout.plan(deployment) -> Layout | Refusal;
- glm_operator.render.render(deployment, layout, groups=None) -> list of manifests, in the order to apply them.
"""
