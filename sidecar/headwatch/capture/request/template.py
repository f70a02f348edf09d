"""Whose words are whose in a rendered prompt: the chat template's roles, learnt from the template itself.

:func:`derive` renders short conversations of marker words through ``tokenizer.apply_chat_template`` and reads off what
the template puts before and after each role.  :func:`split` then cuts a prompt at those strings.  Nothing is known in
advance of any template, so ChatML, Llama, Mistral, Gemma and what comes next go one way; where a template has no way
to tell a role (Gemma folds the system prompt into the first user turn), its words stay with the role that carries them.

Limits.  A template given to the server with ``--chat-template`` is not visible from here: the tokenizer's own is used, and
a prompt in which none of its headers occurs is one user span.  Words that a template adds inside a turn (tool lists in
the system turn, the date) belong to that turn.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from headwatch.model import SpanKind

Role = Literal["system", "user", "assistant", "tool"]


class Turn(NamedTuple):
    """A run of characters ``[start, end)`` of the prompt that is of one kind and age."""

    kind: SpanKind
    start: int
    end: int
    age: int = 0


@dataclass(frozen=True, slots=True)
class RoleMarkers:
    """What a template puts around the words of each role."""

    headers: dict[str, Role]
    """Text that opens a turn, to the role of that turn."""
    footers: dict[Role, str]
    """Text that closes a turn; absent where only the next header does."""
    generation: str
    """What ``add_generation_prompt`` appends."""
    preamble: Literal["system", "template"]
    """What text before the first header is: some templates give the system prompt no header."""
    pattern: re.Pattern[str] = field(compare=False)


# One word in lower case without spaces comes out of any template as it went in.
_PROBES = ("hwprobea", "hwprobeb", "hwprobec", "hwprobed", "hwprobee")
_CALL = {"id": "hwprobe01", "type": "function", "function": {"name": "hwprobefunction", "arguments": {}}}


def derive(tokenizer: Any) -> RoleMarkers | None:
    """Return the markers of the tokenizer's chat template, or None where it has none or none that can be told."""
    chat = _render(tokenizer, "user", "assistant", "user", "assistant", "user") or _render(tokenizer, "user")
    if chat is None:
        return None
    closed = _render(tokenizer, "user", "assistant")
    to_assistant = closed[1] if closed else ""
    to_user = chat[2] if len(chat) > 2 else ""  # noqa: PLR2004 - the gap after the first assistant turn
    footers: dict[Role, str] = {"user": _common_prefix(chat[-1], to_assistant) if to_assistant else chat[-1]}
    if closed:
        footers["assistant"] = _common_prefix(closed[-1], to_user) if to_user else closed[-1]

    user = _common_suffix(chat[0], _without(to_user, footers.get("assistant", ""))) if to_user else chat[0]
    if not user.strip():
        return None
    headers: dict[str, Role] = {user: "user"}
    if to_assistant.strip():
        headers[_without(to_assistant, footers["user"]).rstrip(" ")] = "assistant"
    preamble = _add_system(tokenizer, headers, footers, user)
    _add_tool(tokenizer, headers, footers)

    generated = _render(tokenizer, "user", generation=True)
    generation = generated[-1].removeprefix(chat[-1]) if generated else ""
    longest_first = sorted(headers, key=len, reverse=True)
    return RoleMarkers(
        headers=headers,
        footers={role: text.rstrip() for role, text in footers.items() if text.strip()},
        generation=generation,
        preamble=preamble,
        pattern=re.compile("|".join(map(re.escape, longest_first))),
    )


def split(text: str, markers: RoleMarkers | None, *, max_turns: int) -> list[Turn]:
    """Return the turns of *text*, a partition of its characters in order.

    The last user turn is the current one, age 0, and what follows it (tool calls and results under way) is of its age.
    Earlier turns are ``history``, or ``tool``, one span each, aged by the turns up to the current one.  Beyond
    *max_turns* the oldest become one.
    """
    headers = list(markers.pattern.finditer(text)) if markers is not None else []
    if markers is None or not headers:
        return [Turn("user", 0, len(text))] if text else []
    end = len(text)
    if markers.generation.strip() and text.endswith(markers.generation):
        end -= len(markers.generation)
    words: list[tuple[Role, int, int]] = []
    for header, following in zip(headers, [*headers[1:], None], strict=True):
        role = markers.headers[header.group()]
        start, stop = header.end(), min(end, following.start() if following else end)
        footer = markers.footers.get(role)
        if footer and (close := text.find(footer, start, stop)) >= 0:
            stop = close
        if start < stop:
            words.append((role, start, stop))
    turns = _merge_oldest(_aged(words), max_turns)
    if markers.preamble == "system" and headers[0].start():
        turns.insert(0, Turn("system", 0, headers[0].start()))
    return _fill(turns, len(text))


