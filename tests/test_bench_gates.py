"""What a bench ends with: 5 for wrong answers whatever is allowed, 6 for doubt unless allowed."""

import pytest

from edgessl.core.errors import worst_of
from edgessl.core.measurement import BenchResult
from edgessl.stages.bench import parity_problem, verdict_problems
from edgessl.stages.bench_words import energy_line, figure
from edgessl.stages.board_answers import Answer, compare_answers


def result(*verdicts, **changes):
    body = {
        "run": {}, "model": {}, "data": {}, "device": {}, "runtime": {}, "protocol": {},
        "latency_ms": {}, "verdicts": verdicts, "reasons": [f"{v}: because" for v in verdicts],
    }  # fmt: skip
    return BenchResult.model_validate(body | changes)


@pytest.mark.parametrize(
    ("verdicts", "allow", "codes"),
    [
        (("VALID",), False, []),
        (("BUSY",), False, [6]),
        (("EMULATED",), False, [6]),
        (("BUSY",), True, []),
        (("WRONG_ANSWERS",), False, [5]),
        (("WRONG_ANSWERS",), True, [5]),
    ],
)
def test_the_exit_code_follows_the_worst_verdict(verdicts, allow, codes):
    assert [e.exit_code for e in verdict_problems([result(*verdicts)], allow)] == codes


def test_wrong_answers_outrank_doubt():
    problems = verdict_problems([result("BUSY"), result("WRONG_ANSWERS"), result("VALID")], False)
    assert [e.exit_code for e in problems] == [5, 6]
    assert worst_of(problems).exit_code == 5
    assert "1 of 3 files give wrong answers" in worst_of(problems).message


def test_only_a_file_that_surely_answers_otherwise_fails_its_gate():
    here = [Answer(str(i), 0, 0) for i in range(400)]
    same = compare_answers(here, here, "int8", 0.01)
    assert parity_problem("net", same) is None
    there = [Answer(str(i), 0, int(i < 100)) for i in range(400)]
    error = parity_problem("net", compare_answers(there, here, "int8", 0.01))
    assert error.exit_code == 5
    assert "only 75.0 % of the answers" in error.message
    few = [Answer(str(i), 0, int(i < 1)) for i in range(12)]
    doubt = compare_answers(few, here[:12], "int8", 0.01)
    assert doubt.outcome == "INCONCLUSIVE"
    assert parity_problem("net", doubt) is None


def test_no_figure_is_said_where_none_was_taken():
    assert figure(result("WRONG_ANSWERS")) == "no figure  [WRONG_ANSWERS: because]"
    nothing = {"scope": None, "notes": ["not measurable here: no sensor"]}
    assert energy_line(nothing) == "energy: not measurable here: no sensor"
    taken = {
        "scope": "usb", "source": "meter.csv", "net_j": 0.012, "net_low": 0.011, "net_high": 0.013,
        "gross_j": 0.05, "hours_on_battery": 8.0, "battery_wh": 20.0, "notes": [],
    }  # fmt: skip
    assert energy_line(taken) == (
        "energy (usb, meter.csv): net 12.00 mJ per inference [11.00, 13.00], gross 50.00 mJ, "
        "8.0 h on 20 Wh"
    )
