"""What is told of a name that clients may ask for."""

from glm_gateway.groups.directory import Directory, Member
from glm_gateway.models.model import Model
from glm_gateway.models.names import Names
from glm_gateway.routing.arms import Split
from glm_gateway.routing.pick import Group


def model(name: str, *lengths: int | None) -> Model:
    found = Model(name, Directory())
    found.replace(
        [Member(Group(name=f"{name}-{n}"), "127.0.0.1", 1, max_model_len=length) for n, length in enumerate(lengths)]
    )
    return found


async def test_a_name_is_as_long_as_fits_whichever_group_answers() -> None:
    models = {each.name: each for each in (model("long", 8192, None, 4096), model("short", 2048), model("new", None))}
    split = Split(name="chat", weights={"long": 1, "short": 1, "outside": 1})
    names = Names(models, splits={"chat": split}, former={"old": "long"})
    assert names.lengths == {"long": 4096, "short": 2048, "new": None, "chat": 2048, "old": 4096}
