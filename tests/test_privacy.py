"""Nothing is sent anywhere: every command with the network off, outside CI, telemetry opted in.

Every test that calls ``command_line.edgessl`` holds its command to this too, ``test_chain`` the
whole quickstart among them; here are the proof that an attempt is seen, and the commands alone.
"""

import subprocess
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec

import pytest
from command_line import ENVIRONMENT, edgessl, processes


def python(code, tmp_path):
    """Run code in a process whose attempts go to a record of its own."""
    tmp_path.mkdir(exist_ok=True)
    record = tmp_path / "network.txt"
    environment = ENVIRONMENT | {"EDGESSL_TEST_NETWORK": str(record), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100
    )
    lines = record.read_text().splitlines()
    return done, [line for line in lines if not line.startswith("started\t")]


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('192.0.2.1', 80))",
        "import urllib.request; urllib.request.urlopen('http://example.invalid/')",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
        "import os, socket\nif os.fork() == 0: socket.getaddrinfo('example.invalid', 1)\n"
        "raise SystemExit(os.wait()[1] and 1)",
    ],
    ids=["connect", "urllib", "datagram", "fork"],
)
def test_an_attempt_is_refused_and_noted(tmp_path, code):
    done, attempts = python(code, tmp_path)
    assert done.returncode != 0
    assert len(attempts) == 1, attempts


def test_the_loopback_is_left_alone(tmp_path):
    code = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); "
        "socket.create_connection(s.getsockname()); a, b = socket.socketpair(); a.sendall(b'x')"
    )
    done, attempts = python(code, tmp_path)
    assert (done.returncode, attempts) == (0, []), done.stderr


@pytest.mark.export
def test_importing_openvino_as_it_comes_would_phone_home(tmp_path):
    """What our processes are kept from; so a silent record is not a deaf one."""
    for package in ("openvino", "openvino_telemetry"):
        # not what sys.modules says: in this process it may be blocked by now
        if PathFinder.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    wait = "import multiprocessing\nfor p in multiprocessing.active_children(): p.join(20)"
    _, attempts = python(f"import openvino\n{wait}", tmp_path)
    assert any("google" in line for line in attempts), attempts
    blocked = "import sys; sys.modules['openvino_telemetry'] = None\n"
    _, attempts = python(f"{blocked}import openvino\n{wait}", tmp_path / "other")
    assert attempts == []


def test_commands_that_tell_send_nothing(tmp_path):
    edgessl("list", cwd=tmp_path)
    edgessl("schema", "recipe", cwd=tmp_path)
    edgessl("cost", "--images", "1000", cwd=tmp_path)
    edgessl("init", "--labels", "digits", cwd=tmp_path)
    edgessl("runs", cwd=tmp_path)


@pytest.mark.slow
def test_doctor_imports_everything_and_sends_nothing(tmp_path):
    """TFLite's converter brings jax and a model hub along; openvino its telemetry."""
    edgessl("doctor", cwd=tmp_path)
    if find_spec("litert_torch") is not None:
        edgessl("doctor", "--target", "tflite", cwd=tmp_path)
    assert any("edgessl.stages.imports" in line for line in processes())
