"""Every method, on real images, through the whole chain: what it trains goes the same way.

The script benchmarks/method_matrix.py does the same at length and on more encoders.
"""

import runpy
from pathlib import Path

import pytest

from edgessl.methods import METHODS

pytestmark = [pytest.mark.slow, pytest.mark.chain]
# what it predicts gets harder while it learns: its loss stays where it is
MOVING_TARGET = {"byol"}
MATRIX = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "method_matrix.py"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Shared, so that the frozen teachers are one net, trained once."""
    return tmp_path_factory.mktemp("methods")


@pytest.mark.parametrize("name", tuple(METHODS))
def test_a_method_learns_from_digits_and_its_net_can_be_delivered(name, folder):
    row = MATRIX["chain"](name, "mobilenet_v1_short", folder, epochs=8)
    assert row["steps"] == 8 * 16
    if name in MOVING_TARGET:
        assert row["knn"]["after"] > row["knn"]["before"]
    else:
        assert row["loss"]["late"] < row["loss"]["early"]
    assert row["alarms"] == []
    assert row["equivalence"]["max_abs_features"] < 1e-5
    assert row["equivalence"]["same_answers"]
    assert row["parity"]["agreement"] == 1
    assert row["parity"]["pass"]
    # ten classes, few labels and a net of 20,000 weights; chance is 10 %
    assert row["top1"]["finetune top1"] > 0.3
