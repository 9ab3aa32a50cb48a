"""TensorRT 8.4 to 11 through its Python package; memory and copies through the CUDA runtime.

Tensors have names from 8.5 on; 8.4 (JetPack 5.0) has numbered bindings. Copies between host and
device are timed apart from the inference, each waited for on the same stream.
"""

from __future__ import annotations

import time
from typing import Any

from .channel import Failed
from .cudart import TO_DEVICE, TO_HOST, Cuda
from .tensorrt_engine import engine_for, logger_of

clock = time.monotonic_ns


class TensorRt:
    """One engine with one execution context; see :mod:`.runtimes`."""

    def __init__(self, trt: Any, plan: dict[str, Any]) -> None:
        self._cuda = Cuda()
        built = plan["built"]  # by ``prepare``
        # the runtime must outlive the engine
        self._runtime = trt.Runtime(logger_of(trt))
        with open(built["path"], "rb") as stream:
            self._engine = self._runtime.deserialize_cuda_engine(stream.read())
        if self._engine is None:
            raise Failed("EngineFailed", "TensorRT refused its engine %s" % built["path"])
        self._context = self._engine.create_execution_context()
        inputs, outputs, self._named = _ends(trt, self._engine)
        (self.name, shape, self.dtype, first), (out_name, out_shape, out_dtype, _) = (
            inputs + outputs
        )
        self.shape = list(shape)
        self._in = self._cuda.pinned(shape, self.dtype)
        self._out = self._cuda.pinned(out_shape, out_dtype)
        self._device_in = self._cuda.device_memory(self._in.nbytes)
        self._device_out = self._cuda.device_memory(self._out.nbytes)
        # by number: the input is the first of the two in every file seen, but that is no promise
        self._bindings = [self._device_in, self._device_out][:: -1 if first else 1]
        if self._named:
            self._context.set_tensor_address(self.name, self._device_in)
            self._context.set_tensor_address(out_name, self._device_out)
        self.proof = {
            "providers": ["TensorRT"],
            "precision": built["computes"],
            "threads": plan["threads"],
            "gpu": built["gpu"],
        }
        self._layers = _layer_times(trt) if plan.get("profile") else None
        if self._layers is not None:
            self._context.profiler = self._layers

    @classmethod
    def prepare(cls, trt: Any, plan: dict[str, Any]) -> dict[str, Any]:
        """Build the engine, or find it built; from here on the plan knows it."""
        plan["built"] = engine_for(trt, Cuda().gpu(), plan)
        return {"built": plan["built"]}

    def run(self, x: Any) -> tuple[Any, dict[str, int]]:
        """Return logits (1, C) and nanoseconds by part."""
        cuda = self._cuda
        begin = clock()
        self._in[...] = x
        cuda.copy(self._device_in, self._in.ctypes.data, self._in.nbytes, TO_DEVICE)
        copied = clock()
        self._execute()
        inferred = clock()
        cuda.copy(self._out.ctypes.data, self._device_out, self._out.nbytes, TO_HOST)
        y = self._out.copy()
        end = clock()
        return y, {
            "copy_in": copied - begin,
            "infer": inferred - copied,
            "copy_out": end - inferred,
        }

    def _execute(self) -> None:
        context, stream = self._context, self._cuda.stream.value or 0
        if self._layers is not None:  # every version calls the profiler in this one
            done = context.execute_v2(self._bindings)
        elif self._named:
            done = context.execute_async_v3(stream)
        else:
            done = context.execute_async_v2(self._bindings, stream)
        self._cuda.wait()
        if not done:
            raise Failed("EngineFailed", "TensorRT did not run its engine")

    def layers(self) -> list[tuple[str, str, float]]:
        """Return (name, operator, microseconds) of every layer of every run so far."""
        return [] if self._layers is None else self._layers.rows


def _ends(trt: Any, engine: Any) -> tuple[list[Any], list[Any], bool]:
    """Return (name, shape, dtype, number) of inputs and outputs, and whether they are named."""
    # not trt.nptype: that of TensorRT 8 needs names that NumPy dropped in 1.24
    known = ("float32", "float16", "int32", "int8", "uint8")
    types = {getattr(trt, name): name for name in known if hasattr(trt, name)}
    inputs: list[Any] = []
    outputs: list[Any] = []
    named = hasattr(engine, "num_io_tensors")
    for index in range(engine.num_io_tensors if named else engine.num_bindings):
        if named:
            name = engine.get_tensor_name(index)
            shape, kind = engine.get_tensor_shape(name), engine.get_tensor_dtype(name)
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        else:
            name = engine.get_binding_name(index)
            shape, kind = engine.get_binding_shape(index), engine.get_binding_dtype(index)
            is_input = engine.binding_is_input(index)
        end = (name, tuple(int(n) for n in shape), types.get(kind, str(kind)), index)
        (inputs if is_input else outputs).append(end)
    if len(inputs) != 1 or len(outputs) != 1:
        text = "the engine has %d inputs and %d outputs, one of each is expected"
        raise Failed("InputMismatch", text % (len(inputs), len(outputs)))
    return inputs, outputs, named


def _layer_times(trt: Any) -> Any:
    """Return a profiler that keeps what TensorRT reports."""

    class Layers(trt.IProfiler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)  # NVIDIA asks for it by name
            self.rows: list[tuple[str, str, float]] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.rows.append((layer_name, "", ms * 1000))

    return Layers()