def _aged(words: list[tuple[Role, int, int]]) -> list[Turn]:
    spoken = [place for place, (role, _, _) in enumerate(words) if role != "system"]
    users = [place for place in spoken if words[place][0] == "user"]
    current = users[-1] if users else len(words)
    order = {place: number for number, place in enumerate(spoken)}
    now = order.get(current, len(spoken))
    turns = []
    for place, (role, start, end) in enumerate(words):
        if role == "system":
            turns.append(Turn("system", start, end))
        elif place == current:
            turns.append(Turn("user", start, end))
        else:
            turns.append(Turn("tool" if role == "tool" else "history", start, end, max(0, now - order[place])))
    return turns


def _merge_oldest(turns: list[Turn], max_turns: int) -> list[Turn]:
    surplus = len(turns) - max_turns
    if surplus <= 0:
        return turns
    first = next((place for place, turn in enumerate(turns) if turn.kind != "system"), 0)
    last = min(first + surplus, len(turns) - 1)
    merged = Turn("history", turns[first].start, turns[last].end, turns[last].age)
    return [*turns[:first], merged, *turns[last + 1 :]]


def _fill(turns: list[Turn], length: int) -> list[Turn]:
    """Return *turns* with template text in the gaps between them."""
    filled: list[Turn] = []
    at = 0
    for turn in turns:
        if at < turn.start:
            filled.append(Turn("template", at, turn.start))
        filled.append(turn)
        at = turn.end
    if at < length:
        filled.append(Turn("template", at, length))
    return filled


def _add_system(
    tokenizer: Any, headers: dict[str, Role], footers: dict[Role, str], user: str
) -> Literal["system", "template"]:
    """Add the system role where the template tells it apart, and return what text before the first header is."""
    chat = _render(tokenizer, "system", "user")
    if chat is None:
        return "template"
    before, to_user, _ = chat
    if before.endswith(user):  # folded into the first user turn
        return "template"
    alike = user.replace("user", "system")
    if alike != user and alike in before:
        header = alike
    else:  # the text's first token is part of the header where it is part of the user's as well (Llama 2)
        first_token = str(getattr(tokenizer, "bos_token", None) or "")
        header = before if user.startswith(first_token) else before.removeprefix(first_token)
    if not header.strip():
        return "system" if user in to_user else "template"
    headers[header] = "system"
    if user in to_user:
        footers["system"] = to_user[: to_user.rindex(user)]
    elif to_user.strip():
        headers[to_user] = "user"  # Llama 2: the system prompt stands inside the first user turn
    return "template"


def _add_tool(tokenizer: Any, headers: dict[str, Role], footers: dict[Role, str]) -> None:
    for call in (False, True):
        chat = _render(tokenizer, "user", "assistant", "tool", "tool", call=call)
        one = _render(tokenizer, "user", "assistant", "tool", call=call)
        if one is None:
            continue
        before, after = one[-2], one[-1]
        again = chat[-2] if chat else ""
        close = footers.get("assistant", "")
        header = before[before.rindex(close) + len(close) :] if close.strip() and close in before else before
        if header.strip() in {"", *(known.strip() for known in headers)}:  # the template does not tell it apart
            continue
        headers[header] = "tool"
        footers["tool"] = _common_prefix(after, again) if again else after
        if again.strip() and header not in again:
            headers[again] = "tool"  # Qwen: results in a row share one turn
        return


def _render(tokenizer: Any, *roles: Role, generation: bool = False, call: bool = False) -> list[str] | None:
    """Return the text before, between and after the words of *roles*, or None where the template will not have them.

    With *call* the assistant turn before a tool result carries a tool call: some templates insist.  Its words are then
    of no interest, and the gap before the tool result starts at the user's.
    """
    messages: list[dict[str, Any]] = []
    probes: list[str] = []
    for role, probe in zip(roles, _PROBES, strict=False):
        message: dict[str, Any] = {"role": role, "content": probe}
        if role == "assistant" and call:
            message = {"role": role, "content": "", "tool_calls": [_CALL]}
        else:
            probes.append(probe)
        if role == "tool":
            message |= {"tool_call_id": _CALL["id"], "name": "hwprobefunction"}
        messages.append(message)
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
    except Exception:  # noqa: BLE001 - a template may raise anything for an order of roles that it does not know
        return None
    if not isinstance(text, str):
        return None
    gaps: list[str] = []
    at = 0
    for probe in probes:
        if text.count(probe) != 1 or (found := text.find(probe, at)) < 0:
            return None
        gaps.append(text[at:found])
        at = found + len(probe)
    return [*gaps, text[at:]]


def _without(gap: str, footer: str) -> str:
    """Return the header in *gap*, which starts with the footer of the turn before; the gap where nothing else is in it."""
    header = gap.removeprefix(footer)
    return header if header.strip() else gap


def _common_prefix(first: str, second: str) -> str:
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return first[:place]
    return min(first, second, key=len)


def _common_suffix(first: str, second: str) -> str:
    return _common_prefix(first[::-1], second[::-1])[::-1]
