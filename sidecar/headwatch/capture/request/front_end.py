"""The hook in vLLM's front end: which requests are sampled, and what their prompts consist of.

It wraps ``InputProcessor.process_inputs`` (vLLM 0.32, v1/engine/input_processor.py), the one place that has a request's
token ids and parameters together.  A request that is not sampled pays a hash, and a skim of its request field where it
has one.  A sampled one is traced and resolved here, and the result travels to the workers in its ``extra_args``, with
its weight: one over the rate at which it was drawn, and 1 where the client asked for it.

Nothing raises into vLLM.  What is wrong with a request's field is recorded in its context and counted; what is wrong
with us is counted and logged once, and the request goes on unsampled.

Where the operator keeps texts, that of a sampled request is handed to :mod:`headwatch.capture.output.texts` as well.
"""

from __future__ import annotations

import copy
import functools
import logging
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from headwatch.capture.control import ControlReceiver
from headwatch.capture.output.texts import TextSender
from headwatch.capture.request.canaries import Allowance
from headwatch.capture.request.digest import prompt_digest
from headwatch.capture.request.field import CONTEXT_KEY, FIELD_KEY, Field, Head, parse, peek
from headwatch.capture.request.spans import Resolution, resolve
from headwatch.capture.request.template import RoleMarkers, derive
from headwatch.config import TextConfig, WireConfig
from headwatch.errors import RequestFieldError
from headwatch.model import RequestContext, Span
from headwatch.sampling import is_sampled

if TYPE_CHECKING:
    from headwatch.config import CaptureConfig
    from headwatch.model import SpanKind

logger = logging.getLogger("headwatch.capture")

_TRACE_PARTS = 4
_MEDIA: dict[str, SpanKind] = {"image": "image", "video": "image", "audio": "audio"}


class Reader:
    """A tokenizer of our own with the roles of its template.

    Our own, because a Rust tokenizer that one thread uses refuses another thread that changes its truncation ("Already
    borrowed"), and vLLM's threads do: sharing theirs could fail their request.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.source = tokenizer
        self.tokenizer = copy.deepcopy(tokenizer)
        self.roles: RoleMarkers | None = derive(self.tokenizer)
        self.lock = threading.Lock()


class FrontEnd:
    """All of headwatch's state in one front-end process."""

    def __init__(self, config: CaptureConfig, wire: WireConfig | None = None, text: TextConfig | None = None) -> None:
        self.config = config
        self.control = ControlReceiver(config, wire or WireConfig())
        self.texts = TextSender(text, wire or WireConfig()) if text is not None and text.enabled else None
        """None: no text leaves this process."""
        self.errors: Counter[str] = Counter()
        """Reasons, with how often they occurred since the start."""
        self.sampled = 0
        self.canaries = Allowance()
        self._reader: Reader | None = None
        self._lock = threading.Lock()
        self._listening = False

    def install(self, processor_class: Any) -> None:
        """Wrap ``process_inputs`` of *processor_class*, once, however often it is called."""
        original = processor_class.process_inputs
        if getattr(original, "__headwatch__", False):
            return

        @functools.wraps(original)
        def process_inputs(processor: Any, *args: Any, **kwargs: Any) -> Any:
            request = original(processor, *args, **kwargs)
            try:
                tokenizer = processor.tokenizer
                model_config = getattr(processor, "model_config", None)
                encoder = bool(getattr(model_config, "is_encoder_decoder", False))
                served = getattr(model_config, "served_model_name", "")
                prompt = args[1] if len(args) > 1 else kwargs.get("prompt")
            except Exception as error:  # noqa: BLE001 - nothing of ours may raise into vLLM
                self._failed(error)
            else:
                model = served if isinstance(served, str) else next(iter(served or ()), "")
                self.annotate(request, tokenizer, encoder=encoder, prompt=prompt, model=model)
            return request

        process_inputs.__headwatch__ = True  # type: ignore[attr-defined] # functions take attributes
        processor_class.process_inputs = process_inputs

    def annotate(
        self, request: Any, tokenizer: Any, *, encoder: bool = False, prompt: Any = None, model: str = ""
    ) -> None:
        """Leave the context of *request* (vLLM ``EngineCoreRequest``) in its parameters, if it is sampled.

        With an *encoder*, images and sounds are its input, and have no place in the prompt.  *prompt* is vLLM's
        ``EngineInput``, which has the text where the client gave one; *model* the name that it is served under.

        The parameters' ``extra_args`` are replaced, never changed: vLLM's clone of them may be shallow
        (``SamplingParams.skip_clone``).  Never raises.
        """
        try:
            if not self._listening:
                self._listen()
            context = self._annotate(request, tokenizer, encoder=encoder)
        except Exception as error:  # noqa: BLE001 - nothing of ours may raise into vLLM
            self._failed(error)
        else:
            if self.texts is not None and context is not None:
                self.texts.take(context, model, prompt, request.prompt_token_ids, self._reader)

    def _annotate(self, request: Any, tokenizer: Any, *, encoder: bool) -> RequestContext | None:
        """Return the context that *request* got; None where it is not sampled."""
        params = request.sampling_params
        if params is None:  # pooling
            return None
        extra = params.extra_args or {}
        if CONTEXT_KEY in extra:  # only we may write it: the workers trust it
            self.errors["forged_context"] += 1
            params.extra_args = extra = {key: value for key, value in extra.items() if key != CONTEXT_KEY}
        if FIELD_KEY in extra:  # the texts of documents go no further than this process
            params.extra_args = {key: value for key, value in extra.items() if key != FIELD_KEY}
        settings = self.control.settings
        head = peek(extra[FIELD_KEY], self.config) if FIELD_KEY in extra else Head()
        if head.canary and not self._admit_canary(params, sampled=head.capture is not False):
            return None
        if head.capture is False or not settings.enabled:
            return None
        traceparent = head.traceparent or (request.trace_headers or {}).get("traceparent", "")
        trace_id, parent_span_id = _trace(traceparent)
        request_id = request.external_req_id or request.request_id
        ids = request.prompt_token_ids
        adapter = request.lora_request.lora_name if request.lora_request is not None else ""
        rate = 1.0 if head.asked else settings.of(head.route, adapter, len(ids or ())).sample_rate
        if not is_sampled(trace_id or request_id, rate):
            return None
        if unknown := _unknown_prompt(request):
            self.errors[unknown] += 1
            return None
        context = msgspec.structs.replace(
            self._context(request, ids, tokenizer, extra, encoder=encoder),
            request_id=request_id,
            trace_id=trace_id,
            parent_span_id=parent_span_id,
            adapter=adapter,
            weight=1.0 / rate,
            full=head.capture == "full" or bool(head.canary),
        )
        params.extra_args = {**(params.extra_args or {}), CONTEXT_KEY: msgspec.json.encode(context).decode()}
        self.sampled += 1
        return context

    def _admit_canary(self, params: Any, *, sampled: bool) -> bool:
        """Return whether a request that calls itself a canary may be *sampled*; the rates of the prefix cache never see it.

        Source: vLLM 0.32 ``KVCacheManager.record_prefix_cache_stats`` counts neither a query nor a hit of a request with
        ``skip_reading_prefix_cache``; nor does the scheduler ask a KV connector for it.
        """
        params.skip_reading_prefix_cache = True
        if not sampled or self.canaries.take():
            return sampled
        self.errors["canary_limit"] += 1
        return False

    def _context(
        self, request: Any, ids: list[int], tokenizer: Any, extra: dict[str, Any], *, encoder: bool
    ) -> RequestContext:
        errors: list[str] = []
        field = Field()
        if FIELD_KEY in extra:
            try:
                field = parse(extra[FIELD_KEY], self.config)
            except RequestFieldError as error:
                errors.append(error.reason)
        if tokenizer is None:  # vLLM's skip_tokenizer_init
            resolution = Resolution([Span("user", 0, len(ids))], [], ["no_tokenizer"])
        else:
            media = [] if encoder else _media(request.mm_features or [], len(ids))
            reader = self._reader_of(tokenizer)
            with reader.lock:
                resolution = resolve(ids, reader.tokenizer, field, roles=reader.roles, config=self.config, media=media)
        errors += resolution.errors
        self.errors.update(errors)
        return RequestContext(
            request_id="",
            prompt_tokens=len(ids),
            spans=resolution.spans,
            documents=resolution.documents,
            route=field.route,
            arm=field.arm,
            language=field.language,
            template=field.template,
            user=field.user,
            tenant=field.tenant,
            canary=field.canary,
            prompt_digest=prompt_digest(ids, resolution.spans),
            errors=errors,
            detail=min(field.detail, self.config.max_detail),
            encoder_spans=_encoder_spans(request.mm_features or []) if encoder else [],
        )

    def _reader_of(self, tokenizer: Any) -> Reader:
        with self._lock:  # requests may be processed on several threads (process_inputs_async)
            if self._reader is None or self._reader.source is not tokenizer:
                self._reader = Reader(tokenizer)
            return self._reader

    def _listen(self) -> None:
        """Start to hear orders: at the first request, because an earlier thread would not survive a fork of vLLM's."""
        with self._lock:
            if not self._listening:
                self._listening = True
                self.control.start()

    def _failed(self, error: Exception) -> None:
        reason = type(error).__name__
        self.errors[reason] += 1
        if self.errors[reason] == 1:
            logger.error("headwatch could not resolve a request: %s: %s", reason, error, exc_info=error)


