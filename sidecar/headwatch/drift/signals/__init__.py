"""Signals of retrieval: what the requests of a window say of documents, sources, labels and instructions.

Each signal is defined in one place, with its formula, the smallest spread that is believed of it, which way is bad, and what it
cannot tell; docs/signals.md is written from these definitions.  A signal is computed for a request and averaged over the
requests of a scope (model, adapter, route, language); where a request does not define it, it is left out and not taken as 0.
"""

from headwatch.drift.signals.definition import SignalDefinition
from headwatch.drift.signals.examples import examples_of
from headwatch.drift.signals.kinds import prompt_kind
from headwatch.drift.signals.scopes import SIGNALS, DocumentBook, definition_of, signals_of

__all__ = ["SIGNALS", "DocumentBook", "SignalDefinition", "definition_of", "examples_of", "prompt_kind", "signals_of"]
