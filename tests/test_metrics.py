"""Scores and tests: library versions, symmetries, refusals; and results edited after the run."""

import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    recall_score,
)

from emo_lib.base.store import derive_seed
from emo_lib.run.metrics import (
    accuracy,
    balanced_accuracy,
    compare_paired,
    confusion,
    f1_macro,
    permutation_test,
)
from emo_lib.run.results import (
    SCORES,
    CellResult,
    ResultError,
    fold_result,
    load_results,
    prediction_table,
    predictions_path,
    read_predictions,
    score,
    write_result,
)
from emo_lib.run.spec import CellSpec


def random_labels(seed, n=60, classes=4):
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, n), rng.integers(0, classes + 1, n)


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_sklearn_over_the_tested_classes(seed):
    y, yhat = random_labels(seed)
    counts = confusion(y, yhat, 5)
    tested = dict(labels=np.unique(y), average="macro", zero_division=0)
    assert counts.tolist() == confusion_matrix(y, yhat, labels=range(5)).tolist()
    assert accuracy(counts) == pytest.approx(accuracy_score(y, yhat))
    assert balanced_accuracy(counts) == pytest.approx(recall_score(y, yhat, **tested))
    assert f1_macro(counts) == pytest.approx(f1_score(y, yhat, **tested))


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


# Stored results


def two_subjects():
    "Predictions of one fold with two subjects of three trials of two windows, partly wrong."
    trial = np.repeat([1, 2, 3], 2)
    meta = pd.DataFrame(dict(subject=1, session=1, trial=trial, clip=trial, label=trial % 2))
    meta = pd.concat([meta, meta.assign(subject=2)], ignore_index=True)
    meta["start_s"] = [0.0, 1.0] * 6
    right = np.array([0.9, 0.8, 0.7, 0.3, 0.6, 0.9, 0.4, 0.45, 0.9, 0.8, 0.2, 0.7])
    p = np.stack([right, 1 - right], axis=1)
    flipped = np.where(meta.label.to_numpy()[:, None] == 1, p[:, ::-1], p)
    return prediction_table(meta, flipped, NAMES)


NAMES = {"test_session": 1}


@pytest.fixture
def stored(tmp_path):
    "A result as a run writes it, with a test against chance and missing channels."
    spec = CellSpec(
        dataset="SEED",
        features="features",
        model="svm",
        missing=[0],
        permutations=9,
        out=tmp_path / "svm.json",
    )
    table = two_subjects()
    own = {"k": 0, **score(table)}
    fold = fold_result(table, names=NAMES, seed=0, n_train=9, n_val=0, missing=[own])
    trials = table.subject.astype(str) + "/" + table.trial.astype(str)
    test = permutation_test(
        table.label, table.predicted, trials, n=9, seed=derive_seed(0, "permutation")
    )
    about = dict(data="synthetic", dataset="SEED", feature="de", window_s=1.0, fingerprint="f")
    result = CellResult.of_folds(
        [fold],
        spec=spec,
        classes=["negative", "positive"],
        permutation=test,
        caveats=[],
        provenance=about | dict(seed=0, git="unknown"),
    )
    write_result(result, table)
    return spec.out


def test_a_stored_result_is_read_as_it_was_written(stored):
    (result,) = load_results(stored)
    assert result.predictions_digest
    assert read_predictions(stored).equals(two_subjects())


def set_at(content, path, value):
    *parents, last = path
    for key in parents:
        content = content[key]
    content[last] = value


