"""``headwatch bench``: what capture and ingest cost here, how often drift detection is wrong, and how others fare."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwatch.cli.output import print_json, stdout_to_stderr

if TYPE_CHECKING:
    import argparse

BENCHMARKS = {
    "capture": "the kernel against the engine's own attention, for the same rows",
    "overhead": "tokens a second, latency and memory of a server, with and without capture",
    "peers": "the same work done by copying queries and keys out, and by eager attention in transformers",
    "ingest": "head summaries that one core takes from frames to closed windows, and what happens to ten times as many",
    "drift": "false alarms of drift detection over those it promises, and its delays beside those of its peers; simulated",
    "store": "bytes on disk of windows, rungs and rows, and how fast they are taken, on real attention",
    "query": "what the API and the dashboards ask, on a month of a fleet",
    "triage": "whether pages say what happened: replays recordings of a real model and server; --live is the full run",
}
WITHOUT_MODEL = {"capture", "drift", "ingest", "store", "query"}
_QUICK = {"triage": "replay recordings in minutes, which is the default; refused with --live and --record"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.description = "Measure on this machine.  Nothing else should run meanwhile: docs/benchmarks.md."
    benchmarks = parser.add_subparsers(dest="benchmark", metavar="{" + ",".join(BENCHMARKS) + "}", required=True)
    for name, text in BENCHMARKS.items():
        benchmark = benchmarks.add_parser(name, help=text, description=text)
        benchmark.add_argument("--quick", action="store_true", help=_QUICK.get(name, "minutes instead of an hour or more"))
        benchmark.add_argument("--json", action="store_true", help="print one JSON document on stdout")
        if name not in WITHOUT_MODEL:
            benchmark.add_argument("--model", type=Path, help="folder of a model (default: the demo's model)")
    benchmarks.choices["drift"].add_argument("--tune", action="store_true", help="find the limits of the peers anew first")
    _add_triage_arguments(benchmarks.choices["triage"])
    benchmarks.choices["peers"].add_argument(
        "--spread", action="store_true", help="let a peer's client have the core that the engine leaves idle"
    )


def _add_triage_arguments(triage: argparse.ArgumentParser) -> None:
    triage.add_argument("--live", action="store_true",
                        help="the full run: every scenario on the real model and server, recorded anew; an hour")  # fmt: skip
    triage.add_argument("--record", type=Path, metavar="DIR", help="the full run, its recordings kept in DIR")
    triage.add_argument("--keep-frames", action="store_true", help="with --record: keep the frames as well (70 kB a request)")
    triage.add_argument("--observe", type=Path, metavar="DIR",
                        help="observe the frames kept in DIR anew, without an engine, and judge that")  # fmt: skip
    triage.add_argument("--recordings", type=Path, metavar="DIR", help="judge the recordings in DIR (default: those that ship)")
    triage.add_argument("--interval", type=float, metavar="WINDOWS",
                        help="judge with a promise of one false page in so many windows (default: 1000)")  # fmt: skip
    triage.add_argument("--only", action="append", default=[], metavar="NAME", help="this scenario alone; may be repeated")


def run(namespace: argparse.Namespace) -> int:
    """Run one benchmark; return 0 where it keeps its bars and 1 where it does not.

    Raises:
        CommandError: The model, the engine or the sidecar cannot be had.
    """
    with stdout_to_stderr():
        report, text = _RUNNERS[namespace.benchmark](namespace)
    if namespace.json:
        print_json(report)
    else:
        print(text)
    return 0 if report.passed else 1


def _capture(namespace: argparse.Namespace) -> tuple[Any, str]:
    from headwatch.bench import capture

    report = capture.run(quick=namespace.quick, progress=_say)
    return report, capture.render(report)


def _overhead(namespace: argparse.Namespace) -> tuple[Any, str]:
    from headwatch.bench.overhead import run as run_overhead
    from headwatch.bench.overhead_report import render

    report = run_overhead(_model(namespace), quick=namespace.quick, progress=_say)
    return report, render(report)


def _peers(namespace: argparse.Namespace) -> tuple[Any, str]:
    from headwatch.bench.peers import run as run_peers
    from headwatch.bench.peers_report import render

    report = run_peers(_model(namespace), quick=namespace.quick, spread=namespace.spread, progress=_say)
    return report, render(report)


def _ingest(namespace: argparse.Namespace) -> tuple[Any, str]:
    from headwatch.bench.ingest.run import render
    from headwatch.bench.ingest.run import run as run_ingest

    report = run_ingest(quick=namespace.quick, progress=_say)
    return report, render(report)


def _drift(namespace: argparse.Namespace) -> tuple[Any, str]:
    from headwatch.bench.drift.report import render
    from headwatch.bench.drift.run import run as run_drift

    report = run_drift(quick=namespace.quick, tune=namespace.tune, progress=_say)
    return report, render(report)


def _store(namespace: argparse.Namespace) -> tuple[Any, str]:
    from headwatch.bench import store

    report = store.run(quick=namespace.quick, progress=_say)
    return report, store.render(report)


def _query(namespace: argparse.Namespace) -> tuple[Any, str]:
    from headwatch.bench import query

    report = query.run(quick=namespace.quick, progress=_say)
    return report, query.render(report)


def _triage(namespace: argparse.Namespace) -> tuple[Any, str]:
    from headwatch.bench.triage import run as triage
    from headwatch.bench.triage.judge import INTERVAL_WINDOWS
    from headwatch.bench.triage.report import render
    from headwatch.errors import CommandError

    if namespace.quick and (namespace.live or namespace.record):
        raise CommandError("--quick judges recordings; leave it out to record anew")
    if namespace.record is not None:
        report = triage.record_to(
            _model(namespace), namespace.record, namespace.only, keep_frames=namespace.keep_frames, progress=_say
        )
    elif namespace.observe is not None:
        report = triage.observe(namespace.observe, namespace.only, progress=_say)
    elif namespace.live:
        report = triage.live(_model(namespace), namespace.only, progress=_say)
    else:
        interval = INTERVAL_WINDOWS if namespace.interval is None else max(namespace.interval, 1.0)
        report = triage.replay(namespace.recordings, namespace.only, interval_windows=interval, progress=_say)
    return report, render(report)


_RUNNERS = {
    "capture": _capture, "overhead": _overhead, "peers": _peers, "ingest": _ingest, "drift": _drift, "store": _store,
    "query": _query, "triage": _triage,
}  # fmt: skip


def _model(namespace: argparse.Namespace) -> Path:
    from headwatch.errors import CommandError

    model: Path | None = namespace.model
    if model is None:
        from headwatch.demo.model import prepare_model

        return prepare_model(on_stage=_say)
    if not (model / "config.json").is_file():
        raise CommandError(f"--model {model}: there is no config.json in it; name the folder of a model")
    return model


def _say(message: str) -> None:
    print(f"bench: {message}", file=sys.stderr, flush=True)
