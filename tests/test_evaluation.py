"""kNN and linear probe against scikit-learn and hand-made cases; answers from logits."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler, normalize

from edgessl.core.console import Reporter
from edgessl.data.labelled import Labelled
from edgessl.evaluation.answers import Answers, balanced_accuracy, top_k_accuracy
from edgessl.evaluation.finetune import Lessons, balanced_order, finetune
from edgessl.evaluation.knn import knn_predict
from edgessl.evaluation.linear import fit_probe, pixels
from edgessl.training.plan import Plan


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return x.astype(np.float32), y.astype(np.int64)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_knn_equals_scikit_learn_with_the_same_votes(digits, k):
    x, y = digits
    ours = knn_predict(x[:1000], y[:1000], x[1000:], classes=10, k=k, chunk=100)
    unit = normalize(x)

    def votes(distances):
        return np.exp((1 - distances) / 0.07)

    theirs = KNeighborsClassifier(k, metric="cosine", weights=votes, algorithm="brute")
    assert (ours == theirs.fit(unit[:1000], y[:1000]).predict(unit[1000:])).mean() > 0.998


def test_knn_votes_by_hand():
    bank = np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32)
    query = np.array([[1, 0.05], [0, 1]], np.float32)
    assert knn_predict(bank, np.array([0, 0, 1]), query, classes=2, k=3).tolist() == [0, 1]
    with pytest.raises(ValueError, match="bank of 3"):
        knn_predict(bank, np.array([0, 0, 1]), query, classes=2, k=4)


def test_the_probe_equals_scikit_learn_at_the_same_penalty(digits):
    x, y = digits
    probe = fit_probe((x[:600], y[:600]), (x[600:900], y[600:900]), penalties=(0.01,))
    scaler = StandardScaler().fit(x[:600])
    model = LogisticRegression(C=1 / (0.01 * 600), max_iter=500)
    model.fit(scaler.transform(x[:600]), y[:600])
    expected = model.predict(scaler.transform(x[900:]))
    assert (probe.logits(x[900:]).argmax(1) == expected).mean() > 0.995


def test_more_features_than_images_give_the_same_probe(digits):
    x, y = digits
    few = slice(0, 40)  # 40 images, 64 features
    probe = fit_probe((x[few], y[few]), (x[600:900], y[600:900]), penalties=(0.1,))
    scaler = StandardScaler().fit(x[few])
    model = LogisticRegression(C=1 / (0.1 * 40), max_iter=5000, tol=1e-8)
    model.fit(scaler.transform(x[few]), y[few])
    assert np.abs(probe.weight - model.coef_).max() < 2e-3 * np.abs(model.coef_).max()
    expected = model.predict(scaler.transform(x[900:]))
    assert (probe.logits(x[900:]).argmax(1) == expected).mean() > 0.995


def test_the_penalty_is_the_best_on_validation(digits):
    x, y = digits
    train, validation = (x[:100], y[:100]), (x[100:400], y[100:400])
    best = fit_probe(train, validation)
    each = [fit_probe(train, validation, penalties=(p,)) for p in (1e-5, 1e-2, 1.0, 100.0)]
    assert best.validation_accuracy >= max(p.validation_accuracy for p in each)


def test_two_classes_have_two_logits(digits):
    x, y = digits
    two = y < 2
    probe = fit_probe((x[two][:200], y[two][:200]), (x[two][200:], y[two][200:]))
    logits = probe.logits(x[two][200:])
    assert logits.shape[1] == 2
    assert (logits.argmax(1) == y[two][200:]).mean() > 0.97


def test_pixels_keep_one_channel_of_grey_images():
    grey = np.full((2, 4, 4, 3), 51, np.uint8)
    assert pixels(grey).shape == (2, 16)
    assert pixels(grey)[0, 0] == np.float32(0.2)
    grey[0, 0, 0, 1] = 9
    assert pixels(grey).shape == (2, 48)


def test_answers_by_hand():
    answers = Answers.of(np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], np.float32)))
    assert answers.predicted.tolist() == [0, 2]
    assert answers.score == pytest.approx([0.7, 0.6], abs=1e-6)
    assert answers.margin == pytest.approx([0.5, 0.3], abs=1e-6)
    assert (
        top_k_accuracy(np.array([[3.0, 2, 1], [1, 2, 3]], np.float32), np.array([1, 0]), 2) == 0.5
    )


def test_balanced_accuracy_is_the_mean_recall_of_scikit_learn():
    from sklearn.metrics import balanced_accuracy_score

    generator = np.random.default_rng(0)
    labels, predicted = generator.integers(0, 4, 300), generator.integers(0, 4, 300)
    labels[labels == 3] = np.where(generator.random((labels == 3).sum()) < 0.8, 0, 3)
    ours = balanced_accuracy(predicted == labels, labels)
    assert ours == pytest.approx(balanced_accuracy_score(labels, predicted), abs=1e-12)


def test_balanced_sampling_draws_every_class_equally_often():
    labels = np.repeat([0, 1, 2], [90, 9, 2])
    drawn = [balanced_order(labels, epoch) for epoch in range(60)]
    for order in drawn:
        assert len(order) == len(labels)
        assert max(np.bincount(labels[order])) - min(np.bincount(labels[order])) <= 1
    seen = np.unique(np.concatenate(drawn))
    assert len(seen) == len(labels)  # images of the large class take turns
    rare = np.bincount(drawn[0], minlength=101)[99:]
    assert set(rare) <= {16, 17}  # both images of the rare class equally often
    assert (balanced_order(labels, 3) == drawn[3]).all()


def test_a_short_training_leaves_no_initial_values_in_batch_norm():
    """Stock MobileNetV3 averages over hundreds of steps; deployed after thirty, it must work."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8, momentum=0.001), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 2),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    images = rng.integers(100, 120, (64, 8, 8, 3)).astype(np.uint8)
    images[labels == 1] += 100  # brighter

    def views(batch, indices, epoch):
        # far from zero mean, where BatchNorm's initial statistics are useless
        return [batch.permute(0, 3, 1, 2).float()]

    lessons = Lessons(Labelled(images, labels.astype(np.int64)), views)
    plan = Plan(items=64, epochs=15, batch=32, learning_rate=1e-2, optimizer="adamw")
    tuned = finetune(net, lessons, plan, reporter=Reporter(quiet=True), label="t")
    with torch.no_grad():
        logits = tuned(views(torch.from_numpy(images), None, 0)[0])
    assert (logits.argmax(1).numpy() == labels).mean() == 1.0
    assert tuned[1].momentum == 0.001
