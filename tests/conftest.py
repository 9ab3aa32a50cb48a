"""Under EDGESSL_TEST_NO_SKIPS=1 a skipped test fails the run: CI has everything installed."""

import os

import pytest

# ONNX Runtime has sent telemetry since 1.29; tests that import it on their own are part of us
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
_skipped: list[str] = []


def _note(report: pytest.CollectReport | pytest.TestReport) -> None:
    # an expected failure is reported as skipped too, with a "wasxfail" of its own
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        _skipped.append(f"{report.nodeid}: {reason}")


if os.environ.get("EDGESSL_TEST_NO_SKIPS") == "1":
    pytest_collectreport = pytest_runtest_logreport = _note


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _skipped:
        terminalreporter.section("skipped, which EDGESSL_TEST_NO_SKIPS=1 forbids", red=True)
        for line in _skipped:
            terminalreporter.line(line)
