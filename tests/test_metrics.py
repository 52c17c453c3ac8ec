"""Scores and tests over random labels: library versions, symmetries, and what is refused."""

import itertools
import json

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, f1_score

from emo_lib.run.metrics import (
    accuracy,
    balanced_accuracy,
    compare_paired,
    confusion,
    f1_macro,
    permutation_test,
)


def random_labels(seed, n=60, classes=4):
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, n), rng.integers(0, classes + 1, n)


@pytest.mark.parametrize("seed", range(5))
def test_scores_follow_from_the_confusion_matrix(seed):
    y, yhat = random_labels(seed)
    counts = confusion(y, yhat, 5)
    true, predicted = counts.sum(1), counts.sum(0)
    correct = np.diagonal(counts)
    occurs = true > 0
    assert counts.sum() == len(y)
    assert accuracy(y, yhat) == pytest.approx(correct.sum() / len(y))
    recall = correct[occurs] / true[occurs]
    assert balanced_accuracy(y, yhat) == pytest.approx(recall.mean())
    f1 = 2 * correct[occurs] / (true[occurs] + predicted[occurs])
    assert f1_macro(y, yhat) == pytest.approx(f1.mean())


def test_scores_are_those_of_sklearn_when_all_classes_occur():
    y, yhat = random_labels(0)
    yhat = yhat % 4
    assert balanced_accuracy(y, yhat) == pytest.approx(balanced_accuracy_score(y, yhat))
    assert f1_macro(y, yhat) == pytest.approx(f1_score(y, yhat, average="macro"))


def enumerated_p(d):
    "The share of sign patterns at least as extreme as the observed one."
    d = d[d != 0]
    rank = stats.rankdata(abs(d))
    middle = rank.sum() / 2
    patterns = itertools.product((0, 1), repeat=len(d))
    W = np.array([np.dot(signs, rank) for signs in patterns])
    return np.mean(abs(W - middle) >= abs(rank[d > 0].sum() - middle) - 1e-9)


@pytest.mark.parametrize("digits", [1, 6], ids=["ties and zeros", "no ties"])
@pytest.mark.parametrize("n", [1, 2, 5, 11])
def test_paired_p_is_that_of_all_sign_patterns(n, digits):
    rng = np.random.default_rng(n)
    a, b = rng.random(n).round(digits), rng.random(n).round(digits)
    result = compare_paired(a, b)
    assert result["exact"]
    assert result["p"] == pytest.approx(enumerated_p((a - b).round(12)))
    assert result["p"] >= result["smallest_p"] * (1 - 1e-12)


def test_paired_test_is_symmetric_and_ignores_the_order_of_subjects():
    rng = np.random.default_rng(0)
    a, b = rng.random(9), rng.random(9)
    result, swapped = compare_paired(a, b), compare_paired(b, a)
    assert swapped["p"] == pytest.approx(result["p"])
    assert swapped["mean_difference"] == -result["mean_difference"]
    order = rng.permutation(9)
    by_name = {f"s{i}": a[i] for i in range(9)}, {f"s{i}": b[i] for i in order}
    assert compare_paired(*by_name) == result


@pytest.mark.parametrize(
    "a, b, words",
    [
        ({1: 0.5}, {2: 0.5}, "only one model has 1, 2; run both"),
        ([0.5, 0.6], [0.5], r"found \(2,\) and \(1,\); average"),
        ([], [], "one score per subject"),
        ([[0.5]], [[0.5]], "one score per subject"),
        ([0.5, np.nan], [0.5, 0.6], "NaN or infinity; leave"),
    ],
)
def test_subjects_that_cannot_be_paired_are_refused(a, b, words):
    with pytest.raises(ValueError, match=words):
        compare_paired(a, b)


def trials(seed=0, n_trials=12, n_windows=10):
    rng = np.random.default_rng(seed)
    label, trial = np.arange(n_trials) % 3, np.repeat(np.arange(n_trials), n_windows)
    y = label[trial]
    yhat = np.where(rng.random(len(y)) < 0.5, y, rng.integers(0, 3, len(y)))
    return y, yhat, trial


@pytest.mark.parametrize("seed", range(3))
def test_permutation_p_is_that_of_scipy(seed):
    y, yhat, trial = trials(seed)
    slow = stats.permutation_test(
        (y[::10],),
        lambda label: balanced_accuracy_score(label[trial], yhat),
        permutation_type="pairings",
        alternative="greater",
        n_resamples=49,
        rng=np.random.default_rng(seed),
    )
    assert permutation_test(y, yhat, trial, n=49, seed=seed)["p"] == slow.pvalue


def test_permutation_test_ignores_the_order_of_windows():
    y, yhat, trial = trials()
    result = permutation_test(y, yhat, trial, n=30)
    order = np.random.default_rng(0).permutation(len(y))
    assert permutation_test(y[order], yhat[order], trial[order], n=30) == result
    json.dumps(result, allow_nan=False)


def test_perfect_predictions_have_the_smallest_p():
    y, _, trial = trials()
    result = permutation_test(y, y, trial, n=99)
    assert result["score"] == 1
    assert result["p"] == 1 / 100
    assert result["smallest_p"] == 1 / 100


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda y, yhat, trial: (y[:-1], yhat, trial), "one length"),
        (lambda y, yhat, trial: ([], [], []), "one length"),
        (lambda y, yhat, trial: (y, yhat, trial % 4), "trial 0 has more than one label"),
        (lambda y, yhat, trial: (0 * y, yhat, trial), "nothing to permute"),
    ],
)
def test_windows_that_cannot_be_permuted_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        permutation_test(*change(*trials()))


def test_no_permutations_are_refused():
    with pytest.raises(ValueError, match="n=0"):
        permutation_test(*trials(), n=0)
