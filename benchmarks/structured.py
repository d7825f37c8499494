"""What structured output costs: to compile a format, and to mask a token of a batch of 8.

On the vocabulary of glm-nano (1,024) and on a synthetic one as wide as that of GLM-4.5 (151,552), whose tokens are
made of letters, ideographs, digits, punctuation and white space about as often as in byte-level BPE. Answers are random
walks, which meet worse masks than a model does. Of each format: CPU time to read it (in the server) and to compile and
pack it (in the compile process), its size serialised and packed, the time to read it in the engine, and that to fill
the masks of 8 rows: median and p99. The goal is 5 % of a decode step at batch 8 of the 172 M model: about 3 ms of
60. benchmarks/sampling.py --decode measures that share with the model itself.

Six formats, in 7 s of a free core; with --all the others too, in 13 s.
With --schemas N also: N seeded schemas (tests/unit/worker/schema_maker.py), three answers each, all validated; exits 1
if one does not. Ends with a JSON line a number. There is no peer.
"""

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeVar

import numpy as np
import xgrammar

from glm_worker.errors import RequestRefused
from glm_worker.model.grammar_vocabulary import grammar_vocabulary, pack_grammar, unpack_grammar
from glm_worker.server.structured.answers import recipe_of
from glm_worker.server.structured.calls import CallTokens
from glm_worker.server.structured.formats import AnswerFormat, Calls, Choice, Function, JsonObject, JsonSchema, Regex
from glm_worker.server.structured.process import compile_recipe

REPOSITORY = Path(__file__).parents[1]
NANO = REPOSITORY / "worker" / "models" / "glm-nano"
BATCH, NUM_WALKS, NUM_TOKENS = 8, 3, 40
USUAL = ("json_object", "object_20", "enum_500", "bounded_string", "regex", "call")
STEP_MS = 60.0
Result = TypeVar("Result")
TAGS = ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")
WIDTH, FIRST_TAG = 151_552, 151_400
LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
PUNCTUATION = ".,:;\"'{}[]()<>/\\=-_*+#!?&|$%@"


@dataclass(frozen=True)
class Vocabulary:
    name: str
    info: xgrammar.TokenizerInfo
    tokens: CallTokens

    @property
    def stop_ids(self) -> list[int]:
        return list(self.info.stop_token_ids)


def nano() -> Vocabulary:
    ids = {token["content"]: token["id"] for token in json.loads((NANO / "tokenizer.json").read_text())["added_tokens"]}
    return Vocabulary("1k", grammar_vocabulary(NANO), CallTokens(ids.get))


def synthetic(random: Random) -> Vocabulary:
    words = dict.fromkeys(bytes([byte]) for byte in range(256))
    while len(words) < WIDTH - 223:
        words[_word(random).encode()] = None
    found = [*words, *(b"\xff%d" % number for number in range(223))]
    info = xgrammar.TokenizerInfo(found, xgrammar.VocabType.RAW, vocab_size=WIDTH, stop_token_ids=[WIDTH - 223])
    return Vocabulary("152k", info, CallTokens({tag: FIRST_TAG + at for at, tag in enumerate(TAGS)}.get))


def _word(random: Random) -> str:
    space = " " if random.random() < 0.5 else ""
    match random.random():
        case kind if kind < 0.72:
            word = "".join(random.choices(LETTERS, weights=range(27, 1, -1), k=random.randint(2, 9)))
            return space + (word.capitalize() if random.random() < 0.2 else word)
        case kind if kind < 0.94:
            return "".join(chr(random.randint(0x4E00, 0x9FA5)) for _ in range(random.randint(1, 3)))
        case kind if kind < 0.96:
            return space + "".join(random.choices("0123456789", k=random.randint(1, 3)))
        case kind if kind < 0.985:
            return space + "".join(random.choices(PUNCTUATION, k=random.randint(1, 4))) + random.choice(["", "", "\n"])
        case kind if kind < 0.99:
            return random.choice(".,:;\"'({[</_-") + "".join(random.choices(LETTERS, k=random.randint(2, 7)))
        case _:
            return "".join(random.choices(" \n\t", k=random.randint(1, 40)))


def object_of(number: int, *, is_required: bool = True) -> dict[str, object]:
    kinds = ("string", "integer", "boolean", "number")
    names = [f"property_{at}" for at in range(number)]
    properties = {name: {"type": kinds[at % 4]} for at, name in enumerate(names)}
    return {"type": "object", "properties": properties, "required": names if is_required else []}


def nested(depth: int) -> dict[str, object]:
    schema = object_of(3)
    for _ in range(depth):
        schema = {
            "type": "object",
            "properties": {"a": schema, "b": {"type": "array", "items": schema}},
            "required": ["a"],
        }
    return schema


