"""Statistics of a table: slow definitions, symmetries, and what is refused."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from emo_lib.report.statistics import (
    MIN_RANKED_ROWS,
    MIN_RANKED_SUBJECTS,
    bootstrap_interval,
    compare_table,
    describe,
    detectable_difference,
    draw_ranks,
    friedman_p,
    holm,
    rank_biserial,
    rank_rows,
    why_no_ranks,
)


def make_scores(seed, n=12, rows="abcde", digits=8):
    "Accuracies (subject, row) whose rows differ by 0, 1, 2 ... points."
    rng = np.random.default_rng(seed)
    gains = 0.01 * np.arange(len(rows))
    values = 0.6 + gains + rng.normal(0, 0.05, (n, 1)) + rng.normal(0, 0.03, (n, len(rows)))
    return pd.DataFrame(values.round(digits), range(1, n + 1), list(rows))


def as_frame(comparisons):
    return pd.DataFrame(comparisons).set_index("row")


def closed_testing(p):
    "Holm's p: the largest Bonferroni p of any set of hypotheses with this one in it."
    corrected = []
    for i in range(len(p)):
        others = [q for j, q in enumerate(p) if j != i]
        sets = [
            [p[i], *chosen]
            for size in range(len(p))
            for chosen in itertools.combinations(others, size)
        ]
        corrected.append(max(min(1, len(values) * min(values)) for values in sets))
    return corrected


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_closed_testing_with_bonferroni(seed):
    p = np.random.default_rng(seed).uniform(size=7) ** 4
    p[1] = p[4]
    assert holm(p) == pytest.approx(closed_testing(p))


def test_holm_ignores_nan_and_order():
    p = np.array([0.03, np.nan, 0.001, 0.2, np.nan])
    corrected = holm(p)
    assert corrected == pytest.approx([0.06, np.nan, 0.003, 0.2, np.nan], nan_ok=True)
    assert holm(p[::-1]) == pytest.approx(corrected[::-1], nan_ok=True)
    assert holm([0.04]) == pytest.approx([0.04])
    assert np.isnan(holm([np.nan, np.nan])).all()


@pytest.mark.parametrize("p", [[-0.1], [1.5], [[0.1]], 0.1])
def test_holm_refuses_what_is_no_list_of_p(p):
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm(p)


@pytest.mark.parametrize("digits", [1, 2, 8], ids=["ties and zeros", "some ties", "no ties"])
@pytest.mark.parametrize("seed", range(3))
def test_rank_biserial_is_one_minus_twice_the_smaller_rank_sum(seed, digits):
    d = np.random.default_rng(seed).normal(0.05, 0.1, 12).round(digits)
    nonzero = d[d != 0]
    total = len(nonzero) * (len(nonzero) + 1) / 2
    smaller = stats.wilcoxon(nonzero, method="asymptotic").statistic
    effect = rank_biserial(d)
    assert abs(effect) == pytest.approx(1 - 2 * smaller / total)
    walsh = [np.sign(a + b) for a, b in itertools.combinations_with_replacement(nonzero, 2)]
    assert effect == pytest.approx(np.mean(walsh))
    assert rank_biserial(7 * d) == pytest.approx(effect), "the unit does not matter"


@pytest.mark.parametrize("n", range(1, 6))
def test_no_interval_below_six_subjects(n):
    assert np.isnan(bootstrap_interval(np.arange(n) / 10, 0)).all()


def test_interval_of_equal_differences_is_unknown():
    assert np.isnan(bootstrap_interval(np.full(10, 0.02), 0)).all()


@pytest.mark.parametrize("n", [6, 15, 40])
def test_interval_stays_within_the_data_and_contains_the_mean(n):
    d = np.random.default_rng(n).normal(0.01, 0.03, n)
    low, high = bootstrap_interval(d, seed=3)
    assert d.min() <= low < d.mean() < high <= d.max()
    assert bootstrap_interval(d, seed=3) == (low, high)
    assert bootstrap_interval(d, seed=4) != (low, high)
    narrow = bootstrap_interval(d, seed=3, level=0.5)
    assert low < narrow[0] < narrow[1] < high


@pytest.mark.parametrize("n", [6, 8, 10, 15, 25, 26, 40])
def test_detectable_difference_is_found_with_80_percent(n):
    shift = detectable_difference(n, 1.0)
    d = np.random.default_rng(n).normal(shift, 1, (2000, n))
    called = stats.wilcoxon(d, axis=1, method="exact").pvalue <= 0.05
    assert called.mean() == pytest.approx(0.8, abs=0.04)  # 4 standard errors


def test_detectable_difference_scales_with_the_spread_and_falls_with_n():
    assert detectable_difference(12, 0.04) == pytest.approx(4 * detectable_difference(12, 0.01))
    shifts = [detectable_difference(n, 1.0) for n in (6, 8, 12, 20, 30, 60, 123)]
    assert shifts == sorted(shifts, reverse=True)
    assert detectable_difference(12, 1.0, power=0.9) > detectable_difference(12, 1.0)
    assert detectable_difference(12, 1.0, alpha=0.01) > detectable_difference(12, 1.0)


@pytest.mark.parametrize(
    "n, std, alpha", [(5, 1.0, 0.05), (6, 1.0, 0.01), (9, 0.0, 0.05), (9, math.nan, 0.05)]
)
def test_nothing_is_detectable_without_subjects_or_spread(n, std, alpha):
    assert math.isnan(detectable_difference(n, std, alpha))


@pytest.mark.parametrize("alpha, power", [(0, 0.8), (0.05, 1), (0.8, 0.05), (math.nan, 0.8)])
def test_impossible_levels_are_refused(alpha, power):
    with pytest.raises(ValueError, match="alpha"):
        detectable_difference(10, 1.0, alpha, power)


@pytest.mark.parametrize("reference", list("abcde"))
def test_any_row_can_be_the_reference(reference):
    scores = make_scores(1)
    frame = as_frame(compare_table(scores, reference))
    tested = frame.drop(index=reference)
    assert math.isnan(frame.loc[reference, "p"])
    assert tested["n_tests"].eq(4).all()
    assert (tested["p_holm"] >= tested["p"]).all()
    means = scores.mean() - scores[reference].mean()
    assert tested["mean_difference"].to_numpy() == pytest.approx(means[tested.index].to_numpy())


def test_rows_and_subjects_may_come_in_any_order():
    scores = make_scores(2)
    shuffled = scores.iloc[::-1, ::-1]
    frame, other = as_frame(compare_table(scores, "a")), as_frame(compare_table(shuffled, "a"))
    for column in ("p", "p_holm", "effect", "mean_difference", "detectable"):
        assert other[column][frame.index].to_numpy() == pytest.approx(
            frame[column].to_numpy(), nan_ok=True
        )
    assert (
        as_frame(compare_table(scores.iloc[:, ::-1], "a")).loc["c", "low"] == frame.loc["c", "low"]
    )


def test_seeds_follow_from_names():
    scores = make_scores(3)

    def low(**more):
        return as_frame(compare_table(scores, "a", **more)).loc["b", "low"]

    assert low(names=("SEED",)) == low(names=("SEED",))
    assert len({low(names=("SEED",)), low(names=("SEED-IV",)), low(), low(seed=1)}) == 4


def test_a_missing_subject_is_named_and_not_dropped():
    scores = make_scores(4)
    scores.loc[[2, 7], "c"] = np.nan
    frame = as_frame(compare_table(scores, "a"))
    assert frame.loc["c", "note"] == (
        "no test: c has no score of subject 2, c has no score of subject 7"
    )
    assert (frame.loc["c", "n"], frame.loc["b", "n"]) == (10, 12)
    assert frame.loc["b", "n_tests"] == 3, "Holm counts the tests made"
    assert math.isnan(frame.loc["c", "p_holm"])


def test_few_differing_subjects_lower_what_the_test_can_call():
    scores = make_scores(5)
    scores["b"] = scores["a"]
    scores.loc[[1, 2, 3], "b"] += 0.1
    comparison = compare_table(scores, "a")[1]
    assert (comparison.n, comparison.n_used) == (12, 3)
    assert comparison.smallest_p == 0.25
    assert "only 3 of them differ; no difference can be significant at 5 %" in describe(comparison)


@pytest.mark.parametrize(
    "change, reference, words",
    [
        (lambda s: s, "svm", "expected one of the rows a, b, c, d, e, or None; found 'svm'"),
        (lambda s: pd.concat([s, s]), "a", "each of the subjects once"),
        (lambda s: s.set_axis(list("abcdd"), axis=1), "a", "each of the rows once"),
        (lambda s: s.assign(b="60"), "a", "expected numbers"),
        (lambda s: s.assign(b=-np.inf), "a", "infinity in the rows"),
        (lambda s: s[[]], None, "at least one of the rows"),
    ],
)
def test_broken_tables_are_refused(change, reference, words):
    with pytest.raises(ValueError, match=words):
        compare_table(change(make_scores(0)), reference)


def test_friedman_p_is_close_to_that_of_shuffled_ranks():
    scores = make_scores(6, n=10, rows="abcde")
    ranks = scores.rank(axis=1).to_numpy()
    rng = np.random.default_rng(0)
    shuffled = rng.permuted(np.broadcast_to(ranks, (4000, *ranks.shape)), axis=2)
    spread = shuffled.mean(axis=1).var(axis=1)
    p = np.mean(spread >= ranks.mean(axis=0).var() - 1e-12)
    assert friedman_p(scores) == pytest.approx(p, abs=0.03)


@pytest.mark.parametrize("k, n", [(5, 9), (6, 10), (7, 10), (10, 11)])
def test_the_stated_number_of_subjects_is_the_smallest_that_can_differ(k, n):
    rows = [f"m{i}" for i in range(k)]
    gaps = np.random.default_rng(0).uniform(1, 2, (n, k))
    best = pd.DataFrame(gaps.cumsum(axis=1), columns=rows)
    assert why_no_ranks(best) == ""
    assert rank_rows(best).p_holm.min().min() <= 0.05
    reason = why_no_ranks(best[: n - 1])
    assert reason and (n - 1 < MIN_RANKED_SUBJECTS or f"{n} subjects are needed" in reason)


def test_small_tables_get_a_sentence():
    assert "rows on" in why_no_ranks(make_scores(0, rows="abcd"))
    assert "7 subjects" in why_no_ranks(make_scores(0, n=7))
    with pytest.raises(ValueError, match="No mean ranks"):
        rank_rows(make_scores(0, n=MIN_RANKED_SUBJECTS - 1))
    scores = make_scores(0, rows="abcdef"[: MIN_RANKED_ROWS + 1])
    scores.loc[1, "c"] = np.nan
    assert "missing for c" in why_no_ranks(scores)


@pytest.mark.parametrize("seed", range(4))
def test_groups_are_the_largest_sets_without_a_difference(seed):
    ranking = rank_rows(make_scores(seed, n=14, rows="abcdefg"))
    rows = list(ranking.mean_rank.index)

    def is_alike(rows):
        return all(ranking.p_holm.loc[a, b] > 0.05 for a, b in itertools.combinations(rows, 2))

    for group in ranking.groups:
        assert is_alike(group)
        assert not any(is_alike([*group, row]) for row in rows if row not in group)
    together = [set(group) for group in ranking.groups]
    for a, b in itertools.combinations(rows, 2):
        assert is_alike([a, b]) == any({a, b} <= group for group in together)


def test_rows_that_all_differ_have_no_bar():
    gaps = np.random.default_rng(0).uniform(1, 2, (10, 5))
    apart = pd.DataFrame(gaps.cumsum(axis=1), columns=list("abcde"))
    ranking = rank_rows(apart)
    assert ranking.groups == []
    assert ranking.mean_rank.to_dict() == {"e": 1, "d": 2, "c": 3, "b": 4, "a": 5}
    fig = draw_ranks(ranking, "SYNTHETIC")
    assert not [trace for trace in fig.data if trace.mode == "lines+markers"]


def test_equal_rows_share_rank_and_group():
    equal = pd.DataFrame({row: np.arange(10) / 10 for row in "abcde"})
    ranking = rank_rows(equal)
    assert ranking.friedman_p == 1
    assert ranking.mean_rank.tolist() == [3] * 5
    assert [sorted(group) for group in ranking.groups] == [list("abcde")]


def test_the_diagram_shows_every_row_at_its_rank():
    ranking = rank_rows(make_scores(0, n=15, rows="abcdef"))
    fig = draw_ranks(ranking, "SYNTHETIC: six rows")
    starts = [trace.x[0] for trace in fig.data if trace.mode == "lines"][:6]
    assert starts == pytest.approx(ranking.mean_rank.tolist())
    labels = [annotation.text for annotation in fig.layout.annotations]
    assert labels == [f"{row} ({rank:.2f})" for row, rank in ranking.mean_rank.items()]
    assert fig.layout.title.text == "SYNTHETIC: six rows"
