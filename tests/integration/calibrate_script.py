"""Runs a small calibration in a process of its own: python calibrate_script.py MODEL FILE → JSON on stdout.

The head map goes to FILE.  Stdout has what two probe prompts gave, and their tokens, so that a test can compute the same
from another implementation's attention.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np

from headwatch.aggregate.head_map import encode_head_map
from headwatch.calibrate.corpus import load_split
from headwatch.calibrate.engine import probe_engine
from headwatch.calibrate.needle import make_needles, needle_mass
from headwatch.calibrate.prompts import ModelWriter
from headwatch.calibrate.repeats import induction_mass, make_repeats
from headwatch.calibrate.run import Effort, Settings, head_map_of, measure
from headwatch.cli.output import stdout_to_stderr

SETTINGS = Settings(Path(sys.argv[1]), "tiny", "float32", effort=Effort(question_stride=20, needle_names=1, sequences=2))


def main():
    with stdout_to_stderr(), probe_engine(SETTINGS.model, SETTINGS.dtype) as engine:
        measured = measure(engine, SETTINGS, lambda _: None)
        Path(sys.argv[2]).write_bytes(encode_head_map(head_map_of(measured, SETTINGS, "")))
        writer, random = ModelWriter(engine.tokenizer), np.random.default_rng(3)
        repeats = make_repeats(writer.ordinary_ids, random, 1)[0]
        needle = make_needles(load_split("calibration"), writer, random, 1)[2]
        repeats_answer, needle_answer = engine.ask([repeats, needle.prompt])
        spans = [span for span in needle_answer.rows[-1].context.spans if span.document >= 0]
        result = {
            "repeats": {"ids": repeats.token_ids, "mass": induction_mass(repeats_answer).tolist()},
            "needle": {
                "ids": needle.prompt.token_ids + needle_answer.generated_ids,
                "prompt_tokens": len(needle.prompt.token_ids),
                "number_ids": needle.number_ids,
                "generated_ids": needle_answer.generated_ids,
                "sentence": needle.prompt.documents[0]["text"],
                "spans": [(span.start, span.end) for span in spans],
                "mass": needle_mass(needle, needle_answer).tolist(),
            },
        }
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


if __name__ == "__main__":
    main()
