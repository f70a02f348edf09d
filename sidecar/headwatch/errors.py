"""The one exception tree.

::

    HeadwatchError
    ├── ConfigError            a configuration file, variable or flag is wrong
    ├── RequestFieldError      the client's request field is wrong (counted, the request is served all the same)
    ├── SpanError              spans overlap or leave the prompt
    ├── WireError              bytes that are no frame, or a frame of a version that is not read
    ├── CaptureRefused         a layer, layout or engine version that is not understood
    ├── EngineStateError       the engine is not where capture expected it to be in a step
    ├── StoreError             the store cannot be opened, or refuses a write
    │   ├── StoreUnavailable   it cannot be reached or written at the moment
    │   └── BatchRefused       it will never take this batch: its contents are at fault
    ├── SpoolError             the spool's folder cannot be used, or does not take a record
    ├── ExportError            an exporter's peer cannot be reached or refuses
    ├── ControlError           a change of what live control orders that cannot be made
    ├── IncompatibleHistograms two histograms whose buckets differ
    ├── DriftStateError        state or a baseline of drift detection that cannot be read
    ├── IncidentError          the file of incidents cannot be used, or a change of an incident cannot be made
    ├── HistoryError           a history of observed windows that cannot be opened, read or written
    ├── CanaryError            a canary could not be sent or read, or a fingerprint cannot be used
    ├── TextError              a text that is not kept, or cannot be opened; never shows any of it
    └── CommandError           a command cannot do what it was asked

Every error says the value that offended and what to do.  Code inside vLLM catches all of them: see capture/breaker.py.
"""

from __future__ import annotations


class HeadwatchError(Exception):
    """Root of all errors that headwatch raises on purpose."""

    reason: str = "error"
    """Short, stable word used as the label of error counters."""


class ConfigError(HeadwatchError):
    """A configuration file, environment variable or flag is wrong."""

    reason = "config"


class RequestFieldError(HeadwatchError):
    """The client's request field cannot be used.  The request is served; the reason is counted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SpanError(RequestFieldError):
    """Spans overlap or leave the prompt."""


class WireError(HeadwatchError):
    """Bytes that are no frame, or a frame of a version that this side does not read."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CaptureRefused(HeadwatchError):  # noqa: N818 - a refusal is no error of ours
    """A layer, cache layout or engine version that capture does not understand, and so does not touch."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CannotCompile(HeadwatchError):  # noqa: N818 - there are other ways, which cost more
    """There is no C compiler on this machine, it fails, or there is no safe place for what it makes."""

    reason = "compiler"


class EngineStateError(HeadwatchError):
    """The engine is not where capture expected it to be in a step; the step is given up, the layers are not."""

    reason = "engine_state"


class StoreError(HeadwatchError):
    """The store cannot be opened or refuses a write."""

    reason = "store"


class StoreUnavailable(StoreError):  # noqa: N818 - a state of the store, which passes
    """The store cannot be reached or written at the moment: nothing is wrong with what was to be written."""

    reason = "store_unavailable"


class BatchRefused(StoreError):  # noqa: N818 - a refusal is no error of ours
    """The store will never take this batch: its contents are at fault, and trying again is of no use."""

    reason = "refused"


class SpoolError(HeadwatchError):
    """The spool's folder cannot be used, or does not take a record: ``in_use no_space read_only too_large closed io``."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ExportError(HeadwatchError):
    """An exporter's peer cannot be reached or refuses what it was sent."""

    reason = "export"


class ControlError(HeadwatchError):
    """A change of what live control orders cannot be made: ``invalid``, ``off`` (live control is), or ``unrecorded``."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class IncompatibleHistograms(HeadwatchError):  # noqa: N818 - it names what was given
    """Two histograms whose buckets differ cannot be compared."""

    reason = "histograms"


class DriftStateError(HeadwatchError):
    """State or a baseline of drift detection cannot be read."""

    reason = "drift_state"


class HistoryError(HeadwatchError):
    """A history of observed windows cannot be opened, read or written."""

    reason = "history"


class IncidentError(HeadwatchError):
    """The file of incidents cannot be used, or a change of an incident cannot be made: ``file``, ``unknown``, ``state``."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CanaryError(HeadwatchError):
    """A canary could not be sent or read, or a fingerprint cannot be used: that is no drift."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TextError(HeadwatchError):
    """A text of a prompt is not kept, or cannot be opened.  The message shows nothing of the text."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CommandError(HeadwatchError):
    """A command cannot do what it was asked; the message is the one line that the user sees."""

    reason = "command"
