"""The hash that pins a head map to the weights it was made from.

It is what ``sha256sum *.safetensors | sha256sum`` prints in the model's folder (in the C locale), so anybody can check
it.  All bytes are read, about a second a gigabyte: a hash of headers and sizes would not change when a model is fine-tuned,
and that is when its heads may.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from headwatch.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path

PATTERNS = ("*.safetensors", "*.gguf", "*.bin")
"""Files of weights; the first pattern that matches counts."""


def weights_sha256(model: Path) -> str:
    """Return the hash of the weights in folder *model*.

    Raises:
        CommandError: The folder holds no weights, or they cannot be read.
    """
    files = next((found for pattern in PATTERNS if (found := sorted(model.glob(pattern), key=lambda path: path.name))), None)
    if not files:
        raise CommandError(f"{model} holds no weights ({', '.join(PATTERNS)})")
    digest = hashlib.sha256()
    try:
        for path in files:
            with path.open("rb") as stream:
                digest.update(f"{hashlib.file_digest(stream, 'sha256').hexdigest()}  {path.name}\n".encode())
    except OSError as error:
        raise CommandError(f"cannot read the weights in {model}: {error}") from error
    return digest.hexdigest()
