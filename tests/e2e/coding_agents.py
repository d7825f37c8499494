"""Two coding agents from npm as they run without a person: what to type, and what to tell them about the server.

They get a home of their own, and settings that turn off what they send to other hosts.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = "long-context"
FOLDER = Path(__file__).parents[1] / "clients/agents"
PROGRAMS = FOLDER / "node_modules/.bin"
QUESTION = "Read notes.txt and say when the meeting is."


@dataclass(frozen=True)
class Agent:
    """An agent on one surface. reads: its tool that reads a file, and the argument with the file's path."""

    name: str
    path: str
    command: tuple[str, ...]
    environment: Callable[[str, Path], dict[str, str]]
    reads: tuple[str, str]


def _opencode(package: str) -> Callable[[str, Path], dict[str, str]]:
    """Return what makes the environment for opencode, whose requests this package of the AI SDK writes."""

    def environment(url: str, home: Path) -> dict[str, str]:
        limit = {"context": 131_072, "output": 4096}
        provider: dict[str, Any] = {
            "npm": package,
            "options": {"baseURL": f"{url}/v1", "apiKey": "none"},
            "models": {MODEL: {"limit": limit, "tool_call": True, "reasoning": True}},
        }
        config = {
            "model": f"glm/{MODEL}",
            "small_model": f"glm/{MODEL}",
            "enabled_providers": ["glm"],
            "autoupdate": False,
            "share": "disabled",
            "provider": {"glm": provider},
        }
        off = ("AUTOUPDATE", "MODELS_FETCH", "LSP_DOWNLOAD", "DEFAULT_PLUGINS", "SHARE")
        return {
            "OPENCODE_CONFIG_CONTENT": json.dumps(config),
            **{f"OPENCODE_DISABLE_{name}": "1" for name in off},
            "NPM_CONFIG_OFFLINE": "true",
        }

    return environment


def _qwen(url: str, home: Path) -> dict[str, str]:
    settings = {
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "general": {"enableAutoUpdate": False},
    }
    (home / ".qwen").mkdir()
    (home / ".qwen/settings.json").write_text(json.dumps(settings))
    return {
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": "none",
        "OPENAI_MODEL": MODEL,
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "none",
        "ANTHROPIC_MODEL": MODEL,
    }


def _opencode_agent(name: str, path: str, package: str) -> Agent:
    return Agent(name, path, ("opencode", "run", "--pure", QUESTION), _opencode(package), ("read", "filePath"))


def _qwen_agent(name: str, path: str, surface: str) -> Agent:
    flags = ("--auth-type", surface, "-m", MODEL, "--approval-mode", "yolo", "--max-session-turns", "4")
    return Agent(name, path, ("qwen", *flags, QUESTION), _qwen, ("read_file", "file_path"))


AGENTS = {
    agent.name: agent
    for agent in (
        _opencode_agent("opencode", "/v1/chat/completions", "@ai-sdk/openai-compatible"),
        _opencode_agent("opencode, Anthropic", "/v1/messages", "@ai-sdk/anthropic"),
        _opencode_agent("opencode, responses", "/v1/responses", "@ai-sdk/openai"),
        _qwen_agent("qwen", "/v1/chat/completions", "openai"),
        _qwen_agent("qwen, Anthropic", "/v1/messages", "anthropic"),
        _qwen_agent("qwen, responses", "/v1/responses", "openai-responses"),
    )
}
