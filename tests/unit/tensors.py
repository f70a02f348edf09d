"""Tensors held against each other."""

from __future__ import annotations

import numpy as np
import torch


def assert_close(found: torch.Tensor, expected: torch.Tensor, *, atol: float = 1e-5, rtol: float = 1.3e-6) -> None:
    """Do what ``torch.testing.assert_close`` does in float32; that one loads the distributed part of PyTorch, three seconds."""
    assert found.dtype == expected.dtype == torch.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), rtol, atol, equal_nan=False)
