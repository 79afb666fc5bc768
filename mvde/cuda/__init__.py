"""libmvde's CUDA kernels: compiled with NVRTC, cached, and launched on the caller's stream.

CUDA's Python packages are imported only when a kernel is compiled or launched.
"""
