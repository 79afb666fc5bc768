"""PyTorch's elementwise functions on the CPU, kept from a race in the library that computes them."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1)
def resolve_vector_math() -> None:
    """Have oneMKL choose its kernels now, once per process, on this thread alone.

    It chooses at a function's first call. Where two threads of one operator make that call at once, one of them may
    compute its chunk with a coarse kernel, thousands of units in the last place off (pytorch/pytorch#188792, oneMKL
    before 2025.0): one export in some fifty had the upper half of its first image wrong by up to 1.5e-4 in PyTorch.
    """
    import torch

    one = torch.ones(1, device="cpu")
    for function in (torch.exp, torch.log, torch.sqrt, torch.tanh, torch.erf):
        function(one)
        function(one.double())