def formats() -> dict[str, AnswerFormat]:
    function = Function("get_weather", object_of(4), "tools[0]", is_strict=True)
    return {
        "json_object": JsonObject(),
        **{f"object_{number}": JsonSchema(object_of(number), "schema") for number in (5, 20, 100, 400)},
        "object_20_optional": JsonSchema(object_of(20, is_required=False), "schema"),
        "nested_5": JsonSchema(nested(5), "schema"),
        "enum_500": JsonSchema({"enum": [f"value {number}" for number in range(500)]}, "schema"),
        "bounded_string": JsonSchema({"type": "string", "minLength": 5, "maxLength": 1000}, "schema"),
        "email": JsonSchema({"type": "string", "format": "email"}, "schema"),
        "regex": Regex(r"[a-z]+@[a-z]+\.(com|org)", "regex"),
        "choice": Choice(("yes", "no", "maybe"), "choice"),
        "call": Calls((function,), is_required=True),
        "auto_20_functions": Calls(
            tuple(Function(f"function_{at}", object_of(4), "tools", is_strict=True) for at in range(20))
        ),
    }


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """Return what the work makes, and the milliseconds of CPU time that it took."""
    before = time.process_time()
    made = work()
    return made, 1000 * (time.process_time() - before)


def measure(answer: AnswerFormat, vocabulary: Vocabulary) -> dict[str, float]:
    compiler = xgrammar.GrammarCompiler(vocabulary.info, max_threads=1, cache_enabled=False)
    recipe, read_ms = timed(lambda: recipe_of(answer, vocabulary.tokens))
    assert recipe is not None
    packed, compile_ms = timed(lambda: pack_grammar(compile_recipe(compiler, recipe)))
    (grammar, num_bytes), load_ms = timed(lambda: unpack_grammar(packed, vocabulary.info))
    times = sorted(batch for seed in range(NUM_WALKS) for batch in mask_times(grammar, vocabulary, Random(seed)))
    return {
        "read_ms": read_ms,
        "compile_ms": compile_ms,
        "megabytes": num_bytes / 1e6,
        "packed_kb": len(packed) / 1e3,
        "load_ms": load_ms,
        "mask_8_ms": statistics.median(times),
        "mask_8_p99_ms": times[int(0.99 * len(times))],
    }


def mask_times(grammar: xgrammar.CompiledGrammar, vocabulary: Vocabulary, random: Random) -> Iterator[float]:
    """Yield the milliseconds of CPU time that the masks of a batch of 8 take, step by step.

    Rows that are done begin again.
    """
    masks = xgrammar.allocate_token_bitmask(BATCH, vocabulary.info.vocab_size)
    rows = [xgrammar.GrammarMatcher(grammar) for _ in range(BATCH)]
    for _ in range(NUM_TOKENS):
        before = time.thread_time()
        for at, row in enumerate(rows):
            row.fill_next_token_bitmask(masks, at)
        yield 1000 * (time.thread_time() - before)
        for at, row in enumerate(rows):
            allowed = np.flatnonzero(np.unpackbits(masks[at].numpy().view(np.uint8), bitorder="little"))
            others = allowed[~np.isin(allowed, vocabulary.stop_ids)]
            if len(others):
                assert row.accept_token(int(random.choice(others)))
            else:
                rows[at] = xgrammar.GrammarMatcher(grammar)


@contextmanager
def test_modules() -> Iterator[None]:
    """Let what the tests make be imported."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    yield
    sys.path.pop(0)


def validate(number: int) -> Counter[str]:
    """Return how many seeded schemas were compiled or refused, and what became of three answers of each."""
    import jsonschema

    with test_modules():
        from unit.worker.grammar_walk import call_tokens, compiled, text_of, walk
        from unit.worker.schema_maker import make_schema
    counts: Counter[str] = Counter()
    for seed in range(number):
        random = Random(seed)
        schema = make_schema(random)
        try:
            recipe = recipe_of(JsonSchema(schema, "schema"), call_tokens())
        except RequestRefused:
            counts["schemas_refused"] += 1
            continue
        assert recipe is not None
        counts["schemas_compiled"] += 1
        grammar = compiled(recipe)
        for _ in range(3):
            if (token_ids := walk(grammar, random)) is None:
                counts["answers_cut"] += 1
                continue
            is_valid = jsonschema.Draft202012Validator(schema).is_valid(json.loads(text_of(token_ids)))
            counts["answers_valid" if is_valid else "answers_invalid"] += 1
            if not is_valid:
                print(json.dumps({"schema": schema, "answer": text_of(token_ids)}))
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="all formats")
    parser.add_argument("--schemas", type=int, default=0, help="seeded schemas to validate answers of")
    arguments = parser.parse_args()
    lines = []
    for vocabulary in (nano(), synthetic(Random(1))):
        print(f"{vocabulary.name:20}  read ms  compile ms     MB     KB  load ms  mask of 8 ms    p99  share of a step")
        for name, answer in formats().items():
            if not arguments.all and name not in USUAL:
                continue
            found = measure(answer, vocabulary)
            print(
                f"{name:20} {found['read_ms']:8.1f} {found['compile_ms']:11.1f} {found['megabytes']:6.2f} "
                f"{found['packed_kb']:6.1f} {found['load_ms']:8.1f} {found['mask_8_ms']:13.3f} "
                f"{found['mask_8_p99_ms']:6.2f} {100 * found['mask_8_ms'] / STEP_MS:14.2f} %",
                flush=True,
            )
            lines += [
                {"name": f"structured_{key}", "format": name, "vocabulary": vocabulary.name, "value": value}
                for key, value in found.items()
            ]
    counts = validate(arguments.schemas) if arguments.schemas else Counter()
    lines += [{"name": f"structured_{key}", "value": value} for key, value in counts.items()]
    for line in lines:
        print(json.dumps(line))
    return 1 if counts["answers_invalid"] else 0


if __name__ == "__main__":
    sys.exit(main())
