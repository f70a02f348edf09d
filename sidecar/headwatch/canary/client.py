"""Sends canary prompts through the server's own OpenAI endpoint, as a user's request would go.

Chat completions, so that the server's chat template is in the loop; greedy, one token; a fresh ``cache_salt`` each time, so
that no block of the prefix cache is shared with anybody.  The request field marks it: capture summarises its last rows, the
rates of the prefix cache do not count it (:mod:`headwatch.capture.request.canaries`), and aggregation keeps it out of all
statistics.
Loopback by default, no proxies, no redirects, bounded answers.  The server's answer is not kept.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import httpx

from headwatch.addresses import is_loopback, mask_url
from headwatch.client import request_field
from headwatch.errors import CanaryError, ConfigError
from headwatch.secret_file import read_secret

if TYPE_CHECKING:
    from headwatch.canary.prompts import CanaryPrompt
    from headwatch.config import CanaryConfig

ROUTE = "headwatch.canary"
MAX_ANSWER_BYTES = 1 << 20
UNREACHABLE = "unreachable"
TIMED_OUT = "timed_out"
_OK = 200
_SHOWN = 200


class CanaryClient:
    """One server.  A context manager: leaving it closes the connection."""

    def __init__(self, config: CanaryConfig) -> None:
        """Prepare; nothing is sent yet.

        Raises:
            ConfigError: There is no endpoint, it leaves loopback without leave, or the key's file cannot be used.
        """
        self._url = config.endpoint.rstrip("/")
        if not self._url:
            raise ConfigError("canary.endpoint is empty: name the OpenAI server that canaries are sent to")
        parts = urlsplit(self._url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(f"canary.endpoint {mask_url(self._url)!r} is no http:// or https:// address")
        if not config.allow_remote and not is_loopback(parts.hostname):
            raise ConfigError(f"canary.endpoint {mask_url(self._url)!r} leaves loopback; set canary.allow_remote = true if the "
                              "network between may carry the canary prompts")
        headers = {}
        if config.api_key_file:
            key = read_secret("canary.api_key_file", config.api_key_file).decode("latin-1")
            headers["Authorization"] = f"Bearer {key}"
        self._model = config.model
        self._http = httpx.Client(headers=headers, timeout=config.timeout_seconds, trust_env=False, follow_redirects=False)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def model(self) -> str:
        """Return the model that is asked: the configured one, or the first that the server lists.

        Raises:
            CanaryError: The server does not answer, or lists none.
        """
        if self._model:
            return self._model
        answer = self._call("GET", "/v1/models", None)
        try:
            name = answer["data"][0]["id"]
        except (KeyError, IndexError, TypeError) as error:
            raise CanaryError("refused", f"{mask_url(self._url)}/v1/models lists no model") from error
        return str(name)

    def send(self, prompt: CanaryPrompt, model: str) -> str:
        """Send *prompt* once and return the id under which the server served it.

        Raises:
            CanaryError: ``unreachable``, ``timed_out`` or ``refused``.
        """
        answer = self._ask(prompt, model, 1, captured=True)
        if not isinstance(answer, dict) or not isinstance(answer.get("id"), str):
            raise CanaryError("refused", f"{mask_url(self._url)} answered without a request id")
        return str(answer["id"])

    def fill(self, prompt: CanaryPrompt, model: str, tokens: int) -> None:
        """Send *prompt*, which is not captured, and have *tokens* generated: company for a canary.

        Raises:
            CanaryError: ``unreachable``, ``timed_out`` or ``refused``.
        """
        self._ask(prompt, model, tokens, captured=False)

    def _ask(self, prompt: CanaryPrompt, model: str, tokens: int, *, captured: bool) -> Any:
        documents = [{"id": item.id, "text": item.text} for item in prompt.documents]
        body = {
            "model": model,
            "messages": [{"role": message.role, "content": message.content} for message in prompt.messages],
            "max_tokens": tokens,
            "temperature": 0,
            "stream": False,
            "cache_salt": secrets.token_hex(16),
            "vllm_xargs": request_field(
                canary=prompt.name, capture="full" if captured else False, route=ROUTE, documents=documents
            ),
        }
        return self._call("POST", "/v1/chat/completions", body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        where = f"{mask_url(self._url)}{path}"
        try:
            with self._http.stream(method, self._url + path, json=body) as response:
                content = bytearray()
                for piece in response.iter_bytes():
                    content += piece
                    if len(content) > MAX_ANSWER_BYTES:
                        raise CanaryError("refused", f"{where}: an answer of more than {MAX_ANSWER_BYTES} bytes")
                if response.status_code != _OK:
                    said = content[:_SHOWN].decode("utf-8", "replace")
                    raise CanaryError("refused", f"{where}: status {response.status_code}: {said}")
            return httpx.Response(_OK, content=bytes(content)).json()
        except httpx.ConnectTimeout as error:  # a firewall that drops what is sent: nobody answered there
            raise CanaryError(UNREACHABLE, f"{where}: no connection in time: {type(error).__name__}") from error
        except httpx.TimeoutException as error:
            raise CanaryError(TIMED_OUT, f"{where}: no answer in time: {type(error).__name__}") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise CanaryError(UNREACHABLE, f"{where}: {type(error).__name__}: {error}") from error
        except ValueError as error:
            raise CanaryError("refused", f"{where}: the answer is no JSON") from error
