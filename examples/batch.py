"""A file of requests answered offline: written, run, and read again. Run it twice: the second time has nothing to do.

Run it with the worker's package installed: python examples/batch.py [FOLDER]
"""

import json
import subprocess
import sys
from pathlib import Path


def main(folder: Path) -> int:
    requests, answers = folder / "requests.jsonl", folder / "answers.jsonl"
    with requests.open("w") as file:
        for number in range(20):
            body = {"model": "glm-nano", "messages": [{"role": "user", "content": f"What is {number} + 4?"}]}
            line = {"custom_id": f"sum-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")

    command = ["batch", str(requests), str(answers), "--model", "builtin://glm-nano"]
    code = subprocess.run([sys.executable, "-m", "glm_worker.main", *command], check=False).returncode

    for written in answers.read_text().splitlines():
        answer = json.loads(written)
        print(answer["custom_id"], answer["response"]["body"]["choices"][0]["message"]["content"])
    return code


if __name__ == "__main__":
    sys.exit(main(Path(*sys.argv[1:] or ["."])))
