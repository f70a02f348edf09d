"""What would tell two classes apart: one sentence for each pair, to be done or looked at by the reader of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwatch.findings import DriftClass
    from headwatch.incident.facts import CanaryState

_PAIRS: dict[tuple[DriftClass, DriftClass], str] = {
    ("telemetry", "model"):
        "a fixed prompt loses no rows: if `headwatch canary run` passes, the model is as it was",
    ("telemetry", "injection"):
        "requests whose rows all arrived: if a document captures the attention there too, it is no fault of telemetry",
    ("telemetry", "retrieval"):
        "requests whose rows all arrived: if their grounding fell too, it is no fault of telemetry",
    ("telemetry", "traffic"):
        "time: once the counters of `headwatch doctor` rest, other traffic is still there and a fault is not",
    ("model", "injection"):
        "a fixed prompt holds no document from outside: if `headwatch canary run` passes, look for the document",
    ("model", "retrieval"):
        "a fixed prompt brings its own documents: if `headwatch canary run` passes, it is what retrieval returns",
    ("model", "traffic"):
        "a fixed prompt does not change with what users ask: if `headwatch canary run` passes, it is the traffic",
    ("injection", "retrieval"):
        "the text of the document that draws the attention: is there an instruction in it, or is it merely the wrong one?",
    ("injection", "traffic"):
        "whether the requests that stand out share a document: users who change their topics do not",
    ("retrieval", "traffic"):
        "questions of last week, asked again: if they get the documents that they got then, it is the traffic",
}  # fmt: skip


FIRST: dict[DriftClass, str] = {
    "telemetry": "headwatch doctor",
    "model": "headwatch canary run, and ask who released something",
    "injection": "read the first document above, in its source",
    "retrieval": "ask the retriever for the first request above again",
    "traffic": "nothing: it is shown so that you know",
}
"""The first thing to do, by class; the runbook has the others."""


def tells_apart(chosen: DriftClass, runner_up: DriftClass, canary: CanaryState) -> str:
    """Return what would tell *chosen* from *runner_up*."""
    if chosen == "model" and canary == "failed":
        return {
            "telemetry": "the counters of `headwatch doctor`: a fixed prompt that failed is not explained by lost rows",
            "injection": "whether it stays once the fixed prompts pass again: two things may have changed at once",
            "retrieval": "whether it stays once the fixed prompts pass again: another model reads documents otherwise",
            "traffic": "nothing needs to: fixed prompts do not change with what users ask",
        }[runner_up]
    if canary == "none" and {chosen, runner_up} == {"model", "traffic"}:
        return ("fixed prompts, of which none has come of late: `headwatch canary explain` says why; where none are sent, set "
                "canary.endpoint and pin a fingerprint while all is well")  # fmt: skip
    return _PAIRS.get((chosen, runner_up)) or _PAIRS[runner_up, chosen]
