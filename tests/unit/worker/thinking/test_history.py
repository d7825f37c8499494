"""Thoughts of earlier turns: what templates do with them, found out by rendering, and what requests are told."""

import pytest

from glm_worker.models import resolve
from glm_worker.server.text.chat import ChatTemplate
from glm_worker.server.thinking.history import kept_history
from glm_worker.server.thinking.traits import Render, TemplateTraits, traits_of
from glm_worker.server.thinking.wish import ThinkingWish, template_arguments, zai_thinking

LAST_USER = (
    "{%- set ns = namespace(last=-1) -%}"
    "{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}"
)
GLM_47 = (
    LAST_USER + "{%- for m in messages -%}<|{{ m.role }}|>"
    "{%- if m.role == 'assistant' -%}"
    "{%- if ((clear_thinking is defined and not clear_thinking) or loop.index0 > ns.last) and m.reasoning_content -%}"
    "<think>{{ m.reasoning_content }}</think>{%- else -%}</think>{%- endif -%}{%- endif -%}"
    "{{ m.content }}{%- endfor -%}"
    "<|assistant|>{{ '</think>' if enable_thinking is defined and not enable_thinking else '<think>' }}"
)
KEEPS_ALL = (
    "{%- for m in messages -%}"
    "{%- if m.reasoning_content and not clear_thinking -%}<think>\n{{ m.reasoning_content }}\n</think>\n{%- endif -%}"
    "{{ m.content }}{%- endfor -%}{{ '<think></think>' if enable_thinking is defined and not enable_thinking else '' }}"
)
KEEPS_ALWAYS = "{%- for m in messages -%}{{ m.reasoning_content }}{{ m.content }}{%- endfor -%}<think>\n"
PLAIN = "{%- for m in messages -%}{{ m.content }}{%- endfor -%}"
PICKY = "{{ raise_exception('no') }}"


def render_with(template: ChatTemplate) -> Render:
    return lambda messages, variables: template.render(messages, (), variables)


def traits(source: str) -> TemplateTraits:
    return traits_of(render_with(ChatTemplate(source, {})))


@pytest.fixture(scope="module")
def nano() -> ChatTemplate:
    return ChatTemplate.load(resolve("builtin://glm-nano"))


def test_glm_nano_thinks_by_default_and_cannot_keep_earlier_thoughts(nano: ChatTemplate) -> None:
    assert traits_of(render_with(nano)) == TemplateTraits(
        thinks_by_default=True,
        has_switch=True,
        keeps_history=False,
        can_keep_history=False,
        can_clear_history=True,
        before_end="",
    )


def test_templates_of_glm_4_7_keep_them_on_request() -> None:
    found = traits(GLM_47)
    assert (found.thinks_by_default, found.has_switch, found.before_end) == (True, True, "")
    assert (found.keeps_history, found.can_keep_history, found.can_clear_history) == (False, True, True)


def test_a_template_that_keeps_them_may_clear_them_on_request() -> None:
    found = traits(KEEPS_ALL)
    assert (found.keeps_history, found.can_keep_history, found.can_clear_history) == (True, True, True)
    assert found.before_end == "\n"


def test_a_template_without_a_switch_that_opens_a_thought_always_thinks() -> None:
    found = traits(KEEPS_ALWAYS)
    assert (found.thinks_by_default, found.has_switch) == (True, False)
    assert (found.keeps_history, found.can_clear_history) == (True, False)


def test_a_template_without_thoughts_has_no_switch_and_never_thinks() -> None:
    found = traits(PLAIN)
    assert (found.thinks_by_default, found.has_switch, found.can_keep_history) == (False, False, False)


def test_a_template_that_refuses_a_question_is_taken_for_glms() -> None:
    assert traits(PICKY) == TemplateTraits()


KEEP, CLEAR = zai_thinking(clear_thinking=False), template_arguments(clear_thinking=True)


@pytest.mark.parametrize(
    ("source", "wish", "kept", "ignored"),
    [
        (GLM_47, ThinkingWish(), None, ()),
        (GLM_47, KEEP, True, ()),
        (GLM_47, CLEAR, False, ()),
        (KEEPS_ALL, KEEP, True, ()),
        (KEEPS_ALL, CLEAR, False, ()),
        (KEEPS_ALWAYS, KEEP, True, ()),
        (KEEPS_ALWAYS, CLEAR, None, ("chat_template_kwargs.clear_thinking",)),
        (PLAIN, ThinkingWish(), None, ()),
        (PLAIN, KEEP, None, ("thinking.clear_thinking",)),
        (PLAIN, CLEAR, False, ()),
    ],
)
def test_what_a_template_cannot_do_is_told(
    source: str, wish: ThinkingWish, kept: bool | None, ignored: tuple[str, ...]
) -> None:
    assert kept_history(wish, traits(source)) == (kept, ignored)


def test_glm_nano_tells_that_earlier_thoughts_cannot_be_kept(nano: ChatTemplate) -> None:
    assert kept_history(KEEP, traits_of(render_with(nano))) == (None, ("thinking.clear_thinking",))


TOOL_LOOP = [
    {"role": "user", "content": "first"},
    {"role": "assistant", "reasoning_content": "old thought", "content": "answer"},
    {"role": "user", "content": "second"},
    {"role": "assistant", "reasoning_content": "new thought", "content": ""},
    {"role": "tool", "content": "42"},
]


def test_within_a_turn_thoughts_stay_whatever_is_said(nano: ChatTemplate) -> None:
    for template in (nano, ChatTemplate(GLM_47, {})):
        prompt = template.render(TOOL_LOOP, ())
        assert "new thought" in prompt
        assert "old thought" not in prompt


def test_preserved_thinking_brings_back_the_thoughts_of_earlier_turns() -> None:
    template = ChatTemplate(GLM_47, {})
    prompt = template.render(TOOL_LOOP, (), {"clear_thinking": False})
    assert "old thought" in prompt
    assert template.render(TOOL_LOOP, (), {"clear_thinking": True}) == template.render(TOOL_LOOP, ())


def test_a_switch_in_the_text_is_not_written_twice(nano: ChatTemplate) -> None:
    prompt = nano.render([{"role": "user", "content": "Hi/nothink"}], (), {"enable_thinking": False})
    assert prompt.count("/nothink") == 1
    assert prompt.endswith("<think></think>")
