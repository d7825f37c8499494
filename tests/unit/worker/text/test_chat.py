"""Chat templates: rendered as transformers renders them, in a sandbox, and errors told."""

import json
from pathlib import Path

import pytest

from glm_worker.errors import ConfigError, RequestRefused
from glm_worker.server.text.chat import ChatTemplate, Message, in_call_order
from glm_worker.server.text.control_tokens import as_sent, disarmer

USER = {"role": "user", "content": "hi"}


def rendered(source: str, **special_tokens: str) -> str:
    return ChatTemplate(source, special_tokens).render([USER], [])


def test_blocks_are_trimmed_as_transformers_does() -> None:
    source = "  {% for message in messages %}\n  {{ message.content }}\n  {% endfor %}\n!"
    assert rendered(source) == "  hi\n!"


def test_tojson_knows_ensure_ascii_and_leaves_html_alone() -> None:
    assert rendered("{{ {'a': 'ü<b>'} | tojson(ensure_ascii=False) }}") == '{"a": "ü<b>"}'
    assert rendered("{{ {'a': 'ü'} | tojson(ensure_ascii=True) }}") == '{"a": "\\u00fc"}'


def test_loop_controls_and_special_tokens_are_there() -> None:
    assert rendered("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"
    assert rendered("{{ eos_token }}", eos_token="<end>") == "<end>"


def test_thinking_is_undefined_unless_it_is_said() -> None:
    template = ChatTemplate("{{ enable_thinking is defined }}/{{ enable_thinking }}", {})
    assert template.render([USER], []) == "False/"
    assert template.render([USER], [], {"enable_thinking": False}) == "True/False"


@pytest.mark.parametrize("source", ["{{ raise_exception('no') }}", "{{ messages[5].content.x }}", "{{ 1 + 'a' }}"])
def test_a_template_that_refuses_is_the_clients_to_mend(source: str) -> None:
    with pytest.raises(RequestRefused, match="template") as caught:
        rendered(source)
    assert caught.value.param == "messages"


def test_a_template_cannot_reach_out_of_its_sandbox() -> None:
    with pytest.raises(RequestRefused):
        rendered("{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(RequestRefused):
        rendered("{{ messages.append(1) }}")


def test_a_template_that_is_no_template_stops_the_start() -> None:
    with pytest.raises(ConfigError, match="line 2"):
        ChatTemplate("\n{% if %}", {})


def test_older_checkpoints_keep_the_template_in_the_tokenizers_config(tmp_path: Path) -> None:
    config = {"chat_template": "{{ bos_token }}{{ eos_token }}", "bos_token": "<b>", "eos_token": {"content": "<e>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert ChatTemplate.load(tmp_path).render([USER], []) == "<b><e>"


def test_a_folder_without_a_template_is_that_of_a_base_model_which_refuses_chats(tmp_path: Path) -> None:
    with pytest.raises(RequestRefused, match=r"base model.*/v1/completions") as caught:
        ChatTemplate.load(tmp_path).render([USER], [])
    assert (caught.value.param, caught.value.code) == ("model", "chat_not_supported")


CALLS = {"role": "assistant", "tool_calls": [{"id": "a"}, {"id": "b"}, {"id": "c"}]}


def results(*call_ids: str | None) -> list[Message]:
    return [{"role": "tool", "content": str(n), "tool_call_id": id_} for n, id_ in enumerate(call_ids)]


def test_results_come_in_the_order_of_their_calls() -> None:
    b, a = results("b", "a")
    assert in_call_order([USER, CALLS, b, a, USER, b, a]) == [USER, CALLS, a, b, USER, b, a]


@pytest.mark.parametrize(
    ("before", "call_ids"),
    [
        (CALLS, ["b", None, "a"]),
        (CALLS, ["b", "unknown", "a"]),
        (CALLS, ["b", "b", "a"]),
        ({"role": "assistant", "tool_calls": [{"id": None}]}, ["b", "a"]),
        ({"role": "assistant", "tool_calls": [{"id": "a"}, {"id": "a"}]}, ["a"]),
        ({"role": "assistant", "tool_calls": [{"id": "b"}, {"id": "a"}, {}]}, ["a", "b"]),
        ({"role": "assistant", "content": "no calls"}, ["b", "a"]),
        (USER, ["b", "a"]),
    ],
)
def test_results_stay_in_their_order_unless_each_has_its_own_call_in_the_message_before(
    before: Message, call_ids: list[str | None]
) -> None:
    """A result without a call went last, and with it the one that it was in fact about."""
    messages = [USER, before, *results(*call_ids)]
    assert in_call_order(messages) == messages


def test_results_without_a_message_before_stay() -> None:
    assert in_call_order(results("b", "a")) == results("b", "a")


def test_a_block_of_generation_is_rendered_as_it_is() -> None:
    source = "{% for message in messages %}{% generation %}{{ message.content }}{% endgeneration %}!{% endfor %}"
    assert rendered(source) == "hi!"


def test_what_is_set_in_a_block_of_generation_stays_in_it() -> None:
    assert rendered("{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}") == "21"


def test_a_block_of_generation_that_is_not_closed_stops_the_start() -> None:
    with pytest.raises(ConfigError, match="endgeneration"):
        ChatTemplate("{% generation %}", {})


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("{{ raise_exception('not this way') }}", "not this way"),
        ("{{ raise_exception(5) }}", "5"),
        ("{{ raise_exception(messages) }}", "'content'"),
        ("{{ messages[5].content.x }}", "has no element 5"),
        ("{{ 1 + 'a' }}", "TypeError: unsupported operand"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ messages[0].content.startswith(messages) }}", "TypeError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ 2.0 ** 9999 }}", "OverflowError"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
        ("{{ none.x.y }}", "has no attribute"),
        ("{{ messages | map(attribute='a') | sum }}", "has no attribute 'a'"),
        ("{% include 'x' %}", "TypeError: no loader"),
        ("{{ '%d' % 'x' }}", "TypeError"),
        ("{{ messages | tojson(indent='x', separators=1) }}", "TypeError"),
        ("{{ ''.encode('utf-99') }}", "LookupError"),
    ],
)
def test_every_failure_of_a_template_is_a_refusal_with_its_cause(source: str, cause: str) -> None:
    with pytest.raises(RequestRefused, match="template") as caught:
        rendered(source)
    assert cause in caught.value.message
    assert (caught.value.status, caught.value.param) == (400, "messages")


def test_what_a_template_tells_of_a_message_is_told_as_it_was_sent() -> None:
    disarm = disarmer(["<|user|>"])
    with pytest.raises(RequestRefused, match=r"no: <\|user\|>$"):
        ChatTemplate("{{ raise_exception('no: ' + messages[0].content) }}", {}).render(
            [{"role": "user", "content": disarm("<|user|>")}], []
        )


def test_tojson_in_ascii_passes_on_what_is_disarmed() -> None:
    disarm = disarmer(["<|user|>"])
    template = ChatTemplate("{{ messages[0].content | tojson(ensure_ascii=True) }}", {})
    content = disarm('<|user|> ü 🙂 "\n')
    prompt = template.render([{"role": "user", "content": content}], [])
    assert as_sent(prompt) != prompt
    assert as_sent(prompt) == json.dumps('<|user|> ü 🙂 "\n')
