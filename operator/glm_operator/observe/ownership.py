"""Whose an object is, and how it is marked as ours before it is applied. Pure."""

from glm_operator import names
from glm_operator.errors import ForeignObject, LeftOver
from glm_operator.manifest import Manifest, hash_of, name_of
from glm_operator.observe.observed import is_controlled_by


def owner_reference(owner: Manifest) -> Manifest:
    """Return the reference that lets the garbage collector delete an object after its GLMDeployment.

    blockOwnerDeletion is off: it would need the right to write finalizers, and nothing here has to be gone first.
    """
    return {
        "apiVersion": f"{names.GROUP}/{names.VERSION}",
        "kind": names.KIND,
        "name": name_of(owner),
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }


def owned(manifest: Manifest, owner: Manifest) -> Manifest:
    """Return the manifest as it is applied: with its owner, and with the hash of what it says."""
    metadata = {**manifest["metadata"], "ownerReferences": [owner_reference(owner)]}
    annotations = dict(metadata.get("annotations") or {})
    digest = hash_of({**manifest, "metadata": metadata})
    return {**manifest, "metadata": {**metadata, "annotations": {**annotations, names.APPLIED_ANNOTATION: digest}}}


def check_ownership(live: Manifest, owner: Manifest) -> None:
    """Raise ForeignObject or LeftOver unless the live object is the owner's."""
    if is_controlled_by(live, owner["metadata"]["uid"]):
        return
    what = f"{live.get('kind', 'object')} {name_of(live)}"
    controllers = [ref for ref in live["metadata"].get("ownerReferences") or [] if ref.get("controller")]
    if any(ref.get("kind") == names.KIND and ref.get("name") == name_of(owner) for ref in controllers):
        raise LeftOver(f"{what} of an earlier GLMDeployment {name_of(owner)} is still being deleted")
    whose = (
        f"is controlled by {controllers[0].get('kind')} {controllers[0].get('name')}" if controllers else "has no owner"
    )
    raise ForeignObject(f"{what} {whose} and is not taken over; delete or rename it, or rename this GLMDeployment")
