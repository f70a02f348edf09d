"""The canary prompts: a fixed, versioned set, or the operator's own from a TOML file.

Seven shapes that use a model's heads differently: a short question, a chat with history, a document and a question about it,
code, repeated words (induction), another script, and a longer text.  They are sent as chat messages, so that the server's own
chat template is part of what is watched.  About 1,000 tokens in all with a usual tokenizer: a run every five minutes costs a
server that reads 10,000 prompt tokens a second 0.03 % of it.

A set is known by the digest of its content: fingerprints of different sets are never compared.  Prompts of one's own::

    version = "ours-1"
    [[prompt]]
    name = "invoice"
    messages = [{ role = "system", content = "…" }, { role = "user", content = "…" }]
    documents = [{ id = "terms", text = "as it stands in a message" }]
"""

from __future__ import annotations

import hashlib
import tomllib
from typing import TYPE_CHECKING, Annotated

import msgspec

from headwatch.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MAX_PROMPTS = 32
MAX_FILE_BYTES = 1 << 20

Name = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_.-]{1,64}$")]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message of a chat."""

    role: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    content: str


class PromptDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A document of the prompt, its text as it stands in a message."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    text: str


class CanaryPrompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fixed prompt."""

    name: Name
    messages: Annotated[tuple[Message, ...], msgspec.Meta(min_length=1, max_length=64)]
    documents: tuple[PromptDocument, ...] = ()


class PromptSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prompts that are sent together."""

    version: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    prompt: Annotated[tuple[CanaryPrompt, ...], msgspec.Meta(min_length=1, max_length=MAX_PROMPTS)]

    @property
    def digest(self) -> str:
        """Return what the set is known by: 16 hexadecimal digits of the SHA-256 of its content."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]


def load_prompts(path: Path | None) -> PromptSet:
    """Return the prompts in the TOML file at *path*, or headwatch's own where there is none.

    Raises:
        ConfigError: The file cannot be read, or is not such a set.
    """
    if path is None:
        return BUILT_IN
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: canary prompts of more than {MAX_FILE_BYTES} bytes")
        found = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), PromptSet)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: canary prompts cannot be read: {error}") from error
    names = [item.name for item in found.prompt]
    if len(set(names)) != len(names):
        raise ConfigError(f"{path}: two canary prompts have one name: {', '.join(sorted(names))}")
    return found


def _chat(name: str, *turns: tuple[str, str], documents: tuple[PromptDocument, ...] = ()) -> CanaryPrompt:
    return CanaryPrompt(name, tuple(Message(role, content) for role, content in turns), documents)


_FERRY = (
    "The ferry to Hallig Oland leaves Schlüttsiel at 9:40 and at 14:10. Bicycles cost four euros. In a storm above force eight "
    "the second crossing is cancelled, and tickets are valid on the next day. Dogs travel free of charge if they are on a lead."
)
_CODE = """Find the mistake in this function.

def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle] + ordered[middle + 1]) / 2

assert median([3, 1, 2]) == 2
assert median([4, 1, 3, 2]) == 2.5
"""
_STATIONS = ("the harbour", "the mill", "the school", "the old bridge", "the market", "the station", "the lighthouse")
_LONG = " ".join(
    f"Stop {number + 1} of the tour is {_STATIONS[number % len(_STATIONS)]}: the bus waits there for {3 + number * 7 % 11} "
    f"minutes, and guide {chr(ord('A') + number % 5)} tells the story of the year {1607 + number * 37 % 391}."
    for number in range(12)
)  # fmt: skip

BUILT_IN = PromptSet(
    "headwatch-1",
    (
        _chat("short", ("user", "Which is heavier, a litre of water or a litre of oil?")),
        _chat(
            "chat",
            ("system", "You are the help desk of a public library. Answer in one sentence."),
            ("user", "How long may I keep a book?"),
            ("assistant", "You may keep a book for four weeks, and extend the loan twice."),
            ("user", "And if somebody else is waiting for it?"),
        ),
        _chat(
            "document",
            ("system", "Answer from the document alone."),
            ("user", f"{_FERRY}\n\nWhen does the second ferry leave, and what does a bicycle cost?"),
            documents=(PromptDocument("ferry", _FERRY),),
        ),
        _chat("code", ("user", _CODE)),
        _chat("repeated", ("user", "red stone blue river " * 20 + "red stone blue")),
        _chat("script", ("user", "请用一句话回答:海水为什么是咸的?Почему море солёное? Ответьте одним предложением.")),
        _chat("long", ("user", f"{_LONG} At which stop does guide C tell a story for the second time?")),
    ),
)
"""headwatch's own prompts.  A change of any character is another set: raise the version then."""
