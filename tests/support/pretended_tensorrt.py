"""A stand-in for TensorRT and the CUDA runtime: it keeps to their order of calls, or it raises.

Copied onto a board as ``tensorrt.py``. Its engine is the ONNX file itself, run by ONNX Runtime on
this machine; "device memory" is ordinary memory. ``PRETENDED_TENSORRT`` gives the version, and
what is absent from that version is absent here (from NVIDIA's migration guides and API pages of
8.4, 10.x and 11.x). Every call is written to the file ``PRETENDED_LOG``.
"""

import ctypes
import os

import numpy as np
import onnxruntime

__version__ = os.environ["PRETENDED_TENSORRT"]
VERSION = tuple(int(part) for part in __version__.split("."))
NAMED, ELEVEN = VERSION >= (8, 5), VERSION[0] >= 11
HALF = os.environ.get("PRETENDED_HALF") == "1"
QUANTISED = os.environ.get("PRETENDED_QUANTISED") == "1"


def log(*words):
    with open(os.environ["PRETENDED_LOG"], "a") as stream:
        print(*words, file=stream)


class float32:
    pass


class float16:
    pass


class int8:
    pass


class int32:
    pass


class Logger:
    WARNING, made = 2, 0

    def __init__(self, level):
        Logger.made += 1
        assert Logger.made == 1  # the real one keeps a pointer to the first


class BuilderFlag:
    TF32 = "TF32"


if not ELEVEN:
    BuilderFlag.FP16, BuilderFlag.INT8 = "FP16", "INT8"


class NetworkDefinitionCreationFlag:
    STRONGLY_TYPED = 1


if not ELEVEN:
    NetworkDefinitionCreationFlag.EXPLICIT_BATCH = 0
if VERSION[0] < 10:
    del NetworkDefinitionCreationFlag.STRONGLY_TYPED


class LayerType:
    QUANTIZE = "QUANTIZE"
    CONVOLUTION = "CONVOLUTION"


class Tensor:
    dtype = float16 if HALF else float32


class Layer:
    type = LayerType.QUANTIZE if QUANTISED else LayerType.CONVOLUTION
    num_outputs = 1

    def get_output(self, index):
        return Tensor


class Network:
    num_layers, onnx = 1, b""

    def get_layer(self, index):
        return Layer()


class OnnxParser:
    num_errors = 1

    def __init__(self, network, logger):
        self.network = network

    def parse(self, data):
        self.network.onnx = bytes(data)
        return not data.startswith(b"broken")

    def get_error(self, index):
        class Error:
            def desc(self):
                return "no importer for GridSample"

        return Error()


class TimingCache:
    def __init__(self, data):
        self.data = data

    def serialize(self):
        return self.data + b"t"


class Config:
    def create_timing_cache(self, data):
        log("timing cache", len(data))
        return TimingCache(bytes(data))

    def set_timing_cache(self, cache, ignore_mismatch):
        self.cache = cache

    def get_timing_cache(self):
        return self.cache

    def set_flag(self, flag):
        log("set", flag)

    def clear_flag(self, flag):
        log("clear", flag)


class Builder:
    def __init__(self, logger):
        pass

    def create_network(self, flags):
        log("network", flags)
        return Network()

    def create_builder_config(self):
        return Config()

    def build_serialized_network(self, network, config):
        log("build")
        return None if os.environ.get("PRETENDED_FAILS") else network.onnx


class TensorIOMode:
    INPUT, OUTPUT = "INPUT", "OUTPUT"


class Engine:
    def __init__(self, data):
        self.session = onnxruntime.InferenceSession(data)
        self.ends = [self.session.get_inputs()[0], self.session.get_outputs()[0]]
        if NAMED:
            self.num_io_tensors = 2
            self.get_tensor_name = lambda i: self.ends[i].name
            self.get_tensor_shape = lambda n: self._end(n).shape
            self.get_tensor_dtype = lambda n: float32
            self.get_tensor_mode = lambda n: "INPUT" if n == self.ends[0].name else "OUTPUT"
        else:
            self.num_bindings = 2
            self.get_binding_name = lambda i: self.ends[i].name
            self.get_binding_shape = lambda i: self.ends[i].shape
            self.get_binding_dtype = lambda i: float32
            self.binding_is_input = lambda i: i == 0

    def _end(self, name):
        return next(e for e in self.ends if e.name == name)

    def create_execution_context(self):
        return Context(self)


class Context:
    profiler = None

    def __init__(self, engine):
        self.engine, self.addresses = engine, {}
        if NAMED:
            self.set_tensor_address = self.addresses.__setitem__
            self.execute_async_v3 = lambda stream: self._run("execute_async_v3", stream)
        else:
            self.execute_async_v2 = lambda bindings, stream: self._run(
                "execute_async_v2", stream, bindings
            )

    def execute_v2(self, bindings):
        return self._run("execute_v2", STREAM, bindings)

    def _run(self, name, stream, bindings=None):
        log(name)
        assert stream == STREAM
        source, result = bindings or [self.addresses[e.name] for e in self.engine.ends]
        assert MEMORY[source] == MEMORY[result] == "device"
        entry = self.engine.ends[0]
        x = np.ctypeslib.as_array((ctypes.c_float * int(np.prod(entry.shape))).from_address(source))
        y = self.engine.session.run(None, {entry.name: x.reshape(entry.shape)})[0]
        ctypes.memmove(result, y.ctypes.data, y.nbytes)
        if self.profiler is not None:
            self.profiler.report_layer_time("conv + relu", 0.25)
            self.profiler.report_layer_time("fc", 0.75)
        return True


class IProfiler:
    def __init__(self):
        self.made = True


class Runtime:
    def __init__(self, logger):
        pass

    def deserialize_cuda_engine(self, data):
        log("deserialize")
        return Engine(data)


STREAM = 4711
MEMORY = {}
KEPT = []


class Cudart:
    """Host and device pointers must not be mixed up, and nothing is used before it is there."""

    def cudaStreamCreate(self, stream):
        stream._obj.value = STREAM
        return 0

    def _allocate(self, pointer, size, kind):
        KEPT.append(ctypes.create_string_buffer(size.value))
        pointer._obj.value = ctypes.addressof(KEPT[-1])
        MEMORY[pointer._obj.value] = kind
        return 0

    def cudaMalloc(self, pointer, size):
        return self._allocate(pointer, size, "device")

    def cudaMallocHost(self, pointer, size):
        return self._allocate(pointer, size, "host")

    def cudaMemcpyAsync(self, to, source, size, kind, stream):
        assert stream.value == STREAM
        ways = {1: ("device", "host"), 2: ("host", "device")}
        assert (MEMORY[to.value], MEMORY[source.value]) == ways[kind]
        log("copy in" if kind == 1 else "copy out", size.value)
        ctypes.memmove(to.value, source.value, size.value)
        return 0

    def cudaStreamSynchronize(self, stream):
        log("wait")
        return int(os.environ.get("PRETENDED_CUDA_FAILS", "0"))

    def cudaGetDeviceProperties_v2(self, buffer, device):
        name = os.environ.get("PRETENDED_GPU", "Orin").encode()
        ctypes.memmove(buffer, name + b"\0", len(name) + 1)
        return 0

    def cudaDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = {75: 8, 76: 7}[attribute]
        return 0

    class cudaGetErrorString:
        def __new__(cls, status):
            return b"an illegal memory access was encountered"


_real = ctypes.CDLL


def _open(name, *arguments, **choices):
    if name and "cudart" in str(name):
        return Cudart()
    return _real(name, *arguments, **choices)


ctypes.CDLL = _open
