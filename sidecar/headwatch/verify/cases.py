"""The prompts of ``headwatch verify``.

Ten chat requests in two waves, for models of text.  The first wave is sent at once, so its requests share batches, and the
longer ones are prefilled in chunks; the second repeats their beginnings, so that part of its prompts comes from the prefix
cache.
Between them they have every way in which a span comes to be: roles, earlier turns, named documents of each kind, token
offsets, and a document that is not in the prompt at all.  A model that sees gets a third wave, with pictures; one that
listens gets sounds instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class NamedDocument:
    """A document as a client names it: by its text, or by token offsets."""

    id: str
    text: str = ""
    kind: str = "document"
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One chat request: its messages as (role, content), and the documents that the client says are in them."""

    name: str
    messages: tuple[tuple[str, str], ...]
    documents: tuple[NamedDocument, ...] = ()
    pictures: tuple[int, ...] = ()
    """Numbers of the pictures that stand before the last message."""
    sound: tuple[int, float] | None = None
    """Number and seconds of what is to be written down; such a case has no messages."""


FERRY = NamedDocument(
    "ferry",
    "The ferry to the northern island leaves the old quay at a quarter past seven in the morning. On Sundays it leaves "
    "at nine. A ticket costs four crowns; bicycles travel free of charge, and dogs pay half. In a storm the harbour "
    "master raises a black cone on the mast, and no ferry leaves until it has been taken down again.",
)
HARBOUR = NamedDocument(
    "harbour",
    "The harbour of the old town freezes for nine weeks in an ordinary winter. An ice-breaker keeps a channel open for "
    "the pilot boats, and everything else waits. The merchants who built the warehouses along the quay counted on it: "
    "they bought grain in autumn and sold it in March, when the first ships of the year had not yet come in.",
)
LIGHTHOUSE = NamedDocument(
    "lighthouse",
    "The lighthouse was lit with rape-seed oil until 1871, then with paraffin, and since 1934 with electricity. Its "
    "keeper wrote down the weather four times a day. The logs are kept in the museum of the harbour, together with the "
    "oldest map of the coast, which is drawn with ink on the skin of a calf.",
)
MEMORY = NamedDocument("memory", "The visitor travels with a bicycle and two children, and likes mornings.", "memory")
TOOL = NamedDocument("timetable", '{"line": "north", "departures": ["07:15", "12:40"], "delay_minutes": 10}', "tool")
OFFSETS = NamedDocument("offsets", start=9, end=21)
ABSENT = NamedDocument("absent", "The lifeboat station was closed in the spring of that year and never opened again.")

SYSTEM = "You are a careful assistant. Answer from the documents, and say so when they do not answer."
RAG_SYSTEM = f"{SYSTEM}\n\nDocuments:\n\n[1] {FERRY.text}\n\n[2] {HARBOUR.text}\n\n[3] {LIGHTHOUSE.text}"
CONVERSATION = (
    ("system", SYSTEM),
    ("user", "When does the ferry leave?"),
    ("assistant", "It leaves at a quarter past seven, and at nine on Sundays."),
    ("user", f"And in winter? I found this: {HARBOUR.text}"),
    ("assistant", "In winter the harbour freezes, so only the pilot boats can leave."),
)
SHORT = (("system", "You are a helpful assistant."), ("user", "Name three colours, and say which is the warmest."))

FIRST_WAVE = (
    Case("plain", SHORT),
    Case("documents", (("system", RAG_SYSTEM), ("user", "When does the ferry leave on a Sunday?")),
         (FERRY, HARBOUR, LIGHTHOUSE)),
    Case("conversation", (*CONVERSATION, ("user", "How long does that last?")), (HARBOUR,)),
    Case("kinds", (("system", f"{SYSTEM}\n\nWhat you remember: {MEMORY.text}"),
                   ("user", f"Timetable: {TOOL.text}\nNotice: {FERRY.text}\nWhich departure do you advise?")),
         (MEMORY, TOOL, FERRY)),
    Case("long", (("user", f"Rewrite this as a letter to a friend: {LIGHTHOUSE.text} {FERRY.text} {HARBOUR.text}"),)),
)
SECOND_WAVE = (
    Case("documents-again", (("system", RAG_SYSTEM), ("user", "What did the keeper of the lighthouse write down?")),
         (FERRY, HARBOUR, LIGHTHOUSE)),
    Case("conversation-continued", (*CONVERSATION, ("user", "How long does that last?"),
                                    ("assistant", "About nine weeks in an ordinary winter."),
                                    ("user", "Who gained by it?")), (HARBOUR,)),
    Case("plain-again", SHORT),
    Case("absent", (("system", SYSTEM), ("user", f"{HARBOUR.text}\nWhen was the lifeboat station closed?")),
         (HARBOUR, ABSENT)),
    Case("offsets", (("system", SYSTEM), ("user", "What is a lighthouse for? Answer in one sentence.")), (OFFSETS,)),
)
WAVES = (FIRST_WAVE, SECOND_WAVE)
PICTURES = (
    Case("picture", (("user", "What do you see?"),), pictures=(1,)),
    Case("pictures", (("system", SYSTEM), ("user", f"Which of the two is meant? {FERRY.text}")), (FERRY,), pictures=(2, 3)),
    Case("picture-again", (("user", "What do you see? Name three things."),), pictures=(1,)),
)
SOUNDS = (
    tuple(Case(f"sound-{number}", (), sound=(number, seconds)) for number, seconds in ((1, 1.9), (2, 0.6), (3, 1.2))),
    tuple(Case(f"sound-{number}", (), sound=(number, seconds)) for number, seconds in ((4, 0.3), (5, 1.6))),
)
REQUESTS = sum(map(len, WAVES))
Waves = tuple[tuple[Case, ...], ...]


def waves_for(config: Any) -> Waves:
    """Return the waves for a model with this configuration of transformers."""
    if config.is_encoder_decoder:
        return SOUNDS
    return (*WAVES, PICTURES) if hasattr(config, "vision_config") else WAVES
