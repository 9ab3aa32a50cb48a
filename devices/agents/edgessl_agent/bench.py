"""One model in one process: load, prove, warm up, time, score; or profile its layers."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

from .answers import compare, rows
from .channel import Channel, Failed
from .facts import facts
from .meter import Meter
from .pixels import make_logits, make_postprocess, make_preprocess
from .probes import read_all
from .profile import profile
from .runtimes import OPENERS
from .telemetry import snapshot, status_mb, temperatures
from .timing import Schedule, take_samples, warm_up

clock = time.monotonic_ns
# programs take long: never between warm-up and the samples, where the clocks would drop
ENDS = ("before", "end", "after")


class Bench:
    """The phases of a plan, in their order."""

    def __init__(self, channel: Channel, plan: dict[str, Any], meter: Meter) -> None:
        self.channel, self.plan, self.timing, self.meter = channel, plan, plan["timing"], meter
        self.preprocess = make_preprocess(plan["input"])
        self.postprocess, self.logits = make_postprocess(), make_logits(plan.get("output"))

    def run(self, module: Any) -> None:
        """Walk the phases; a wrong model is reported and never timed."""
        self.channel.send("facts", facts(metered=bool(self.plan.get("meter"))))
        if not self.plan.get("profile"):
            self.cool_down()
        self.tell("before")
        before_mb = status_mb("VmRSS")
        self.idle("before")
        self.load(module)
        if self.prove(before_mb):
            wanted = set(self.plan["rotation"])
            first_part = itertools.islice(rows(self.plan["pack"], "images"), max(wanted) + 1)
            images = [image for index, image in enumerate(first_part) if index in wanted]
            if self.plan.get("profile"):
                inputs = [self.preprocess(image) for image in images]
                self.channel.send("layers", profile(self.model, inputs))
            else:
                self.measure(images)
        self.tell("after")
        self.channel.send("done", {"max_rss_mb": status_mb("VmHWM")})

    def measure(self, images: list[Any]) -> None:
        """Warm up, take the samples, and answer the pack."""
        schedule = Schedule(self.timing, self.plan.get("fps"))
        self.channel.send("warmup", warm_up(self.sample, images, schedule, self.channel.send))
        self.tell("start")
        self.meter.on()
        ended = take_samples(self.sample, images, schedule, self.channel.send, self.tell)
        self.meter.off()
        self.tell("end")
        self.channel.send("timed", ended)
        self.idle("after")
        self.meter.end()
        for readings in self.meter.events():
            self.channel.send("sensor", readings)
        if self.plan["score"]:
            self.score()

    def tell(self, phase: str) -> None:
        """Send one telemetry line with the probes of its phase."""
        asked = self.plan.get("probes", [])
        probes = [p for p in asked if p.get("when") == "second" or phase in ENDS]
        if phase == "start":  # counters as near to the samples as can be, on both sides
            texts = read_all(probes)
            line = snapshot(phase)
        else:
            line = snapshot(phase)
            texts = read_all(probes)
        # what watching costs is not other people's work
        helpers = sum(os.times()[2:4]) + self.meter.cpu_seconds()
        self.channel.send("tel", dict(line, helpers_s=helpers, probes=texts))

    def idle(self, which: str) -> None:
        """Do nothing for a while, so that the power of doing nothing is known."""
        seconds = self.plan.get("idle_s") or 0
        if not seconds:
            return
        self.meter.on()
        begin = clock()
        time.sleep(seconds)
        end = clock()
        self.meter.off()
        self.channel.send("idle", {"which": which, "begin_ns": begin, "end_ns": end})

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
        """Build what is built once, open the model, and check its input against the contract."""
        kind = OPENERS[self.plan["runtime"]]
        prepared = {}
        if hasattr(kind, "prepare"):
            self.channel.send("building", {"runtime": self.plan["runtime"]})
            prepared = kind.prepare(module, self.plan)
            if "built" in prepared:
                self.channel.send("built", prepared["built"])
        begin = clock()
        self.model = kind(module, self.plan)
        load_ms = (clock() - begin) / 1e6
        want = self.plan["input"]
        fixed = [a == b for a, b in zip(self.model.shape, want["shape"]) if isinstance(a, int)]
        same_rank = len(self.model.shape) == len(want["shape"])
        if not (same_rank and all(fixed)) or self.model.dtype != want["dtype"]:
            seen = "%s %s" % (self.model.dtype, self.model.shape)
            text = "the file wants %s, its contract says %s %s"
            raise Failed("InputMismatch", text % (seen, want["dtype"], want["shape"]))
        spec = {"name": self.model.name, "shape": self.model.shape, "dtype": self.model.dtype}
        line = {"placement": prepared.get("placement"), "load_ms": load_ms, "input": spec}
        self.channel.send("loaded", dict(line, **self.model.proof))

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