@pytest.mark.parametrize(
    "path, value, words",
    [
        (["std"], 0.4, "std: expected"),
        (["std"], None, "std: expected"),
        (["trial_std"], 0.4, "trial_std: expected"),
        (["folds", 0, "subjects", 0, "f1_macro"], 0.1, "subject 1: f1_macro: expected"),
        (["folds", 0, "subjects", 0, "n_trials"], 7, "trials.accuracy: expected"),
        (["folds", 0, "subjects", 0, "trials", "balanced_accuracy"], 0.1, "subject 1: trials"),
        (["folds", 0, "trials", "f1_macro"], 0.1, "trials.f1_macro: expected"),
        (["folds", 0, "trials", "accuracy"], 0.1, "trials.accuracy: expected"),
        (["folds", 0, "confusion", 0, 0], -1, "confusion"),
        (["folds", 0, "missing", 0, "f1_macro"], 0.1, "without any missing, f1_macro"),
        (["folds", 0, "missing", 0, "k"], 3, "missing: expected [0] as in the specification"),
        (["folds", 0, "missing"], [], "missing: expected [0] as in the specification, found []"),
        (["folds", 0, "names", "test_session"], 2, "folds: expected those of the predictions"),
        (["spec", "seed"], 1, "provenance.seed: expected 1"),
        (["spec", "pretrain_on"], "x", "has no pre-training"),
        (["spec", "permutations"], 99, "permutation: expected 99 permutations, found 9"),
        (["permutation"], None, "permutation: expected 9 permutations, found 0"),
        (["permutation", "score"], 0.99, "permutation.score: expected"),
        (["permutation", "p"], 0.01, "permutation.p: expected"),
        (["permutation", "seed"], 5, "permutation.seed: expected"),
        (["predictions"], "../svm.predictions.parquet", "in the same folder"),
        (["predictions_digest"], None, "an older version of emo_lib made this result"),
        (["predictions_digest"], "0" * 16, "found another table"),
        (
            ["provenance", "pretrained_on"],
            {"dataset": "FACED", "fingerprint": "f", "data": "real"},
            "provenance.pretrained_on: expected",
        ),
    ],
)
def test_an_edited_result_is_refused(stored, path, value, words):
    content = json.loads(stored.read_text())
    set_at(content, path, value)
    stored.write_text(json.dumps(content))
    with pytest.raises(ResultError, match=re.escape(words)) as caught:
        load_results(stored)
    assert "svm.json" in str(caught.value)
    assert "run the cell again" in str(caught.value)
    with pytest.raises(ValueError, match=re.escape(words)):
        read_predictions(stored)


def test_two_folds_of_one_name_are_refused(stored):
    content = json.loads(stored.read_text())
    content["folds"] *= 2
    stored.write_text(json.dumps(content))
    with pytest.raises(ResultError, match="expected each name once, found test_session-1"):
        load_results(stored)


def test_scores_edited_in_step_with_their_confusion_matrix_are_refused(stored):
    "All numbers of the file agree with each other, and not with the predictions."
    table = two_subjects().assign(predicted=two_subjects().label)
    content = json.loads(stored.read_text())
    perfect = fold_result(table, names=NAMES, seed=0, n_train=9, n_val=0)
    fold = perfect.model_dump(mode="json") | {"trials": dict.fromkeys(SCORES, 1.0)}
    fold["missing"] = [{"k": 0} | dict.fromkeys(SCORES, 1.0)]
    for subject in fold["subjects"]:
        subject["trials"] = fold["trials"]
    content |= {"folds": [fold], "mean": 1.0, "trial_mean": 1.0, "std": 0.0, "trial_std": 0.0}
    content["permutation"]["score"] = 1.0
    stored.write_text(json.dumps(content))
    with pytest.raises(ResultError, match="confusion: expected the counts of the predictions"):
        load_results(stored)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.assign(p_0=0.5),
        lambda table: table.assign(label=1 - table.label),
        lambda table: table.iloc[::-1],
        lambda table: table.rename(columns={"p_0": "p_1", "p_1": "p_0"}),
        lambda table: table.astype({"p_0": "float32"}),
        lambda table: table.iloc[:-1],
    ],
)
def test_predictions_of_another_run_are_refused(stored, change):
    change(two_subjects()).to_parquet(predictions_path(stored), index=False)
    with pytest.raises(ValueError, match="svm.predictions.parquet: .*found another table"):
        read_predictions(stored)
    with pytest.raises(ResultError, match="found another table"):
        load_results(stored)


def test_the_digest_is_of_the_table_and_not_of_the_bytes(stored):
    file = predictions_path(stored)
    before = file.read_bytes()
    two_subjects().to_parquet(file, index=False, compression="gzip")
    assert file.read_bytes() != before
    assert len(load_results(stored)) == 1


def test_absent_predictions_are_named(stored):
    predictions_path(stored).unlink()
    with pytest.raises(ResultError, match="found no readable file"):
        load_results(stored)


def test_a_parquet_file_is_no_result(stored):
    with pytest.raises(ResultError, match=r"found a table \(parquet\); give svm.json"):
        load_results(predictions_path(stored))
