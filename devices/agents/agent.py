"""The program that runs on the board: it tells what the board is, and times one model file.

    agent.py facts               one line of facts, standard library only
    agent.py bench --plan FILE   times what the plan says (numpy and one runtime)

Python 3.8 syntax; the plan is JSON. Answers are JSON lines ``{"k": kind, "t": seconds, ...}``:
hello, tel, facts, loaded, golden, first, warmup, lat, timed, acc, done, or error. A run without
``done`` failed. Times inside ``lat`` are nanoseconds in the order they were taken, one list per
part. ``bench`` ends when its standard input closes, so nothing outlives a lost connection.
"""

from __future__ import annotations

import argparse
import gc
import glob
import hashlib
import importlib
import importlib.util
import itertools
import json
import os
import platform
import sys
import threading
import time
import warnings
import zipfile
from typing import Any, Callable, Iterator

PROTO = 1
BROKEN = 1e30
START = time.perf_counter()
CPUFREQ = "/sys/devices/system/cpu/cpufreq/policy*"
# what a user installs, by the module that is imported; the first that is there is used
RUNTIMES = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "litert": ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"),
}
clock = time.perf_counter_ns


class Failed(Exception):
    """A failure with a type that the host knows."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Channel:
    """JSON lines on a private descriptor; native code that prints to 1 lands on 2."""

    def __init__(self) -> None:
        self._descriptor = os.dup(1)
        os.dup2(2, 1)

    def send(self, kind: str, fields: dict[str, Any]) -> None:
        """Write one line."""
        event = {"k": kind, "t": round(time.perf_counter() - START, 6)}
        event.update(fields)
        data = (json.dumps(event, separators=(",", ":")) + "\n").encode()
        while data:
            data = data[os.write(self._descriptor, data) :]


def exit_when_stdin_closes() -> None:
    """End the process at end of file on descriptor 0, whatever native code is doing."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# --- what the board can tell ---------------------------------------------------------------


def read(path: str) -> str:
    """Return a small text file without NUL and outer blanks; empty when unreadable."""
    try:
        with open(path, "rb") as stream:
            return stream.read(1 << 20).decode("utf-8", "replace").replace("\0", "").strip()
    except OSError:
        return ""


def number(path: str) -> float | None:
    """Return the number in a file, None when there is none."""
    try:
        return float(read(path))
    except ValueError:
        return None


def colon_table(path: str) -> dict[str, str]:
    """Read ``key : value`` lines; the first of equal keys counts."""
    table: dict[str, str] = {}
    for line in read(path).splitlines():
        key, _, value = line.partition(":")
        table.setdefault(key.strip(), value.strip())
    return table


def temperatures() -> dict[str, float]:
    """Degrees Celsius by thermal zone; unpowered sensors and the constant PMIC are left out."""
    found = {}
    for zone in sorted(glob.glob("/sys/class/thermal/thermal_zone*")):
        value, name = number(zone + "/temp"), read(zone + "/type") or "zone"
        if value is None or "pmic" in name.lower():
            continue
        celsius = value / 1000 if abs(value) >= 1000 else value
        if -40 < celsius < 150:
            found[name + zone.rsplit("zone", 1)[1]] = round(celsius, 1)
    return found


def clocks() -> dict[str, dict[str, Any]]:
    """Governor and MHz (now, min, max) by cpufreq policy."""
    found = {}
    for policy in sorted(glob.glob(CPUFREQ)):
        entry: dict[str, Any] = {"governor": read(policy + "/scaling_governor") or None}
        for name in ("cur", "min", "max"):
            khz = number("%s/scaling_%s_freq" % (policy, name))
            entry[name + "_mhz"] = None if khz is None else round(khz / 1000)
        found[os.path.basename(policy)] = entry
    return found


def memory_mb() -> dict[str, float]:
    """Total and available memory and swap, MiB."""
    table = colon_table("/proc/meminfo")
    names = ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")
    return {n: round(int(table[n].split()[0]) / 1024, 1) for n in names if n in table}


def status_mb(field: str) -> float | None:
    """Return VmRSS or VmHWM of this process, MiB (not ru_maxrss: that inherits the parent's)."""
    words = colon_table("/proc/self/status").get(field, "").split()
    return round(int(words[0]) / 1024, 2) if words else None


