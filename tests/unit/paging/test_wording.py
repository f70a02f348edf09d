"""What a peer that shows plain text is told of an incident."""

from __future__ import annotations

import msgspec

from headwatch.findings import PromptExhibit
from headwatch_exporters.paging.wording import description

from ..incidents import exhibits, incident


def test_kinds_of_prompts_that_draw_labelled_documents_are_named_where_there_are_any():
    drawn = (PromptExhibit("1k-4k docs:3-4 turns:0", "hr", 5), PromptExhibit("<256 docs:1 turns:0", "", 1))
    told = description(incident(exhibits=msgspec.structs.replace(exhibits(), prompts=drawn)))
    assert told.splitlines()[-1] == (
        "Kinds of prompts that draw it, with example requests: 1k-4k docs:3-4 turns:0 on hr (5), "
        "<256 docs:1 turns:0 on no route (1)."
    )
    assert "Kinds of prompts" not in description(incident())
