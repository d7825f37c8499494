"""The engine in a program of one's own: an answer, a stream, and many answers at once.

Run it with the worker's package installed: python examples/engine.py [MODEL]
"""

import sys
import time

from glm_worker import Engine


def main(model: str) -> None:
    with Engine(model) as engine:
        answer = engine.chat([{"role": "user", "content": "What is 17 + 25?"}], temperature=0)
        print(f"{answer.text}   ({answer.usage.reasoning_tokens} tokens of thought before)")

        for piece in engine.stream([{"role": "user", "content": "What is 8 + 5?"}], temperature=0):
            print(piece.reasoning, piece.text, sep="", end="", flush=True)
        print()

        began = time.monotonic()
        questions = ([{"role": "user", "content": f"What is {number} + 4?"}] for number in range(50))
        answers = list(engine.chats(questions, temperature=0))
        num_tokens = sum(answer.usage.completion_tokens for answer in answers)
        print(f"{answers[-1].text}; 50 answers, {num_tokens / (time.monotonic() - began):.0f} tokens/s")


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["glm-nano"]))
