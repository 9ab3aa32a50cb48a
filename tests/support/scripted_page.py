"""A page without a browser: it says what a test tells it to, also what no page would say."""

import http.client
import json
import secrets
import ssl
from urllib.parse import urlsplit

FACTS = {
    "k": "facts", "t": 0, "job": 0, "user_agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0",
    "platform": "Linux", "platform_version": "", "model": "", "brands": [["Chromium", "156.0.1"]],
    "cores": 2, "memory_gb": 8, "screen": [390, 844], "secure": True, "isolated": True,
    "wasm": True, "battery": None,
}  # fmt: skip


class ScriptedPage:
    """Talks to a server as the page does, from wherever a test calls it."""

    def __init__(self, url, client=None):
        self.where = urlsplit(url)
        self.client, self.number, self.job = client or secrets.token_hex(12), 0, 0

    def request(self, method, name, body=None, headers=None, path=None):
        """Return (status, headers, body) of one request on a connection of its own."""
        made = http.client.HTTPConnection
        more = {}
        if self.where.scheme == "https":
            made, more = http.client.HTTPSConnection, {"context": ssl._create_unverified_context()}
        connection = made(self.where.hostname, self.where.port, timeout=10, **more)
        try:
            connection.request(method, path or self.where.path + name, body, headers or {})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def post(self, body):
        """Post a body as it is."""
        return self.request("POST", "talk", body if isinstance(body, bytes) else body.encode())

    def talk(self, *events):
        """Say events of the order that stands, and return the order that then stands."""
        self.number += 1
        told = [{"job": self.job} | event for event in events]
        post = {"client": self.client, "number": self.number, "events": told}
        status, _, body = self.post(json.dumps(post))
        assert status == 200, body
        order = json.loads(body)["job"]
        if order:
            self.job = order["id"]
        return order


def tel(phase):
    return {"k": "tel", "t": 0.1, "phase": phase}


def healthy_run(images, classes, timed=40, threads=1):
    """Return what a page says about a good run; every image is answered with class 0."""
    same = {"max_abs": 0.0, "cosine": 1.0, "agreement": 1.0}
    five = list(range(min(classes, 5)))
    return [
        tel("before"),
        {"k": "loaded", "t": 1, "load_ms": 10.5, "providers": ["CPUExecutionProvider"],
         "precision": None, "threads": threads, "clock_step_us": 5,
         "input": {"name": "input", "shape": [1, 3, 8, 8], "dtype": "float32"}},
        {"k": "golden", "t": 1, "n": 16, "tolerance": 1e-3, "expected": same, "reference": same,
         "ok": True},
        {"k": "first", "t": 1, "ms": 2.5, "model_mb": None},
        {"k": "warmup", "t": 2, "runs": 10, "s": 1.5, "done": True, "settled": None},
        tel("start"),
        {"k": "lat", "t": 3, "first": 0, "at_us": [i * 5000 for i in range(timed)],
         "ns": {"infer": [4_000_000] * timed, "e2e_from_uint8": [4_500_000] * timed}},
        tel("end"),
        {"k": "timed", "t": 4, "n": timed, "s": timed / 200, "inputs": 64, "block": 1,
         "begin_ns": 1, "end_ns": 2, "late": 0},
        {"k": "acc", "t": 5, "first": 0, "rows": {
            "predicted": [0] * images, "top5": [five] * images, "score": [0.9] * images,
            "margin": [0.5] * images, "agrees": [True] * images, "gap": [0.0] * images,
            "cosine": [1.0] * images}},
        tel("after"),
        {"k": "done", "t": 6},
    ]  # fmt: skip
