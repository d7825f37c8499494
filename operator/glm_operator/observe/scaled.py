"""Who set the number of groups last. Pure."""

from glm_operator import names
from glm_operator.manifest import Manifest


def is_scaled_by_us(deployment: Manifest) -> bool:
    """Tell whether spec.replicas is as this operator set it, by the API server's account of who manages which field.

    Where that account is missing it is as a person set it.
    """
    return any(
        entry.get("manager") == names.FIELD_MANAGER
        and entry.get("subresource") == "scale"
        and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in deployment["metadata"].get("managedFields") or []
    )