def _unknown_prompt(request: Any) -> str:
    """Return why the tokens of *request* are not what its positions are of; empty where they are."""
    if not request.prompt_token_ids or request.prompt_embeds is not None:  # part of the prompt has no tokens
        return "prompt_embeds"
    return "resumable" if request.resumable else ""  # the prompt goes on in later requests: its positions are not these


def _trace(traceparent: str) -> tuple[str, str]:
    """Return (trace id, parent span id) of a W3C ``traceparent``; empty where it is none."""
    parts = traceparent.split("-")
    if len(parts) < _TRACE_PARTS or len(parts[1]) != 32 or len(parts[2]) != 16:  # noqa: PLR2004 - W3C Trace Context
        return "", ""
    return parts[1], parts[2]


def _encoder_spans(features: list[Any]) -> list[Span]:
    """Return what an encoder's input consists of, in its order; nothing where a part of it is of no kind that we know.

    Source: vLLM 0.32 ``GPUModelRunner._get_encoder_seq_lens`` adds the lengths of all features up in the same way.
    """
    spans: list[Span] = []
    for feature in features:
        kind, start = _MEDIA.get(feature.modality), spans[-1].end if spans else 0
        if kind is None or feature.mm_position.length < 1:
            return []
        spans.append(Span(kind, start, start + feature.mm_position.length))
    return spans


def _media(features: list[Any], prompt_tokens: int) -> list[Span]:
    """Return the placeholders of images and sounds (vLLM ``MultiModalFeatureSpec.mm_position``) as spans."""
    spans = []
    for feature in features:
        kind = _MEDIA.get(feature.modality)
        start, length = feature.mm_position.offset, feature.mm_position.length
        if kind is not None and start >= 0 and start + length <= prompt_tokens:
            spans.append(Span(kind, start, start + length))
    return spans
