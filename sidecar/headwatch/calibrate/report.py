"""What ``headwatch calibrate heads`` says of the map that it wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from headwatch.aggregate.head_map import Evaluation, HeadClass

if TYPE_CHECKING:
    from headwatch.aggregate.head_map import HeadMap, Score

CHANCE = 0.5
_CLASSES: tuple[HeadClass, ...] = ("retrieval", "induction", "local", "sink")
_NAMES = {
    "retrieval_heads": "retrieval heads", "all_heads": "all heads", "prompt_tokens": "prompt length (control)",
    "answer_probability": "answer probability (control)",
}  # fmt: skip


class CalibrationReport(msgspec.Struct, frozen=True):
    """The result, for people and programs; the map itself is in the file."""

    head_map: str
    """Path of the file."""
    model: str
    model_sha256: str
    heads: int
    """Heads that were measured."""
    classes: dict[HeadClass, int]
    """Heads in each class; a head may be in several or none."""
    retrieval_share: float
    """Share of the model's heads that are retrieval heads."""
    retrieval_heads: list[tuple[int, int]]
    """(layer, head), by layer and head."""
    evaluation: Evaluation
    passed: bool
    """Whether the retrieval heads tell right from wrong documents on held-out questions: the interval lies above ½."""
    needles_answered: float
    """Share of the needle prompts whose number the model gave in full."""
    refused_layers: dict[str, str]
    seconds: float


def summarise(
    head_map: HeadMap, path: str, needles_answered: float, refused_layers: dict[str, str], seconds: float
) -> CalibrationReport:
    """Return the report on *head_map*, which stands in the file *path*."""
    assert head_map.evaluation is not None  # a calibrated map always has one
    members = head_map.members("retrieval")
    verdict = head_map.evaluation.auroc.get("retrieval_heads")
    return CalibrationReport(
        head_map=path,
        model=head_map.model,
        model_sha256=head_map.model_sha256,
        heads=len(head_map.heads),
        classes={kind: len(head_map.members(kind)) for kind in _CLASSES},
        retrieval_share=round(len(members) / (head_map.layers * head_map.heads_per_layer), 4),
        retrieval_heads=list(members),
        evaluation=head_map.evaluation,
        passed=verdict is not None and verdict.low is not None and verdict.low > CHANCE,
        needles_answered=needles_answered,
        refused_layers=refused_layers,
        seconds=seconds,
    )


def render(report: CalibrationReport) -> str:
    """Return *report* for people."""
    counts = ", ".join(f"{count} {kind}" for kind, count in report.classes.items())
    named = ", ".join(f"{layer}.{head}" for layer, head in report.retrieval_heads) or "none"
    lines = [
        f"{report.heads} heads of {report.model}: {counts}",
        f"retrieval heads (layer.head), {report.retrieval_share:.1%} of all: {named}",
        "",
        f"AUROC of right against wrong documents, {report.evaluation.questions} held-out questions, 95 % interval",
    ]
    lines += [f"  {label:<30}{_shown(report.evaluation.auroc[name])}" for name, label in _NAMES.items()
              if name in report.evaluation.auroc]  # fmt: skip
    lines += ["", *(f"refused: {layer}: {reason}" for layer, reason in report.refused_layers.items())]
    if not report.passed:
        lines.append("WARNING: no heads of this model were found that tell right documents from wrong ones")
    lines.append(f"head map: {report.head_map} ({report.seconds:.0f} s)")
    return "\n".join(lines)


def _shown(score: Score) -> str:
    return f"{score.value:.3f}" if score.low is None else f"{score.value:.3f}  [{score.low:.3f}, {score.high:.3f}]"
