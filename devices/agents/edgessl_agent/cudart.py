"""The few calls of the CUDA runtime that an inference needs, through ctypes alone.

Names and constants are those of cuda_runtime_api.h, CUDA 11 to 13; ``cudaGetDeviceProperties`` has
its versioned name from 12 on, and in every version the name of the GPU is its first 256 bytes.
"""

from __future__ import annotations

import ctypes
from typing import Any

from .channel import Failed

LIBRARIES = (
    "libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0",
    "/usr/local/cuda/lib64/libcudart.so",
)  # fmt: skip
TO_DEVICE, TO_HOST = 1, 2
MAJOR, MINOR = 75, 76  # cudaDevAttrComputeCapability*
PROPERTIES_BYTES = 8192  # about 1 KiB today; room for what later versions add


class Cuda:
    """Device 0, with one stream."""

    def __init__(self) -> None:
        self._library = _load()
        self.stream = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(self.stream))

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            text = self._library.cudaGetErrorString
            text.restype = ctypes.c_char_p
            said = (text(status) or b"").decode("utf-8", "replace")
            raise Failed("CudaError", "%s: %s (%d)" % (name, said, status))

    def gpu(self) -> str:
        """Name and compute capability: ``Orin sm_87``."""
        properties = ctypes.create_string_buffer(PROPERTIES_BYTES)
        name = "cudaGetDeviceProperties_v2"
        if not hasattr(self._library, name):
            name = "cudaGetDeviceProperties"
        self._call(name, properties, 0)
        capability = []
        for attribute in (MAJOR, MINOR):
            value = ctypes.c_int()
            self._call("cudaDeviceGetAttribute", ctypes.byref(value), attribute, 0)
            capability.append(value.value)
        named = properties.raw[:256].split(b"\0")[0].decode("utf-8", "replace")
        return "%s sm_%d%d" % (named, capability[0], capability[1])

    def device_memory(self, n_bytes: int) -> int:
        """Allocate on the device and return the address."""
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(n_bytes))
        return address.value or 0

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an array in page-locked memory of the host: copies from it are not staged."""
        import numpy as np

        n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = ctypes.c_void_p()
        self._call("cudaMallocHost", ctypes.byref(address), ctypes.c_size_t(n_bytes))
        raw = (ctypes.c_char * n_bytes).from_address(address.value or 0)
        return np.frombuffer(memoryview(raw), dtype).reshape(shape)

    def copy(self, to: int, source: int, n_bytes: int, kind: int) -> None:
        """Copy and wait until it is done."""
        self._call(
            "cudaMemcpyAsync",
            ctypes.c_void_p(to),
            ctypes.c_void_p(source),
            ctypes.c_size_t(n_bytes),
            kind,
            self.stream,
        )
        self.wait()

    def wait(self) -> None:
        """Wait until the stream has done everything."""
        self._call("cudaStreamSynchronize", self.stream)


def _load() -> Any:
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise Failed("MissingRuntime", "the CUDA runtime (libcudart.so) was not found")
