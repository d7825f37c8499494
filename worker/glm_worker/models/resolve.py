"""Turn the model setting into a folder with a Hugging Face checkpoint. Looks at file names only, reads no weights."""

from pathlib import Path

from glm_worker.errors import ConfigError

BUILTIN = "builtin://"
FILE = "file://"
BUILTIN_FOLDER = (
    Path(__file__).resolve().parents[2] / "models"
)  # worker/models, beside the package in checkout and image
NEEDED_FILES = ("config.json", "tokenizer.json")


def resolve(uri: str) -> Path:
    """Return the folder of `builtin://NAME`, `file:///FOLDER` or a plain folder path.

    Raises ConfigError when there is no such model, or when a file that every checkpoint has is missing.
    """
    if uri.startswith(BUILTIN):
        folder = _builtin(uri.removeprefix(BUILTIN))
    elif uri.startswith(FILE):
        folder = Path(uri.removeprefix(FILE))
        if not folder.is_absolute():
            raise ConfigError(f"model {uri}: a file:// model is an absolute folder, as in file:///models/glm-nano")
    elif "://" in uri:
        raise ConfigError(f"model {uri}: unknown scheme; allowed are {BUILTIN}NAME, {FILE}/FOLDER and a folder path")
    else:
        folder = Path(uri)
    if not folder.is_dir():
        raise ConfigError(f"model {uri}: {folder} is not a folder")
    for name in NEEDED_FILES:
        if not (folder / name).is_file():
            raise ConfigError(f"model {uri}: {folder} has no {name}; it must hold a Hugging Face checkpoint")
    return folder


def _builtin(name: str) -> Path:
    known = sorted(path.parent.name for path in BUILTIN_FOLDER.glob("*/config.json"))
    if name not in known:
        raise ConfigError(f"model {BUILTIN}{name}: no such built-in model; there are {', '.join(known) or 'none'}")
    return BUILTIN_FOLDER / name
