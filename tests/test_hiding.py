"""Hidden channels: the draws, the sides, and a modality that is missing at the test."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from emo_lib.base.montage import CHANNELS
from emo_lib.base.parameters import explain
from emo_lib.data.datasets import open_dataset
from emo_lib.models.decision_fusion import MultimodalSVM
from emo_lib.models.registry import MODELS, make_model
from emo_lib.report.examples import invented_result
from emo_lib.report.printed import PrintedTable, Study, read_rows
from emo_lib.report.rows import arrange, observations, rows_of
from emo_lib.run.cells import check_modalities, run_cell
from emo_lib.run.grid import grid_jobs, make_grid
from emo_lib.run.results import read_predictions, read_result
from emo_lib.run.spec import CellSpec, settings_of
from emo_lib.samples.featuresets import load_features, write_features
from emo_lib.samples.hiding import Hiding, hide
from emo_lib.samples.samples import Samples, make_samples
from emo_lib.twins.twin import write_twin

BOTH = ("eeg", "eye")
GAPS = [name for name, model in MODELS.items() if model.allows_gaps]
TWO = [name for name in GAPS if MODELS[name].needs.modalities == BOTH]


def hiding(word):
    return Hiding.model_validate(word)


def looks(n=36, steps=1):
    "Samples of three classes that either modality tells apart; 12 channels and 6 eye features."
    rng = np.random.default_rng(0)
    label = np.arange(n) % 3
    eeg = rng.normal(size=(n, steps, 12, 5)) + label[:, None, None, None]
    eye = rng.normal(size=(n, steps, 6)) + label[:, None, None]
    meta = pd.DataFrame(dict(subject=1, session=1, trial=label, clip=label, label=label))
    meta["start_s"] = 4.0 * np.arange(n)
    there, steps = np.ones((n, steps, 12), bool), np.ones((n, steps), bool)
    return Samples(eeg.astype("f4"), eye.astype("f4"), there, steps, meta, CHANNELS[:12])


def looks_for(name):
    return looks(steps=1 if MODELS[name].needs.kind == "window" else 4)


def small(name, **hyper):
    cls = MODELS[name]
    return make_model(name, n_classes=3, channels=CHANNELS[:12], **cls.small | hyper)


# ---- the draw


def test_smaller_shares_are_nested_and_have_the_rounded_size():
    samples, before = looks(), set()
    lost = []
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
        there = hide(samples, Hiding(share=share, modality="eeg"), seed=4).there
        assert ((~there).sum(2) == round(12 * share)).all()
        lost.append({tuple(place) for place in np.argwhere(~there)})
    for more in lost:
        assert before < more
        before = more


def test_a_sample_loses_the_same_wherever_it_is_used():
    samples = looks()
    whole = hide(samples, hiding("0.5-both"), seed=1)
    rows = np.array([20, 3, 11])
    part = hide(samples[rows], hiding("0.5-both"), seed=1)
    other_side = hide(samples[rows], hiding("0.5-train"), seed=1)
    for one in (part, other_side):
        assert np.array_equal(one.there, whole.there[rows])
        assert np.array_equal(one.eye, whole.eye[rows], equal_nan=True)
    eye_alone = hide(samples, hiding("0.5-test-eye"), seed=1)
    assert np.array_equal(eye_alone.eye, whole.eye, equal_nan=True)
    assert eye_alone.there.all()
    assert not np.array_equal(hide(samples, hiding("0.5-both"), seed=2).there, whole.there)
    assert len(np.unique(whole.there[:, 0], axis=0)) > 20, "each sample has its own draw"


def test_the_input_is_unchanged():
    samples = looks()
    eeg, eye, there = samples.eeg.copy(), samples.eye.copy(), samples.there.copy()
    hidden = hide(samples, hiding("1-both"), seed=0)
    assert not hidden.eeg.any()
    assert np.isnan(hidden.eye).all()
    assert np.array_equal(samples.eeg, eeg)
    assert np.array_equal(samples.eye, eye)
    assert np.array_equal(samples.there, there)


@pytest.mark.parametrize(
    "given, words",
    [
        ("0.3", "expected SHARE-SIDE"),
        ("0.3-left", "expected SHARE-SIDE"),
        ("0.3-test-ecg", "expected SHARE-SIDE"),
        ("-0.3-test", "expected SHARE-SIDE"),
        (0.3, "expected SHARE-SIDE"),
        ("0-both", "share: expected more than 0"),
        ("1.2-both", "share: expected at most 1"),
        ({"share": 0.0}, "share: expected more than 0"),
        ({"side": "test"}, "share: expected a value"),
    ],
)
def test_what_is_no_hiding_is_refused(given, words):
    with pytest.raises(ValidationError) as caught:
        Hiding.model_validate(given)
    assert words in explain(caught.value)


# ---- models


@pytest.mark.parametrize("name", TWO)
@pytest.mark.parametrize("modality", BOTH)
def test_a_modality_missing_at_the_test_has_no_influence(name, modality):
    samples = looks_for(name)
    model = small(name).fit(samples)
    lacking = hide(samples, Hiding(share=1.0, modality=modality), seed=0)
    p = model.predict_proba(lacking)
    assert np.isfinite(p).all()
    assert np.allclose(p.sum(1), 1)
    if modality == "eeg":  # hidden eye features have no value that could be changed
        garbage = replace(lacking, eeg=lacking.eeg + 1e3)
        assert np.array_equal(p, model.predict_proba(garbage))
    assert not np.allclose(p, model.predict_proba(samples))


@pytest.mark.parametrize("name", TWO)
@pytest.mark.parametrize("word", ["0.5-both", "1-train-eye", "1-train-eeg"])
def test_a_model_trains_with_what_is_left(name, word):
    samples = looks_for(name)
    model = small(name).fit(hide(samples, hiding(word), seed=0))
    assert np.isfinite(model.predict_proba(samples)).all()


def test_the_weight_of_a_missing_modality_is_zero():
    samples = looks_for("mmv_sstma")
    model = small("mmv_sstma").fit(samples)
    for place, modality in enumerate(BOTH):
        lacking = hide(samples, Hiding(share=1.0, modality=modality), seed=0)
        assert (model.modality_weights(lacking)[:, place] == 0).all()
        assert (model.modality_weights(lacking)[:, 1 - place] == 1).all()
    half = model.modality_weights(hide(samples, Hiding(share=0.5), seed=0))
    assert (half > 0).all()
    concat = small("mmv_sstma", fusion="concat").fit(samples)
    no_eye = hide(samples, Hiding(share=1.0, modality="eye"), seed=0)
    assert (concat.transform(no_eye)[:, concat.dim :] == 0).all()


@pytest.mark.parametrize("fusion", ["attention", "concat"])
def test_samples_with_and_without_the_eye_train_together(fusion):
    samples = looks_for("mmv_sstma")
    eye = samples.eye.copy()
    eye[1:] = np.nan  # one sample with both modalities, whose batch has no correlation
    model = small("mmv_sstma", fusion=fusion)
    for part in (replace(samples, eye=eye), replace(samples, eye=np.where(eye > 9, eye, np.nan))):
        for stage in model.stages():
            model.pretrain(stage, samples)
        model.fit(part)
        assert np.isfinite([epoch["loss"] for epoch in model.history_]).all()
        assert np.isfinite(model.predict_proba(samples)).all()


@pytest.mark.parametrize("name", ["mv_sstma", "mv_sstma_eye", "svm_eye", "mmv_sstma"])
def test_a_sample_of_which_nothing_is_left_is_refused(name):
    samples = looks_for(name)
    model = small(name).fit(samples)
    nothing = hide(samples, Hiding(share=1.0), seed=0)
    with pytest.raises(ValueError, match=" 0 has no "):
        model.predict(nothing)


# ---- specifications

CELL = dict(dataset="SEED-V", features="F", model="svm_eye", samples={"modalities": BOTH})
SEQUENCES = {"kind": "sequence", "length": 3, "stride": 3, "modalities": BOTH}


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(hidden="1-test"), "1-test hides all that svm_eye takes (eeg and eye)"),
        (dict(hidden="half"), "hidden: expected SHARE-SIDE"),
        (dict(hidden=0.3), "hidden: expected SHARE-SIDE"),
        (dict(model="svm", hidden="1-test-eeg"), "1-test-eeg hides all that svm takes (eeg)"),
        (dict(model="svm", samples={}, hidden="0.3-test-eye"), "expected samples with eye"),
        (
            dict(model="mv_sstma_eye", samples=SEQUENCES, hidden="1-test-eye"),
            "1-test-eye hides all that mv_sstma_eye takes (eye)",
        ),
    ],
)
def test_a_cell_that_cannot_hide_is_refused(changes, words):
    with pytest.raises(ValidationError) as caught:
        CellSpec(**CELL | changes)
    assert words in explain(caught.value)


def test_a_model_without_gaps_is_refused(monkeypatch):
    monkeypatch.setattr(MODELS["svm_eye"], "allows_gaps", False)
    CellSpec(**CELL | dict(hidden="0.3-test-eeg"))
    for word in ("0.3-test", "1-test-eeg"):
        with pytest.raises(ValidationError, match="svm_eye does not"):
            CellSpec(**CELL | dict(hidden=word))


def test_what_is_hidden_is_a_setting():
    word, mapping = (CellSpec(**CELL | dict(hidden=h)) for h in ("0.30-both", {"share": 0.3}))
    assert word == mapping
    assert settings_of(word)["hidden"] == "0.3-both"
    assert settings_of(CellSpec(**CELL))["hidden"] is None
    one = CELL | dict(model="svm", samples={})
    named = CellSpec(**one | dict(hidden="0.3-both-eeg"))
    assert settings_of(named) == settings_of(CellSpec(**one | dict(hidden="0.3-both")))
    stored = word.model_dump(mode="json")
    assert CellSpec(**stored) == word
    stored.pop("hidden")
    assert CellSpec(**stored).hidden is None, "results of before stay readable"


# ---- cells


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("hiding")
    write_twin("SEED-V", root / "SEED-V", subjects=1, seconds_per_trial=24, seed=0)
    ds = open_dataset("SEED-V", root / "SEED-V")
    write_features(ds, root / "features", source="released", feature="de", progress=False)
    return root


def run(folder, model, **changes):
    "A cell on the twin: its result and its predictions."
    needs = MODELS[model].needs
    samples = SEQUENCES if needs.kind == "sequence" else {"modalities": BOTH}
    hyper = MODELS[model].small if needs.kind == "sequence" else {}
    words = "-".join(str(value) for value in changes.values())
    cell = dict(dataset="SEED-V", features=folder / "features", model=model, hyper=hyper)
    cell |= dict(samples=samples, subjects=[1], out=folder / f"{model}-{words}.json") | changes
    return run_cell(cell, progress=False), read_predictions(cell["out"])


def train_accuracies(result):
    return [fold.train_accuracy for fold in result.folds]


def test_each_side_is_hidden_by_itself(folder):
    words = (None, "0.5-train", "0.5-test", "0.5-both")
    found = {word: run(folder, "svm_eye", hidden=word) for word in words}
    whole, p_whole = found[None]
    assert not [caveat for caveat in whole.caveats if "hidden" in caveat]
    for word in words[1:]:
        result, predictions = found[word]
        assert result.caveats.count(hiding(word).caveat) == 1
        assert result.spec.hidden == hiding(word)
        assert not predictions.equals(p_whole)
        assert read_result(folder / f"svm_eye-{word}.json")[0] == result
    assert not found["0.5-both"][1].equals(found["0.5-train"][1])


def test_a_side_that_hides_nothing_is_whole(folder, monkeypatch):
    "A model that learns nothing depends on what it is asked about alone."
    monkeypatch.setattr(MODELS["svm_eye"], "_fit", lambda self, train, val, adapt: None)
    monkeypatch.setattr(MODELS["svm_eye"], "_predict_proba", _digit_of_sum)
    words = (None, "0.5-train", "0.5-test", "0.5-both", "1-test-eye")
    found = {w: run(folder, "svm_eye", hidden=w, seed=0) for w in words}
    tested = {word: predictions for word, (_, predictions) in found.items()}
    learnt = {word: train_accuracies(result) for word, (result, _) in found.items()}
    assert tested["0.5-train"].equals(tested[None])
    assert tested["0.5-test"].equals(tested["0.5-both"])
    assert not tested["0.5-test"].equals(tested[None])
    assert not tested["1-test-eye"].equals(tested[None])
    assert learnt["0.5-test"] == learnt["1-test-eye"] == learnt[None]
    assert learnt["0.5-train"] == learnt["0.5-both"] != learnt[None]


def _digit_of_sum(self, samples):
    total = samples.eeg.sum((1, 2, 3), dtype=float) + np.nansum(samples.eye, axis=(1, 2))
    return np.eye(self.n_classes)[(100 * abs(total)).astype(int) % self.n_classes]


@pytest.mark.parametrize("word", ["0.3-both", "0.5-train", "1-test-eye", "1-test-eeg"])
def test_a_network_of_both_modalities_runs_with_each_side(folder, word):
    result, predictions = run(folder, "mmv_sstma", hidden=word, pretrained=folder / "weights")
    assert np.isfinite(predictions.filter(like="p_")).all(axis=None)
    n_weights = len(list((folder / "weights").glob("*.safetensors")))
    assert n_weights == len(result.spec.build().stages()), "the pool is whole, whatever is hidden"


def test_too_much_is_refused_before_any_fit(folder, monkeypatch):
    monkeypatch.setattr("emo_lib.run.cells.fit_group", None)
    cell = dict(dataset="SEED-V", features=folder / "features", samples={"modalities": BOTH})
    with pytest.raises(ValueError, match="hides at least one of 33 eye features, found 0.01"):
        run_cell(cell | dict(model="svm_eye", hidden="0.01-test"), progress=False)
    with pytest.raises(ValueError, match="0.995-test-eeg leaves nothing that svm takes in .* test"):
        run_cell(cell | dict(model="svm", hidden="0.995-test-eeg"), progress=False)
    with pytest.raises(ValueError, match="bad or hidden channels already"):
        run_cell(cell | dict(model="svm", hidden="0.5-test-eeg", missing=[61]), progress=False)


def test_channels_that_are_missing_come_on_top_of_those_that_are_hidden(folder, monkeypatch):
    seen = []

    def spy(model, samples):
        seen.append(samples.there.sum(2).max())
        return usual(model, samples)

    usual = MultimodalSVM._predict_proba
    monkeypatch.setattr(MultimodalSVM, "_predict_proba", spy)
    result, _ = run(folder, "svm_eye", hidden="0.3-test", missing=[0, 5])
    for fold in result.folds:
        assert fold.missing[0].accuracy == fold.accuracy
    left = sorted({int(n) for n in seen})
    assert left[-1] == 62, "the training samples are whole"
    assert left[:-1] == [left[0], 62 - 19]  # 30 % of 62 are 19; some of the five were hidden
    assert left[0] < 62 - 19


# ---- people without eye movements


def without_eye(folder, name, **rows):
    "A cell of features in which `rows` (column=value) have no eye movements."
    features = load_features(folder / "features")
    lacks = np.all([features[column] == value for column, value in rows.items()], axis=0)
    eye = features.eye.where(~lacks[:, None])
    spec = CellSpec(**CELL | dict(model=name, hyper=MODELS[name].small, protocol="seedv-9-6"))
    samples = make_samples(features.assign(eye=eye), modalities=BOTH)
    return spec, samples, spec.folds(samples.meta)


def test_training_without_any_eye_movements_is_refused(folder):
    subject = int(load_features(folder / "features").subject[0])
    with pytest.raises(ValueError, match="svm_eye takes eye movements, and no training") as caught:
        check_modalities(*without_eye(folder, "svm_eye", subject=subject))
    assert f"'subject': {subject}" in str(caught.value)
    spec, samples, folds = without_eye(folder, "svm_eye", subject=subject)
    others = [fold for fold in folds if fold.names["subject"] != subject]
    assert check_modalities(spec, samples, others) == others, "the advice of the message"


def test_trials_without_eye_movements_are_a_caveat(folder):
    folds = check_modalities(*without_eye(folder, "svm_eye", trial=1))
    words = r"[1-9]\d* of \d+ training samples have no eye movements"
    assert all(re.search(words, " ".join(fold.caveats)) for fold in folds)


def test_a_pool_without_eye_movements_is_refused():
    samples = looks_for("mmv_sstma")
    model, bare = small("mmv_sstma"), hide(samples, hiding("1-train-eye"), seed=0)
    with pytest.raises(ValueError, match="stage 'eye': no sample of the pre-training pool"):
        model.pretrain(next(s for s in model.stages() if s.name == "eye"), bare)


def test_weights_of_another_scale_are_refused(tmp_path):
    samples = looks_for("mmv_sstma")
    model = small("mmv_sstma")
    for stage in model.stages():
        model.pretrain(stage, samples)
        model.save_stage(stage, tmp_path / f"{stage.name}.safetensors")
    model.save_pretrained(tmp_path / "all.safetensors")
    other = small("mmv_sstma", eye_scale="standard")
    words = "expected eye_scale standard, found 10-100"
    with pytest.raises(ValueError, match=words):
        other.load_stage("eye", tmp_path / "eye.safetensors")
    other.load_stage("eeg", tmp_path / "eeg.safetensors")
    from_file = small("mmv_sstma", eye_scale="standard", pretrained=tmp_path / "all.safetensors")
    with pytest.raises(ValueError, match=words):
        from_file.fit(samples)


@pytest.mark.parametrize("text", ["0.3", "3e-1"])
def test_a_mask_ratio_is_a_number(text):
    with pytest.raises(ValueError, match="mask_ratio: expected a number, found"):
        small("mmv_sstma", mask_ratio=text).check_params()


# ---- grids and tables


def grid_of(**experiment):
    twin = {"twin": {"subjects": 1, "seconds_per_trial": 24}, "feature": "de"}
    twin["source"] = "released"
    exp = dict(samples={"modalities": BOTH}, models={"svm_eye": None}) | experiment
    return make_grid(dict(name="hide", data={"SEED-V": twin}, experiments={"e": exp}))


def test_a_grid_varies_what_is_hidden():
    words = [None, "0.3-both", "0.5-train", "1-test-eye"]
    grid = grid_of(studies={"hidden": dict(vary={"hidden": words}, models=["svm_eye"])})
    jobs = grid_jobs(grid)
    outs = jobs.studies["e", "hidden"]
    assert outs[0] == jobs.main["e"][0]
    assert outs[3].endswith("SEED-V__svm_eye__hidden-1-test-eye__seed0.json")
    found = [CellSpec(**jobs.cells[out]).hidden for out in outs]
    assert found == [None, *map(hiding, words[1:])]


def test_an_experiment_hides_and_its_study_can_show_everything():
    study = dict(vary={"hidden": ["0.3-both", None]}, models=["svm_eye"])
    jobs = grid_jobs(grid_of(hidden="0.3-both", studies={"hidden": study}))
    same, whole = jobs.studies["e", "hidden"]
    assert [same] == jobs.main["e"]
    assert CellSpec(**jobs.cells[same]).hidden == hiding("0.3-both")
    assert CellSpec(**jobs.cells[whole]).hidden is None


def test_a_word_that_is_none_is_refused_by_the_grid():
    for word, expected in (("0.3", "SHARE-SIDE"), ("1-test", "hides all that svm_eye takes")):
        with pytest.raises(ValueError, match=expected):
            grid_of(studies={"h": dict(vary={"hidden": [word]}, models=["svm_eye"])})


def test_tables_tell_results_with_hidden_channels_apart():
    words = [None, "0.3-both", "0.5-both"]
    results = [invented_result("svm", 60 - i, hidden=word) for i, word in enumerate(words)]
    levels = observations(results, Study("toy", "Toy", level="hidden", heading="hidden"))
    assert set(levels["level"]) == {"nothing", "0.3-both", "0.5-both"}
    rows = read_rows("row | title | SEED\na | all | 60.0 ± 5.0\nb | less | 50.0 ± 5.0")
    stated = dict(a={"hidden": None}, b={"hidden": "0.3-both"})
    rows = {k: replace(row, model="svm", hyper=stated[k]) for k, row in rows.items()}
    required = {"protocol": "cross_session"}
    table = PrintedTable("toy.t", "Toy", rows=rows, reference="a", required=required)
    selection = arrange(results, table)
    assert selection.shown == results[:2]
    assert "hidden = 0.5-both" in selection.left_out[0][1]
    assert [row.label for row in rows_of(selection.shown, table)] == ["all", "less"]
    elsewhere = replace(table, rows={"svm": replace(rows["a"], hyper={})}, reference="svm")
    assert [r.label for r in rows_of(results[:2], elsewhere)][1] == "all (hidden = 0.3-both)"


def test_the_units_of_a_model_are_not_taken_for_what_is_hidden():
    "`bdae` has a hyper-parameter of that name."
    units = [
        invented_result("bdae", 60, hyper={"hidden": n}, samples=CELL["samples"]) for n in (50, 99)
    ]
    first, second = rows_of(units, Study("toy", "Toy"))
    assert (first.settings["model_hidden"], first.settings["hidden"]) == (50, None)
    assert first.label != second.label
