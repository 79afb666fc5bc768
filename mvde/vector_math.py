"""Workaround for a race in the vector math library behind PyTorch's elementwise CPU functions."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1)
def resolve_vector_math() -> None:
    """Make oneMKL select its kernels now, once per process, on a single thread.

    oneMKL selects a kernel at a function's first call. If two threads of one operator make that call concurrently, one
    may use a low-accuracy kernel, thousands of ulps off (pytorch/pytorch#188792, oneMKL before 2025.0): in about one
    export in fifty, PyTorch's upper half of the first image was off by up to 1.5e-4.
    """
    import torch

    one = torch.ones(1, device="cpu")
    for function in (torch.exp, torch.log, torch.sqrt, torch.tanh, torch.erf):
        function(one)
        function(one.double())
