#!/usr/bin/env bash
# Check the only prerequisites of this repository: Linux, and Python >= 3.11 with its venv module. Argument: the interpreter.
set -euo pipefail

python="$1"
advice="On Debian 12: apt-get install -y make python3 python3-venv    (another interpreter: make PYTHON=/path/to/python3.11 ...)"

if [ "$(uname -s)" != Linux ]; then
    echo "Linux is needed (the worker, glm local and the cluster use its processes and namespaces), and this is $(uname -s): use a Linux machine, a virtual one or a container." >&2
    exit 1
fi
if ! command -v "$python" >/dev/null; then
    echo "Python 3.11 or newer is needed; '$python' was not found. $advice" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or newer is needed; '$python' is $("$python" --version 2>&1 | cut -d' ' -f2). $advice" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "Python's venv module is needed; '$python' comes without it. $advice" >&2
    exit 1
fi
