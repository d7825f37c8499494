"""The tools on offer: what form they give an answer, and of what types their arguments are. Raises RequestRefused."""

from collections.abc import Sequence

from glm_worker.errors import RequestRefused
from glm_worker.server.jobs.conversation import Conversation, Named, OfferedTool
from glm_worker.server.refusals import shortened
from glm_worker.server.structured.formats import AnswerFormat, AnyText, Calls, Function
from glm_worker.server.text.argument_types import (
    REQUEST_STEP_BUDGET,
    STEP_BUDGET,
    SchemaTooLarge,
    Steps,
    Tools,
    parameters_of,
)


def answer_format(conversation: Conversation, offered: Sequence[OfferedTool]) -> AnswerFormat:
    """Return what the answer must look like."""
    if conversation.goes_on and not isinstance(conversation.content, AnyText):
        param = conversation.params.answer_format
        raise RequestRefused(
            f"{param} does not go with an answer that has begun: it would have to hold for what was said as well;"
            " end with a message of the user",
            param=param,
            code="invalid_value",
        )
    choice = conversation.tool_choice
    if not offered:
        if choice not in ("auto", "none"):
            raise RequestRefused(
                "tool_choice asks for a call, and there are no tools to call",
                param="tool_choice",
                code="invalid_value",
            )
        return conversation.content
    if isinstance(choice, Named) and choice.name not in {tool.name for tool in offered}:
        raise RequestRefused(
            f"tool_choice names the function {shortened(choice.name)}, which is not among the tools",
            param="tool_choice",
            code="invalid_value",
        )
    return Calls(
        tuple(Function(tool.name, tool.schema, tool.param, tool.is_strict) for tool in offered),
        is_required=choice == "required",
        named=choice.name if isinstance(choice, Named) else None,
        is_parallel=conversation.parallel_calls,
        content=conversation.content,
    )


def argument_types(offered: Sequence[OfferedTool]) -> Tools:
    """Return the types of the arguments of each tool. Raises RequestRefused for schemas that take too long."""
    tools = {}
    together = Steps(REQUEST_STEP_BUDGET)
    for tool in offered:
        try:
            tools[tool.name] = parameters_of(tool.schema, Steps(STEP_BUDGET, within=together))
        except SchemaTooLarge as error:
            what = (
                f"the schema of the tool {tool.name} takes more than {error.budget} steps to read,"
                " which is what this server spends on one"
                if error.budget == STEP_BUDGET
                else f"the schemas of the tools up to {tool.name} take more than {error.budget} steps to read,"
                " which is what this server spends on those of a request"
            )
            raise RequestRefused(
                f"{tool.param}: {what}; declare fewer arguments, references and alternatives",
                param=tool.param,
                code="schema_too_large",
            ) from error
    return tools
