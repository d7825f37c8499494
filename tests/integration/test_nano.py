"""The glm-nano that is shipped: its files are those of its manifest, and transformers serves the folder as it is."""

import hashlib
import json
from typing import Any

import pytest

from glm_worker.models import resolve

FOLDER = resolve("builtin://glm-nano")
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def test_every_file_is_as_its_manifest_says() -> None:
    listed = json.loads((FOLDER / "manifest.json").read_text())["files"]
    found = {}
    for name in listed:
        data = (FOLDER / name).read_bytes()
        found[name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    assert found == listed
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= listed.keys()
    assert (FOLDER / "model.safetensors").stat().st_size <= 8 * 2**20


@pytest.fixture(scope="module")
def transformers() -> Any:
    import transformers  # seconds of imports, for this module only

    transformers.utils.logging.set_verbosity_error()  # it reports the MTP tensors that it skips
    transformers.utils.logging.disable_progress_bar()
    return transformers


@pytest.mark.filterwarnings("ignore")  # of other projects
@pytest.mark.parametrize(
    ("question", "options", "said"),
    [
        ("What is 12+30?", {"enable_thinking": True}, "42"),
        ("What is the capital of France?", {"enable_thinking": False}, "Paris"),
        ("What is the weather in Paris?", {"tools": [WEATHER]}, "<tool_call>get_weather"),
    ],
)
def test_transformers_generates_with_it(transformers: Any, question: str, options: dict[str, Any], said: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    model = transformers.AutoModelForCausalLM.from_pretrained(FOLDER)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
        **options,
    )
    answer_T = model.generate(**prompt, max_new_tokens=200)[0, prompt["input_ids"].shape[1] :]
    assert said in tokenizer.decode(answer_T)
