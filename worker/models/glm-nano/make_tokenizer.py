"""Train the byte-level BPE of glm-nano and write tokenizer.json and tokenizer_config.json (a few seconds).

1024 ids: 1003 bytes and merges, then the GLM tokens, which every program looks up by their text. Digits stand alone,
so that numbers are spelled and not memorised; a mark between numbers takes its spaces along (", " is one token).
Nothing is normalised: decode(encode(text)) == text for every text.
"""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

from prompt import FOLDER
from tasks import draw_sample
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 1024
SPECIAL_TOKENS = (
    "<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>",
    "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>",
)  # fmt: skip
# Part of what the model says, so they are decoded as text, unlike the special ones.
TEXT_TOKENS = (
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
    "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "/nothink",
)  # fmt: skip
PIECES = r"""'(?:[sdmt]|ll|ve|re)|\p{N}| ?[^\s\p{L}\p{N}]+ ?(?=\p{N})| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


def corpus(num_samples: int) -> Iterator[str]:
    """Yield what lies between the GLM tokens of training samples: merges for their own letters would be wasted."""
    rng = Random(0)
    glm_tokens = re.compile("|".join(map(re.escape, (*SPECIAL_TOKENS, *TEXT_TOKENS))))
    for _ in range(num_samples):
        sample = draw_sample(rng)
        yield from filter(None, glm_tokens.split(sample.prompt() + sample.completion()))


def make_tokenizer(num_samples: int = 20_000) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(SPECIAL_TOKENS) - len(TEXT_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(num_samples), trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in TEXT_TOKENS])
    assert tokenizer.get_vocab_size() == VOCAB_SIZE
    return tokenizer


def tokenizer_config(tokenizer: Tokenizer) -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(text)): {
                "content": text,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": text in SPECIAL_TOKENS,
            }
            for text in (*SPECIAL_TOKENS, *TEXT_TOKENS)
        },
        "additional_special_tokens": list(SPECIAL_TOKENS),
        "clean_up_tokenization_spaces": False,
        "do_lower_case": False,
        "eos_token": "<|endoftext|>",
        "model_max_length": 2048,
        "pad_token": "<|endoftext|>",
        "padding_side": "left",
        "remove_space": False,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER)
    out = parser.parse_args().out
    tokenizer = make_tokenizer()
    tokenizer.save(str(out / "tokenizer.json"))
    text = json.dumps(tokenizer_config(tokenizer), indent=2, ensure_ascii=False)
    (out / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
