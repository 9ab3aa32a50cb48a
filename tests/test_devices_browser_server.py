"""The server of the page: a secret address, headers, limits, one browser, hostile posts, HTTPS."""

import hashlib
import json
import socket
import ssl

import pytest
from scripted_page import ScriptedPage

from edgessl.devices.browser import certificate, line, server


@pytest.fixture
def served(tmp_path):
    (tmp_path / "secret.txt").write_text("not for you")
    (tmp_path / "big.bin").write_bytes(bytes(range(256)) * 10)
    made = server.PageServer("127.0.0.1")
    made.offer("index.html", b"<p>page")
    made.offer("run/runtime/x.mjs", b"1")
    made.offer("big.bin", tmp_path / "big.bin")
    yield made
    made.close()


def test_the_page_is_isolated_and_may_load_nothing_from_elsewhere(served):
    status, headers, body = ScriptedPage(served.url()).request("GET", "")
    assert (status, body) == (200, b"<p>page")
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert headers["Cache-Control"] == "no-store"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "unsafe-inline" not in policy
    _, headers, _ = ScriptedPage(served.url()).request("GET", "run/runtime/x.mjs")
    assert headers["Content-Type"].startswith("text/javascript")


@pytest.mark.parametrize(
    "path",
    ["/", "/index.html", "/wrong/", "/wrong/index.html", "/{token}x/index.html", "/{token}",
     "/{token}/../secret.txt", "/{token}/%2e%2e/secret.txt", "/{token}//etc/passwd",
     "/{token}/run/../big.bin", "/{token}/run", "/{token}/%00", "/" + "x" * 5000 + "/"],
)  # fmt: skip
def test_only_offered_names_below_the_secret_are_there(served, path):
    path = path.format(token=served.token)
    status, headers, body = ScriptedPage(served.url()).request("GET", "", path=path)
    assert status == 404
    assert b"not for you" not in body
    assert "Content-Security-Policy" in headers


def test_ranges_are_those_of_the_file_and_others_are_refused(served):
    page = ScriptedPage(served.url())
    status, headers, body = page.request("GET", "big.bin", headers={"Range": "bytes=250-259"})
    assert (status, body) == (206, bytes([250, 251, 252, 253, 254, 255, 0, 1, 2, 3]))
    assert headers["Content-Range"] == "bytes 250-259/2560"
    for wrong in ("bytes=5-2", "bytes=0-2560", "bytes=-5", "bytes=0-1,3-4", "x", "bytes=9" * 999):
        assert page.request("GET", "big.bin", headers={"Range": wrong})[0] == 416


HOSTILE = {
    "no JSON": b"\xff{",
    "a list": b"[]",
    "not a number": b'{"client":"%s","number":NaN,"events":[]}' % (b"a" * 24),
    "infinity in an event": b'{"client":"%s","number":1,"events":[{"k":"x","t":Infinity}]}'
    % (b"a" * 24),
    "deep": b"[" * 200_000,
    "a long number": b'{"number":' + b"9" * 100_000 + b"}",
    "a true number": json.dumps({"client": "a" * 24, "number": True, "events": []}).encode(),
    "no events": json.dumps({"client": "a" * 24, "number": 1, "events": {}}).encode(),
    "too many": json.dumps(
        {"client": "a" * 24, "number": 1, "events": [{"k": "x"}] * 5001}
    ).encode(),
    "no kinds": json.dumps({"client": "a" * 24, "number": 1, "events": [{"k": 1}]}).encode(),
    "a strange name": json.dumps({"client": "../../x", "number": 1, "events": []}).encode(),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_hostile_posts_are_refused_and_leave_no_trace(served, body):
    status, _, text = ScriptedPage(served.url()).post(body)
    assert status == 400
    assert len(text) < 500
    assert served.line.posts.empty()
    assert not served.line.connected


def test_posts_have_a_length_and_a_limit(served):
    page = ScriptedPage(served.url())
    for length, expected in (("99999999999", 413), ("-1", 411), ("1e3", 411), ("\u0663", 411)):
        with socket.create_connection(served.server_address[:2], timeout=10) as raw:
            head = f"POST {page.where.path}talk HTTP/1.1\r\nContent-Length: {length}\r\n\r\n"
            raw.sendall(head.encode())
            assert raw.recv(100).split()[1] == str(expected).encode()
    assert page.request("PUT", "talk", b"{}")[0] == 501
    assert page.request("POST", "index.html", b"{}")[0] == 404


def test_one_browser_at_a_time_and_a_repeated_post_counts_once(served):
    first, second = ScriptedPage(served.url()), ScriptedPage(served.url())
    first.talk({"k": "facts"})
    again = {"client": first.client, "number": 1, "events": [{"k": "facts"}]}
    assert first.post(json.dumps(again))[0] == 200  # its answer had been lost
    assert served.line.posts.qsize() == 1
    post = {"client": second.client, "number": 1, "events": [{"k": "facts"}]}
    assert second.post(json.dumps(post))[0] == 409
    first.talk({"k": "bye"})
    assert second.post(json.dumps(post))[0] == 200
    assert served.line.connected


def test_a_page_that_talks_while_nobody_listens_is_stopped(served):
    page = ScriptedPage(served.url())
    for _ in range(line.MAX_WAITING):
        page.talk({"k": "x"})
    post = {"client": page.client, "number": 10**6, "events": [{"k": "x"}]}
    assert page.post(json.dumps(post))[0] == 429


def test_silent_connections_do_not_keep_the_server_from_answering_or_closing(served):
    silent = [
        socket.create_connection(served.server_address[:2], timeout=10)
        for _ in range(server.MAX_CONNECTIONS - 2)
    ]
    assert ScriptedPage(served.url()).request("GET", "")[0] == 200
    port = served.server_port
    served.close()
    for connection in silent:
        assert connection.recv(1) == b""
        connection.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    served.close = lambda: None


@pytest.mark.parametrize("maker", ["openssl", "cryptography"])
def test_the_certificate_is_for_the_address_and_its_fingerprint_is_the_one_told(maker, monkeypatch):
    if maker == "cryptography":
        pytest.importorskip("cryptography", reason="makes the certificate")
        monkeypatch.setattr(certificate.shutil, "which", lambda name: None)
    elif certificate.shutil.which("openssl") is None:
        pytest.skip("tests/standins/browser installs openssl")
    made = certificate.make_certificate("127.0.0.1")
    https = server.PageServer("127.0.0.1", made)
    try:
        with socket.create_connection(https.server_address[:2], timeout=10):  # never says hello
            https.offer("index.html", b"<p>page")
            assert https.url().startswith("https://127.0.0.1:")
            assert ScriptedPage(https.url()).request("GET", "")[0] == 200
            pem = ssl.get_server_certificate(https.server_address[:2], timeout=10)
            digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
            assert made.fingerprint.replace(":", "").lower() == digest
            trusting = ssl.create_default_context(cadata=pem)
            with (
                socket.create_connection(https.server_address[:2], timeout=10) as raw,
                trusting.wrap_socket(raw, server_hostname="127.0.0.1") as secured,
            ):
                assert secured.version() in ("TLSv1.2", "TLSv1.3")
    finally:
        https.close()