def busy_seconds() -> float | None:
    """CPU seconds that all processes, interrupts and the hypervisor have used since boot."""
    words = read("/proc/stat").split("\n", 1)[0].split()
    if len(words) < 9 or words[0] != "cpu":
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(w) for w in words[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def waiting_seconds() -> float | None:
    """Seconds that the threads of this process were ready but had no core."""
    found = [read(p).split() for p in glob.glob("/proc/self/task/*/schedstat")]
    waits = [int(words[1]) for words in found if len(words) == 3]
    return sum(waits) / 1e9 if waits else None


def swapped_pages() -> int | None:
    """Pages swapped in and out since boot."""
    table = dict(line.split() for line in read("/proc/vmstat").splitlines() if line)
    if "pswpin" not in table:
        return None
    return int(table["pswpin"]) + int(table["pswpout"])


def snapshot(phase: str) -> dict[str, Any]:
    """Read the few files that change during a run; counters are cumulative."""
    return {
        "phase": phase,
        "temp_c": temperatures(),
        "freq_mhz": {name: entry["cur_mhz"] for name, entry in clocks().items()},
        "load1": round(os.getloadavg()[0], 2),
        "busy_s": busy_seconds(),
        "own_s": time.process_time(),
        "wait_s": waiting_seconds(),
        "swap_pages": swapped_pages(),
        "rss_mb": status_mb("VmRSS"),
    }


def virtual_machine(cpu: dict[str, str]) -> str | None:
    """Name the hypervisor, where one shows."""
    maker = " ".join(read("/sys/class/dmi/id/" + n) for n in ("sys_vendor", "product_name"))
    for word in ("QEMU", "KVM", "VMware", "VirtualBox", "Xen", "Amazon EC2", "Google", "Virtual"):
        if word.lower() in maker.lower():
            return word
    named = read("/sys/hypervisor/type")
    return named or ("unnamed" if "hypervisor" in cpu.get("flags", "").split() else None)


def runtime_versions() -> dict[str, str]:
    """Versions of the runtimes installed here, found without importing them."""
    from importlib import metadata

    found = {}
    for package in ("onnxruntime", "onnxruntime-gpu", "openvino", "ai-edge-litert",
                    "tflite-runtime", "numpy"):  # fmt: skip
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def facts() -> dict[str, Any]:
    """Describe the board; what cannot be seen from here is named under ``not_observable``."""
    cpu, machine, now = colon_table("/proc/cpuinfo"), platform.machine(), snapshot("facts")
    model = cpu.get("model name") or cpu.get("Hardware") or cpu.get("Processor") or machine
    missing = {
        "temperature": not now["temp_c"],
        "clock frequency and governor": not now["freq_mhz"],
        "CPU time of other processes": now["busy_s"] is None,
        "waiting for a core": now["wait_s"] is None,
        "swap traffic": now["swap_pages"] is None,
        "power draw": True,
    }
    usable = getattr(os, "sched_getaffinity", None)
    release = dict(p.split("=", 1) for p in read("/etc/os-release").splitlines() if "=" in p)
    return {
        "board": read("/proc/device-tree/model") or None,
        "product": read("/sys/class/dmi/id/product_name") or None,
        "cpu": model,
        "machine": machine,
        "cores": os.cpu_count(),
        "affinity": sorted(usable(0)) if usable else None,
        "policies": clocks(),
        "temp_c": now["temp_c"],
        "memory_mb": memory_mb(),
        "load": list(os.getloadavg()),
        "uptime_s": float((read("/proc/uptime") or "0").split()[0]),
        "os": release.get("PRETTY_NAME", platform.system()).strip('"'),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "virtual_machine": virtual_machine(cpu),
        # a PC's cpuinfo under an ARM machine name: user-mode emulation
        "emulated": machine.startswith(("arm", "aarch")) and "vendor_id" in cpu,
        "power_supplies": {
            os.path.basename(p): read(p + "/status") or "online " + read(p + "/online")
            for p in sorted(glob.glob("/sys/class/power_supply/*"))
        },
        "runtimes": runtime_versions(),
        "host_hash": hashlib.sha256(platform.node().encode()).hexdigest()[:6],
        "not_observable": [name for name, absent in missing.items() if absent],
    }


# --- runtimes: one image in, logits out, and the nanoseconds of each part they separate --------


class OnnxRuntime:
    """ONNX Runtime; its copies are inside ``run`` and cannot be separated on a CPU."""

    def __init__(self, ort: Any, plan: dict[str, Any]) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = plan["threads"]
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        with warnings.catch_warnings():  # an absent provider is reported through the proof
            warnings.simplefilter("ignore")
            self._session = ort.InferenceSession(
                plan["model"], options, providers=[plan["provider"]]
            )
        entry = self._session.get_inputs()[0]
        self.name, self.shape = entry.name, list(entry.shape)
        self.dtype = entry.type.replace("tensor(", "").replace(")", "").replace("float", "float32")
        self.proof = {
            "providers": self._session.get_providers(),
            "precision": None,
            "threads": self._session.get_session_options().intra_op_num_threads,
        }

    def run(self, x: Any) -> tuple[Any, dict[str, int]]:
        """Return logits (1, C) and nanoseconds by part."""
        begin = clock()
        y = self._session.run(None, {self.name: x})[0]
        return y, {"infer": clock() - begin}


class OpenVino:
    """OpenVINO with one stream; on x86 it would choose bfloat16 if it were not told f32."""

    def __init__(self, openvino: Any, plan: dict[str, Any]) -> None:
        core = openvino.Core()
        model = core.read_model(plan["model"])
        model.reshape(plan["input"]["shape"])
        config = {"INFERENCE_PRECISION_HINT": plan["precision"], "PERFORMANCE_HINT": "LATENCY"}
        if plan["provider"] == "CPU":
            config.update({"INFERENCE_NUM_THREADS": plan["threads"], "NUM_STREAMS": 1})
        compiled = core.compile_model(model, plan["provider"], config)
        self._request = compiled.create_infer_request()
        self._input = self._request.get_input_tensor()
        port = compiled.input(0)
        self.name = next(iter(port.get_names()), "")
        self.shape, self.dtype = list(port.get_shape()), str(self._input.data.dtype)
        threads = (
            compiled.get_property("INFERENCE_NUM_THREADS") if "NUM_STREAMS" in config else None
        )
        self.proof = {
            "providers": list(compiled.get_property("EXECUTION_DEVICES")),
            "precision": compiled.get_property("INFERENCE_PRECISION_HINT").to_string(),
            "threads": threads,
        }

    def run(self, x: Any) -> tuple[Any, dict[str, int]]:
        """Return logits (1, C) and nanoseconds by part."""
        begin = clock()
        self._input.data[:] = x
        copied = clock()
        self._request.infer()
        inferred = clock()
        y = self._request.get_output_tensor().data.copy()
        end = clock()
        return y, {
            "copy_in": copied - begin,
            "infer": inferred - copied,
            "copy_out": end - inferred,
        }


class LiteRt:
    """LiteRT (or tflite-runtime); its CPU path is the XNNPACK delegate."""

    def __init__(self, module: Any, plan: dict[str, Any]) -> None:
        extra = {}
        if plan["provider"] == "builtin":
            kind = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            extra["experimental_op_resolver_type"] = kind
        self._net = module.Interpreter(plan["model"], num_threads=plan["threads"], **extra)
        self._net.allocate_tensors()
        entry, self._out = self._net.get_input_details()[0], self._net.get_output_details()[0]
        self._in = entry["index"]
        self.name, self.shape = entry["name"], [int(n) for n in entry["shape"]]
        self.dtype = entry["dtype"].__name__
        # the only trace that a delegate took the graph; not in every version of the package
        details = getattr(self._net, "_get_ops_details", None)
        providers = None
        if details is not None:
            delegated = any(op["op_name"] == "DELEGATE" for op in details())
            providers = ["XNNPACK"] if delegated else ["builtin"]
        self.proof = {"providers": providers, "precision": None, "threads": plan["threads"]}

    def run(self, x: Any) -> tuple[Any, dict[str, int]]:
        """Return logits (1, C) and nanoseconds by part."""
        begin = clock()
        self._net.set_tensor(self._in, x)
        copied = clock()
        self._net.invoke()
        inferred = clock()
        y = self._net.get_tensor(self._out["index"])
        end = clock()
        return y, {
            "copy_in": copied - begin,
            "infer": inferred - copied,
            "copy_out": end - inferred,
        }


OPENERS = {"onnxruntime": OnnxRuntime, "openvino": OpenVino, "litert": LiteRt}


def import_runtime(name: str) -> tuple[Any, str]:
    """Import the runtime and return it with ``package version``."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # never phones home
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # nor does ONNX Runtime, which does from 1.29 on
    for module in RUNTIMES[name]:
        top = module.split(".")[0]
        if importlib.util.find_spec(top) is None:
            continue
        package = top.replace("_", "-")
        versions = runtime_versions()
        version = versions.get(package) or versions.get(package + "-gpu", "of unknown version")
        return importlib.import_module(module), "%s %s" % (package, version)
    raise Failed("MissingRuntime", "no package for the runtime '%s' is installed" % name)


# --- pixels and answers ------------------------------------------------------------------------


def make_preprocess(spec: dict[str, Any]) -> Callable[[Any], Any]:
    """Return uint8 (H, W, 3) -> (1, ...) in the layout and dtype of the input contract."""
    import numpy as np

    low, high = spec["value_range"]
    scale, shift = np.float32((high - low) / 255), np.float32(low)
    mean, std = np.asarray(spec["mean"], np.float32), np.asarray(spec["std"], np.float32)
    channels_first = spec["layout"] == "NCHW"
    integers: dict[str, Any] = spec.get("quantized") or {}

    def laid_out(x: Any) -> Any:
        return np.ascontiguousarray(x.transpose(2, 0, 1) if channels_first else x)[None]

    def preprocess(image: Any) -> Any:
        return laid_out((image.astype(np.float32) * scale + shift - mean) / std)

    def to_integers(image: Any) -> Any:
        kind = np.iinfo(spec["dtype"])
        real = preprocess(image) / np.float32(integers["scale"])
        return (np.rint(real) + integers["zero_point"]).clip(kind.min, kind.max).astype(kind.dtype)

    if integers:
        return to_integers
    # a file of integers without a scale takes the pixels as they are
    return preprocess if spec["dtype"] == "float32" else laid_out


def make_logits(spec: dict[str, Any] | None) -> Callable[[Any], Any]:
    """Return what a file gives (1, C) -> float32 logits (1, C)."""
    import numpy as np

    integers = (spec or {}).get("quantized")
    if not integers:
        return lambda y: y
    scale, zero = np.float32(integers["scale"]), np.float32(integers["zero_point"])
    return lambda y: (y.astype(np.float32) - zero) * scale


def make_postprocess() -> Callable[[Any], tuple[Any, int]]:
    """Return logits (1, C) -> (probabilities (C,), index of the answer)."""
    import numpy as np

    def postprocess(logits: Any) -> tuple[Any, int]:
        shifted = np.exp(logits[0] - logits[0].max())
        probabilities = shifted / shifted.sum()
        # of the logits: float32 probabilities tie where logits do not
        return probabilities, int(logits[0].argmax())

    return postprocess


def rows(path: str, name: str) -> Iterator[Any]:
    """Yield the rows of one array of an ``.npz``, one at a time: a board's memory is small."""
    import numpy as np

    with zipfile.ZipFile(path) as archive, archive.open(name + ".npy") as stream:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
        if header is None:
            raise Failed("PackInvalid", "%s in the pack has npy version %s" % (name, version))
        shape, fortran, dtype = header(stream)
        if fortran or dtype.hasobject:
            raise Failed("PackInvalid", "%s in the pack is not a plain array" % name)
        size = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        for _ in range(shape[0]):
            yield np.frombuffer(stream.read(size), dtype).reshape(shape[1:])


def compare(got: Any, want: Any, scale: float | None = None) -> dict[str, Any]:
    """Compare logits (N, C): largest error, lowest cosine, share of equal answers.

    The error is divided by ``scale``, by default the largest absolute wanted logit; what is not
    finite or has another shape counts as BROKEN, which no tolerance admits.
    """
    import numpy as np

    if got.shape != want.shape:
        return {"max_abs": BROKEN, "cosine": 0.0, "agreement": 0.0, "shape": list(got.shape)}
    agreement = float((got.argmax(1) == want.argmax(1)).mean())
    if not (np.isfinite(got).all() and np.isfinite(want).all()):
        return {"max_abs": BROKEN, "cosine": 0.0, "agreement": agreement}
    got, want = got.astype(np.float64), want.astype(np.float64)
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
    return {
        "max_abs": float(np.abs(got - want).max()) / (scale or float(np.abs(want).max()) or 1.0),
        "cosine": float(((got * want).sum(1) / np.maximum(lengths, 1e-30)).min()),
        "agreement": agreement,
    }


# --- the bench ----------------------------------------------------------------------------------


class Bench:
    """One model in one process: load, prove, warm up, time, score."""

    def __init__(self, channel: Channel, plan: dict[str, Any]) -> None:
        self.channel, self.plan, self.timing = channel, plan, plan["timing"]
        self.preprocess = make_preprocess(plan["input"])
        self.postprocess, self.logits = make_postprocess(), make_logits(plan.get("output"))

    def run(self, module: Any) -> None:
        """Walk the phases; a wrong model is reported and never timed."""
        self.channel.send("facts", facts())
        self.cool_down()
        self.tell("before")
        before_mb = status_mb("VmRSS")
        self.load(module)
        if self.prove(before_mb):
            wanted = set(self.plan["rotation"])
            first_part = itertools.islice(rows(self.plan["pack"], "images"), max(wanted) + 1)
            images = [image for index, image in enumerate(first_part) if index in wanted]
            self.warm_up(images)
            self.time(images)
            if self.plan["score"]:
                self.score()
        self.tell("after")
        self.channel.send("done", {"max_rss_mb": status_mb("VmHWM")})

    def tell(self, phase: str) -> None:
        """Send one telemetry line."""
        self.channel.send("tel", snapshot(phase))

    def cool_down(self) -> None:
        """Wait until the hottest zone is down to what the plan asks, or its cap is reached."""
        target, begin = self.timing["cool_to_c"], time.monotonic()
        while target is not None and time.monotonic() - begin < self.timing["cooldown_cap_s"]:
            hottest = max(temperatures().values(), default=None)
            if hottest is None or hottest <= target:
                return
            self.tell("cooldown")
            time.sleep(1)

    def load(self, module: Any) -> None:
        """Open the model and check that its input is the one of the contract."""
        begin = clock()
        self.model = OPENERS[self.plan["runtime"]](module, self.plan)
        load_ms = (clock() - begin) / 1e6
        want = self.plan["input"]
        fixed = [a == b for a, b in zip(self.model.shape, want["shape"]) if isinstance(a, int)]
        same_rank = len(self.model.shape) == len(want["shape"])
        if not (same_rank and all(fixed)) or self.model.dtype != want["dtype"]:
            seen = "%s %s" % (self.model.dtype, self.model.shape)
            text = "the file wants %s, its contract says %s %s"
            raise Failed("InputMismatch", text % (seen, want["dtype"], want["shape"]))
        spec = {"name": self.model.name, "shape": self.model.shape, "dtype": self.model.dtype}
        self.channel.send("loaded", dict(self.model.proof, load_ms=load_ms, input=spec))

    def prove(self, before_mb: float | None) -> bool:
        """Run the golden images; the very first inference is also the figure ``first``."""
        import numpy as np

        with np.load(self.plan["golden"], allow_pickle=False) as golden:
            images, expected, reference = (
                golden[name] for name in ("images", "expected", "reference")
            )
        begin_input = self.preprocess(images[0])
        begin = clock()
        self.model.run(begin_input)
        first_ms = (clock() - begin) / 1e6
        after_mb = status_mb("VmRSS")
        outputs = [self.model.run(self.preprocess(i))[0] for i in images]
        logits = np.concatenate([self.logits(y) for y in outputs])
        result: dict[str, Any] = {"n": len(images), "tolerance": self.plan["tolerance"]}
        for name, want in (("expected", expected), ("reference", reference)):
            result[name] = compare(logits, want)
        # written this way round so that NaN in a golden record fails too
        ok = all(result[n]["max_abs"] <= self.plan["tolerance"] for n in ("expected", "reference"))
        self.channel.send("golden", dict(result, ok=ok))
        if ok:
            grown = None
            if before_mb is not None and after_mb is not None:
                grown = after_mb - before_mb
            self.channel.send("first", {"ms": first_ms, "model_mb": grown})
        return ok

    def sample(self, image: Any) -> dict[str, int]:
        """Take one sample, uint8 to answer: nanoseconds by part."""
        begin = clock()
        x = self.preprocess(image)
        ready = clock()
        y, parts = self.model.run(x)
        answered = clock()
        self.postprocess(self.logits(y))
        end = clock()
        parts["preprocess"] = ready - begin
        parts["postprocess"] = end - answered
        parts["e2e_from_uint8"] = end - begin
        return parts

    def warm_up(self, images: list[Any]) -> None:
        """Run until the floors are met and, if asked, two windows in a row agree."""
        t, runs, settled = self.timing, 0, None
        begin = window_begin = told = time.monotonic()
        window: list[int] = []
        medians: list[float] = []
        while True:
            window.append(self.sample(images[runs % len(images)])["infer"])
            runs += 1
            now = time.monotonic()
            floors = runs >= t["warmup_runs"] and now - begin >= t["warmup_s"]
            if floors and not t["settle_window_s"]:
                break
            if now - begin >= t["warmup_cap_s"]:
                settled = False
                break
            if floors and now - window_begin >= t["settle_window_s"]:
                medians.append(sorted(window)[len(window) // 2])
                window, window_begin = [], now
                if len(medians) > 1 and abs(medians[-1] / medians[-2] - 1) < t["settle_within"]:
                    settled = True
                    break
            elif not floors:
                window, window_begin = [], now
            if now - told >= 1:
                told = now
                self.channel.send("warmup", {"runs": runs, "s": now - begin, "done": False})
        seconds = time.monotonic() - begin
        end = {"runs": runs, "s": seconds, "done": True, "settled": settled}
        self.channel.send("warmup", end)

    def time(self, images: list[Any]) -> None:
        """Take the samples; lines are written and sensors read between samples, never inside."""
        t, count, sent = self.timing, 0, 0
        at_us: list[int] = []
        parts: dict[str, list[int]] = {}
        gc.collect()
        gc.disable()  # as timeit does: a collection is not the model's time
        self.tell("start")
        begin = told = now = clock()
        while (count < t["timed_runs"] or now - begin < t["timed_s"] * 1e9) and (
            now - begin < t["timed_cap_s"] * 1e9
        ):
            at_us.append((now - begin) // 1000)
            for name, ns in self.sample(images[count % len(images)]).items():
                parts.setdefault(name, []).append(ns)
            count += 1
            now = clock()
            if now - told >= 1e9:
                self.channel.send("lat", {"first": sent, "at_us": at_us, "ns": parts})
                self.tell("during")
                sent, at_us, parts = count, [], {}
                told = now = clock()
        if at_us:
            self.channel.send("lat", {"first": sent, "at_us": at_us, "ns": parts})
        self.tell("end")
        gc.enable()
        ended = {"n": count, "s": (now - begin) / 1e9, "inputs": len(images)}
        self.channel.send("timed", ended)

    def score(self) -> None:
        """Answer the whole pack, in order."""
        import numpy as np

        path, first, told = self.plan["pack"], 0, time.monotonic()
        has_reference = self.plan["has_reference"]
        references = rows(path, "reference") if has_reference else None
        chunk: dict[str, list[Any]] = {}
        for index, image in enumerate(rows(path, "images")):
            y = self.logits(self.model.run(self.preprocess(image))[0])
            probabilities, answer = self.postprocess(y)
            order = np.argsort(-y[0], kind="stable")[:5]
            second = float(probabilities[order[1]]) if len(order) > 1 else 0.0
            line = {
                "predicted": answer,
                "top5": order.tolist(),
                "score": float(probabilities[answer]),
                "margin": float(probabilities[answer]) - second,
            }
            if references is not None:
                own = compare(y, next(references)[None], scale=1.0)
                line.update(agrees=own["agreement"] == 1, gap=own["max_abs"], cosine=own["cosine"])
            for name, value in line.items():
                chunk.setdefault(name, []).append(value)
            if time.monotonic() - told >= 1:
                self.channel.send("acc", {"first": first, "rows": chunk})
                first, chunk, told = index + 1, {}, time.monotonic()
        if chunk:
            self.channel.send("acc", {"first": first, "rows": chunk})


def main() -> int:
    """Run one command; 0 when it ended with its last line."""
    parser = argparse.ArgumentParser(description="EdgeSSL agent")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("facts", help="describe this board")
    commands.add_parser("bench", help="time a model").add_argument("--plan", required=True)
    arguments = parser.parse_args()
    channel = Channel()
    if arguments.command == "facts":
        channel.send("facts", facts())
        return 0
    exit_when_stdin_closes()
    try:
        with open(arguments.plan, encoding="utf-8") as stream:
            plan = json.load(stream)
        if plan["proto"] != PROTO:
            raise Failed("ProtocolMismatch", "plan %s, agent %s" % (plan["proto"], PROTO))
        if importlib.util.find_spec("numpy") is None:
            raise Failed("MissingRuntime", "numpy is not installed")
        module, runtime = import_runtime(plan["runtime"])
        versions = {"python": platform.python_version(), "numpy": runtime_versions()["numpy"]}
        channel.send("hello", dict(versions, proto=PROTO, runtime=runtime))
        Bench(channel, plan).run(module)
    except Failed as error:
        channel.send("error", {"type": error.kind, "msg": str(error)})
        return 1
    except Exception as error:  # the host shows type and text; there is nobody else to tell
        channel.send("error", {"type": type(error).__name__, "msg": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
