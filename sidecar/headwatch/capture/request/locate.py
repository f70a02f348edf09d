"""From token ids to text and back: which tokens of the prompt hold a piece of text.

A token belongs to the text that holds its last character: `` Paris`` (with the space that byte-pair encoders put before
a word) belongs to the document that starts with ``Paris``.  The rule is monotone, so a partition of the characters is a
partition of the tokens.

Nothing is guessed.  Either decoding and encoding again gives the same ids, or decoding step by step gives the same
text, or the prompt is refused as ``untraceable_tokens``.

Searching is linear in the prompt for each distinct document text and stops at a budget, so that thousands of documents
cannot hold up the front end.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from headwatch.errors import RequestFieldError

if TYPE_CHECKING:
    from collections.abc import Sequence

STEPWISE_TOKENS = 16_384
"""Longest prompt that is decoded step by step, at about 20 microseconds a token."""
SEARCH_CHARACTERS = 1 << 29
"""Characters that one prompt's search may pass over (4,096 documents in 100,000 characters: 410 million)."""
STEP_CHARACTERS = 1024
"""What one step of a search costs besides, in characters."""


@dataclass(frozen=True, slots=True)
class TracedPrompt:
    """The prompt's text and, for each token, the index of its last character (never decreasing)."""

    text: str
    last: list[int]

    def tokens(self, start: int, end: int) -> tuple[int, int]:
        """Return the tokens ``[first, stop)`` that belong to the characters ``[start, end)``."""
        return bisect_left(self.last, start), bisect_left(self.last, end)


def trace(ids: Sequence[int], tokenizer: Any) -> TracedPrompt:
    """Return the text of *ids* with the place of each token in it.

    Raises:
        RequestFieldError: With reason ``untraceable_tokens``: no exact mapping was found.
    """
    ids = list(ids)
    text = _decode(tokenizer, ids)
    last = _encode_again(text, ids, tokenizer)
    if last is None and len(ids) <= STEPWISE_TOKENS:
        last = _decode_stepwise(text, ids, tokenizer)
    if last is None:
        raise RequestFieldError("untraceable_tokens", f"{len(ids)} tokens do not map onto their text exactly")
    return TracedPrompt(text, list(accumulate(last, max)))


def _decode(tokenizer: Any, ids: list[int]) -> str:
    try:
        text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    except TypeError:  # vLLM's own tokenizers (TokenizerLike.decode) take no such option
        text = tokenizer.decode(ids, skip_special_tokens=False)
    return str(text)


def _encode_again(text: str, ids: list[int], tokenizer: Any) -> list[int] | None:
    """Return the last character of each token, or None where *text* does not encode to *ids* again."""
    try:
        encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        if list(encoding["input_ids"]) != ids:
            return None
        return [max(start, end - 1) for start, end in encoding["offset_mapping"]]
    except (TypeError, NotImplementedError, KeyError):  # no fast tokenizer: it keeps no offsets
        return None


def _decode_stepwise(text: str, ids: list[int], tokenizer: Any) -> list[int] | None:
    """Return the last character of each token, or None where decoding step by step gives another text.

    As vLLM streams text (``detokenize_incrementally``): a window of the tokens since the last but one complete piece is
    decoded, and a piece is complete when it does not end in half a character.
    """
    last: list[int] = []
    prefix = read = length = 0
    for stop in range(1, len(ids) + 1):
        before = _decode(tokenizer, ids[prefix:read])
        piece = _decode(tokenizer, ids[prefix:stop])
        if piece.endswith("\ufffd") and stop < len(ids):
            continue
        added = piece[len(before) :]
        if not piece.startswith(before) or not text.startswith(added, length):
            return None
        length += len(added)
        last += [max(length - 1, 0)] * (stop - read)
        prefix, read = read, stop
    return last if length == len(text) else None


@dataclass(slots=True)
class _Search:
    """Places found so far, ascending and disjoint, and what is left of the budget."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    budget: int = SEARCH_CHARACTERS

    def blocked_until(self, start: int, end: int) -> int:
        """Return the end of the first place that overlaps ``[start, end)``, or -1."""
        place = bisect_right(self.ends, start)
        return self.ends[place] if place < len(self.starts) and self.starts[place] < end else -1

    def add(self, start: int, end: int) -> None:
        place = bisect_left(self.starts, start)
        self.starts.insert(place, start)
        self.ends.insert(place, end)


def find_texts(text: str, needles: Sequence[str]) -> list[tuple[int, int] | None]:
    """Return for each of *needles* the characters ``[start, end)`` of *text* that hold it, or None.

    Places are disjoint.  Exact matches go first, then those that differ in whitespace alone; long texts go before short
    ones, so that a short text is not found inside a longer document; the n-th of equal texts gets the n-th occurrence.
    Surrounding whitespace belongs to no document.

    Raises:
        RequestFieldError: With reason ``search_budget``: the documents are too many for a prompt of this length.
    """
    places: list[tuple[int, int] | None] = [None] * len(needles)
    groups: dict[str, list[int]] = {}
    for number, needle in enumerate(needles):
        if stripped := needle.strip():
            groups.setdefault(stripped, []).append(number)
    search = _Search()
    ordered = sorted(groups.items(), key=lambda item: -len(item[0]))
    for needle, numbers in ordered:
        for number, place in zip(numbers, _occurrences(text, needle, len(numbers), search), strict=False):
            places[number] = place

    missing = [(needle, [n for n in numbers if places[n] is None]) for needle, numbers in ordered]
    if any(numbers for _, numbers in missing):
        origin = [index for index, character in enumerate(text) if not character.isspace()]
        squeezed = "".join(text.split())
        for needle, numbers in missing:
            found = _occurrences(squeezed, "".join(needle.split()), len(numbers), search, origin)
            for number, place in zip(numbers, found, strict=False):
                places[number] = place
    return places


def _occurrences(
    text: str, needle: str, wanted: int, search: _Search, origin: list[int] | None = None
) -> list[tuple[int, int]]:
    """Return up to *wanted* free places of *needle*; *origin* maps characters of *text* to those of the prompt."""
    found: list[tuple[int, int]] = []
    at = 0
    while len(found) < wanted:
        hit = text.find(needle, at)
        search.budget -= (hit if hit >= 0 else len(text)) - at + STEP_CHARACTERS
        if search.budget < 0:
            raise RequestFieldError("search_budget", f"documents cannot be located in {len(text)} characters in time")
        if hit < 0:
            break
        stop = hit + len(needle)
        start, end = (hit, stop) if origin is None else (origin[hit], origin[stop - 1] + 1)
        blocked = search.blocked_until(start, end)
        if blocked < 0:
            search.add(start, end)
            found.append((start, end))
            at = stop
        else:
            at = max(hit + 1, blocked if origin is None else bisect_left(origin, blocked))
    return found
