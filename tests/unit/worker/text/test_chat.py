"""Chat templates: rendered as transformers renders them, in a sandbox, and errors told."""

import json
from pathlib import Path

import pytest

from glm_worker.errors import ConfigError, RequestRefused
from glm_worker.server.text.chat import ChatTemplate, in_call_order

USER = {"role": "user", "content": "hi"}


def rendered(source: str, **special_tokens: str) -> str:
    return ChatTemplate(source, special_tokens).render([USER], [], enable_thinking=None)


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
    assert template.render([USER], [], enable_thinking=None) == "False/"
    assert template.render([USER], [], enable_thinking=False) == "True/False"


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
    assert ChatTemplate.load(tmp_path).render([USER], [], enable_thinking=None) == "<b><e>"


def test_a_checkpoint_without_a_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no chat template"):
        ChatTemplate.load(tmp_path)


def test_results_come_in_the_order_of_their_calls() -> None:
    calls = {"role": "assistant", "tool_calls": [{"id": "a"}, {"id": "b"}]}
    results = [{"role": "tool", "tool_call_id": id_} for id_ in ("b", None, "a")]
    ordered = in_call_order([USER, calls, *results, USER, results[0]])
    assert ordered == [USER, calls, results[2], results[0], results[1], USER, results[0]]


def test_results_without_ids_stay_as_they_are() -> None:
    messages = [
        {"role": "assistant", "tool_calls": [{"id": None}]},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "2"},
    ]
    assert in_call_order(messages) == messages
