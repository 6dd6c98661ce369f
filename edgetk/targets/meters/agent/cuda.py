"""The few calls of the CUDA driver that running an engine takes, through ctypes. API: NVIDIA, CUDA Driver API.

Standard library only, Python 3.8.
"""

from __future__ import annotations

import ctypes
from typing import Any

_LIBRARY = "libcuda.so.1"
_NON_BLOCKING, _CAPTURE_RELAXED = 1, 2


class Cuda:
    """The first GPU with its primary context and one stream. Raises OSError where the driver is absent or refuses."""

    def __init__(self, library: Any = None) -> None:
        self._cuda = library if library is not None else ctypes.CDLL(_LIBRARY)
        self._call("cuInit", ctypes.c_uint(0))
        self._device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(self._device), ctypes.c_int(0))
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._call("cuCtxSetCurrent", context)
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(_NON_BLOCKING))
        self._stream = stream

    @property
    def stream(self) -> int:
        """The stream's handle, as TensorRT takes it."""
        return int(self._stream.value or 0)

    def name(self) -> str:
        """The product's name."""
        text = ctypes.create_string_buffer(96)
        self._call("cuDeviceGetName", text, ctypes.c_int(96), self._device)
        return text.value.decode("utf-8", "replace")

    def device_memory(self, size: int) -> int:
        """Address of new memory on the GPU; it is freed with the process."""
        pointer = ctypes.c_void_p()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(size, 1)))
        return int(pointer.value or 0)

    def host_memory(self, size: int) -> int:
        """Address of new page-locked memory of this machine; it is freed with the process."""
        pointer = ctypes.c_void_p()
        self._call("cuMemAllocHost_v2", ctypes.byref(pointer), ctypes.c_size_t(max(size, 1)))
        return int(pointer.value or 0)

    def to_device(self, device: int, host: int, size: int) -> None:
        """Copy, in the order of the stream."""
        self._call("cuMemcpyHtoDAsync_v2", ctypes.c_void_p(device), ctypes.c_void_p(host), ctypes.c_size_t(size), self._stream)

    def to_host(self, host: int, device: int, size: int) -> None:
        """Copy, in the order of the stream."""
        self._call("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(host), ctypes.c_void_p(device), ctypes.c_size_t(size), self._stream)

    def wait(self) -> None:
        """Until all work of the stream is done."""
        self._call("cuStreamSynchronize", self._stream)

    def begin_capture(self) -> None:
        """From now on work is written down instead of done."""
        self._call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(_CAPTURE_RELAXED))

    def end_capture(self) -> ctypes.c_void_p:
        """What was written down, as a graph that `launch` starts."""
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        return executable

    def launch(self, graph: ctypes.c_void_p) -> None:
        """Start a graph in the stream."""
        self._call("cuGraphLaunch", graph, self._stream)

    def _call(self, function: str, *arguments: Any) -> None:
        try:
            code = getattr(self._cuda, function)(*arguments)
        except AttributeError as error:
            raise OSError(f"this CUDA driver has no {function}") from error
        if code:
            raise OSError(f"CUDA: {function} answers with error {code}")
