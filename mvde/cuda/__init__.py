"""The CUDA kernels of libmvde from Python: compiled by NVRTC, cached, and launched on the caller's stream.

Nothing here imports CUDA's packages before a kernel is compiled or launched.
"""
