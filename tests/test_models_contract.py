"""One contract for all models: a model is tested here by being in the registry. SYNTHETIC data."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.utils import get_tags
from stubs import DEVICE, STUBS, AdaptingSessions, AdaptingStub, EyeStub, SequenceStub

from emo_lib.base.montage import CHANNELS
from emo_lib.models.registry import MODELS, make_model
from emo_lib.protocols.folds import Fold
from emo_lib.protocols.registry import PROTOCOLS
from emo_lib.run.cells import run_cell
from emo_lib.run.fitting import shared_fits
from emo_lib.run.results import fold_name, read_predictions
from emo_lib.run.spec import CellSpec
from emo_lib.samples.needs import Needs
from emo_lib.samples.samples import from_arrays, make_samples
from emo_lib.training.estimator import Classifier
from emo_lib.twins.brain import TwinSettings
from emo_lib.twins.twin import twin_set

TAKES_ARRAYS = [name for name, model in MODELS.items() if model.needs.modalities == ("eeg",)]
every_model = pytest.mark.parametrize("name", TAKES_ARRAYS)
NETWORKS = [name for name in TAKES_ARRAYS if "features" in MODELS[name].views]
every_network = pytest.mark.parametrize("name", NETWORKS)
PRETRAINED = [name for name in TAKES_ARRAYS if MODELS[name](2).stages()]
every_pretrained = pytest.mark.parametrize("name", PRETRAINED)
TAKES_EYE = [name for name, model in MODELS.items() if "eye" in model.needs.modalities]
every_eye_model = pytest.mark.parametrize("name", TAKES_EYE)


def toy(n_channels=62, n=24, seed=0, classes=3):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    X = rng.normal(20, 2, (n, n_channels, 5)).astype("float32")
    X[:, :8, 4] += 4 * y[:, None]
    return X, y


def make(name, n_channels=62, n_classes=3, **hyper):
    device = {"device": DEVICE} if name in NETWORKS else {}
    hyper = device | MODELS[name].small | hyper
    return make_model(name, n_classes, CHANNELS[:n_channels], **hyper)


@pytest.mark.parametrize("model", [*MODELS.values(), *STUBS], ids=lambda model: model.name)
def test_what_a_class_says_of_itself(model):
    assert model.title
    assert model.reference
    assert isinstance(model.needs, Needs)
    assert set(model.views) <= {"features", "attention"}
    assert set(model.small) <= set(model(2).get_params())
    assert model(2, **model.small).check_params()
    assert model.has_weights == (model.save is not Classifier.save)
    for view, method in (("features", "transform"), ("attention", "attention")):
        assert (view in model.views) <= callable(getattr(model, method, None))


@every_model
@pytest.mark.parametrize("n_channels", [62, 30])
@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_answers(name, n_channels, n_classes):
    X, y = toy(n_channels, classes=n_classes)
    model = make(name, n_channels, n_classes)
    assert model.fit(X, y) is model
    p, predicted = model.predict_proba(X), model.predict(X)
    assert p.shape == (24, n_classes)
    assert np.isfinite(p).all()
    assert (p >= 0).all()
    assert np.allclose(p.sum(1), 1)
    assert np.array_equal(predicted, p.argmax(1))
    assert predicted.dtype.kind == "i"
    assert model.classes_.tolist() == list(range(n_classes))


@every_model
def test_the_input_is_left_alone_and_types_are_free(name):
    X, y = toy()
    before = X.copy()
    a = make(name).fit(X, y).predict_proba(X)
    assert np.array_equal(X, before)
    b = make(name).fit(X.astype("float64"), y.astype("int32")).predict_proba(X.tolist())
    assert np.array_equal(a, b)


@every_model
def test_samples_and_arrays_give_the_same_model(name):
    X, y = toy()
    valid = np.random.default_rng(0).random((24, 62)) > 0.2
    a = make(name).fit(X, y, valid=valid, val=(X, y, valid)).predict_proba(X, valid=valid)
    samples = from_arrays(X, y, valid)
    b = make(name).fit(samples, val=samples).predict_proba(samples)
    assert np.array_equal(a, b)


@every_model
def test_equal_seeds_give_equal_answers(name):
    X, y = toy()
    a = make(name, seed=3).fit(X, y)
    np.random.seed(99)
    b = clone(a).fit(X, y)
    assert a.get_params() == b.get_params()
    assert np.array_equal(a.predict_proba(X), b.predict_proba(X))
    assert np.array_equal(a.predict_proba(X), a.predict_proba(X)), "prediction is not random"
    again = a.fit(X, y)
    assert np.array_equal(again.predict_proba(X), b.predict_proba(X)), "fit starts from scratch"


@every_model
def test_a_window_does_not_depend_on_its_neighbours_in_prediction(name):
    X, y = toy()
    model = make(name).fit(X, y)
    assert np.allclose(model.predict_proba(X)[5:6], model.predict_proba(X[5:6]), atol=1e-5)


@every_model
@pytest.mark.parametrize("per_window", [False, True])
@pytest.mark.parametrize("k", [1, 10, 40])
def test_values_of_missing_channels_do_not_matter(name, k, per_window):
    X, y = toy()
    missing = np.random.default_rng(k).choice(62, k, replace=False)
    valid = np.ones((24, 62), bool)
    valid[:: 2 if per_window else 1, missing] = False
    filled = np.where(valid[..., None], X, np.float32(1e6))
    valid = valid if per_window else valid[0]
    a, b = make(name).fit(X, y, valid=valid), make(name).fit(filled, y, valid=valid)
    assert np.array_equal(a.predict_proba(X, valid=valid), b.predict_proba(filled, valid=valid))


@every_model
def test_validation_windows_are_accepted(name):
    X, y = toy()
    V, yv = toy(seed=1)
    model = make(name).fit(X, y, val=(V, yv, np.ones((24, 62), bool)))
    assert model.predict(V).shape == (24,)


BAD = {
    "NaN": lambda X, y: (np.where(np.arange(5) == 2, np.nan, X), y),
    "inf": lambda X, y: (np.where(np.arange(5) == 2, np.inf, X), y),
    "61 channels": lambda X, y: (X[:, :61], y),
    "a table": lambda X, y: (X.reshape(24, 310), y),
    "labels short": lambda X, y: (X, y[:-1]),
    "four labels": lambda X, y: (X, np.arange(24) % 4),
    "two words": lambda X, y: (X, np.where(y > 0, "sad", "happy")),
    "label -1": lambda X, y: (X, y - 1),
    "label 0.5": lambda X, y: (X, y + 0.5),
    "one window": lambda X, y: (X[:1], y[:1]),
}


@every_model
@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_fit(name, change):
    with pytest.raises(ValueError):
        make(name).fit(*change(*toy()))


@every_model
@pytest.mark.parametrize(
    "change, words",
    [
        (lambda X, y: (X, 0 * y + 1), "at least 2 classes, found only class 1"),
        (lambda X, y: (X.astype(str), y), "real numbers"),
        (lambda X, y: (X + 0j, y), "real numbers"),
        (lambda X, y: (X.astype(object), y), "real numbers"),
        (lambda X, y: (X[..., :0], y), "at least one band"),
        (lambda X, y: (X[:0], y[:0]), "at least 2 (windows|sequences|trials)"),
        (lambda X, y: (X, None), "labels 0..2, found samples without labels"),
    ],
    ids=["one class", "text", "complex", "objects", "0 bands", "0 windows", "unlabelled"],
)
def test_every_model_refuses_in_the_same_words(name, change, words):
    with pytest.raises(ValueError, match=words):
        make(name).fit(*change(*toy()))


@pytest.mark.parametrize("name", [n for n in TAKES_ARRAYS if MODELS[n].needs.kind == "window"])
def test_a_model_of_windows_refuses_steps(name):
    X, y = toy()
    with pytest.raises(ValueError, match="takes windows, the samples have 3 steps"):
        make(name).fit(X[:, None].repeat(3, 1), y)


@every_model
@pytest.mark.parametrize(
    "channels, words",
    [
        (("FP1", "XX", "A1"), "unknown 'XX', 'A1'"),
        (("FP1", "CZ", "Cz"), "twice 'CZ'"),
        (("T3", "T7"), "twice 'T7'"),
        ((), "found none"),
    ],
)
def test_channel_names_are_those_of_the_montage_each_once(name, channels, words):
    X, y = toy(len(channels))
    model = make(name).set_params(channels=channels)
    with pytest.raises(ValueError, match=words):
        model.check_params()
    with pytest.raises(ValueError, match=words):
        model.fit(X, y)


@every_model
def test_samples_of_other_channels_are_refused(name):
    X, y = toy()
    model = make(name).fit(X, y)
    reversed_channels = from_arrays(X[:, ::-1], channels=CHANNELS[::-1])
    with pytest.raises(ValueError, match="expected the 62 channels"):
        model.predict(reversed_channels)


@every_model
def test_bad_validation_windows_are_refused(name):
    X, y = toy()
    for val in (
        (X[:, :61], y),
        (X, y + 1),
        (X, y[:-1]),
        (X[..., :4], y),
        (X * np.nan, y),
        (X[:0], y[:0]),
        (X, y, np.ones(61, bool)),
        X,
    ):
        with pytest.raises(ValueError):
            make(name).fit(X, y, val=val)


@every_model
def test_a_model_that_does_not_adapt_refuses_samples_of_the_target(name):
    X, y = toy()
    if MODELS[name].needs.adapts:
        pytest.skip("adapts")
    with pytest.raises(ValueError, match="adapt: expected None"):
        make(name).fit(X, y, adapt=X)


@every_model
def test_no_windows_no_answers(name):
    X, y = toy()
    model = make(name).fit(X, y)
    assert model.predict(X[:0]).shape == (0,)
    assert model.predict(X[:0]).dtype == model.predict(X).dtype
    assert model.predict_proba(X[:0]).shape == (0, 3)


@every_network
def test_a_loss_that_explodes_is_a_value_error(name):
    X, y = toy()
    with pytest.raises(ValueError, match="the loss is .* lower lr"):
        make(name, lr=1e30, optimizer="sgd", epochs=8).fit(X, y)


@every_model
def test_bad_input_is_refused_in_predict(name):
    X, y = toy()
    model = make(name).fit(X, y)
    for bad in (np.full_like(X, np.nan), X[:, :61], X[..., :4]):
        with pytest.raises(ValueError):
            model.predict(bad)
        with pytest.raises(ValueError):
            model.predict_proba(bad)
    for valid in (np.ones(61, bool), np.ones(62), np.zeros(62, bool)):
        with pytest.raises(ValueError):
            model.predict(X, valid=valid)


@every_model
def test_predict_before_fit(name):
    with pytest.raises(NotFittedError):
        make(name).predict(toy()[0])
    with pytest.raises(NotFittedError):
        make(name).predict_proba(toy()[0])


@every_model
def test_unknown_hyper_parameters_are_named_with_the_known(name):
    with pytest.raises(TypeError, match="no_such") as e:
        make_model(name, 3, no_such=1)
    assert "seed" in str(e.value)
    with pytest.raises(TypeError, match="no_such"):
        MODELS[name](3, no_such=1)


@every_model
def test_impossible_hyper_parameters_are_refused_before_data(name):
    assert make_model(name, 3).check_params() is not None
    with pytest.raises(ValueError, match="seed"):
        make(name, seed=-1).check_params()
    with pytest.raises(ValueError, match="seed"):
        make(name, seed="zero").fit(*toy())


@every_model
@pytest.mark.parametrize(
    "bad", [10**330, -(10**330), float("inf")], ids=["10^330", "-10^330", "inf"]
)
def test_numbers_beyond_all_bounds_are_refused(name, bad):
    numbers = [key for key, value in make(name).get_params().items() if type(value) is float]
    assert numbers or name not in NETWORKS
    for key in numbers:
        with pytest.raises(ValueError, match=key):
            make(name, **{key: bad}).check_params()


@every_model
def test_pretraining_keeps_the_contract(name):
    X, y = toy()
    model = make(name)
    for stage in model.stages():
        assert model.pretrain(stage, X, train=X[:12]) is model
        assert set(stage.uses) <= {"pool", "train"}
        assert len(stage.key) == 16
    assert np.allclose(model.fit(X, y).predict_proba(X).sum(1), 1)
    for call in (
        lambda: model.pretrain("no such", X),
        lambda: model.save_stage("no such", "x"),
        lambda: model.load_stage("no such", "x"),
    ):
        with pytest.raises(ValueError, match="no pre-training stage 'no such'; it has"):
            call()


def pretrained(name):
    "A model whose stages are trained in memory."
    X, _ = toy()
    model = make(name)
    for stage in model.stages():
        model.pretrain(stage, X, train=X[:12])
    return model


@every_pretrained
def test_a_clone_without_the_pretrained_weights_gives_a_warning(name):
    model = pretrained(name)
    with pytest.warns(UserWarning, match="no pre-trained weights.*save_pretrained"):
        copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not copy.pretrained_


@every_pretrained
@pytest.mark.filterwarnings("error")
def test_saved_pretrained_weights_survive_cloning(name, tmp_path):
    X, y = toy()
    model = pretrained(name)
    expected = model.fit(X, y).predict_proba(X)
    assert model.save_pretrained(tmp_path / "w.safetensors") is model
    assert np.array_equal(clone(model).fit(X, y).predict_proba(X), expected)
    assert np.array_equal(clone(clone(model)).fit(X, y).predict_proba(X), expected)
    given = make(name, pretrained=str(tmp_path / "w.safetensors"))
    assert np.array_equal(given.fit(X, y).predict_proba(X), expected)
    assert not np.array_equal(make(name).fit(X, y).predict_proba(X), expected)


@every_pretrained
@pytest.mark.filterwarnings("error")
def test_cross_validation_starts_from_the_saved_weights(name, tmp_path):
    X, y = toy(n=48)
    model = pretrained(name)
    folds = list(StratifiedKFold(3).split(X, y))
    by_hand = [model.fit(X[train], y[train]).predict_proba(X[test]) for train, test in folds]
    model.save_pretrained(tmp_path / "w.safetensors")
    found = []

    def keep(estimator, X, y):
        found.append(estimator.predict_proba(X))
        return 0.0

    cross_val_score(model, X, y, cv=folds, scoring=keep)
    assert all(map(np.array_equal, found, by_hand))


@every_pretrained
def test_a_file_of_weights_and_other_weights_do_not_mix(name, tmp_path):
    X, y = toy()
    file = tmp_path / "w.safetensors"
    with pytest.raises(ValueError, match="call pretrain first"):
        make(name).save_pretrained(file)
    model = pretrained(name).save_pretrained(file)
    stage = model.stages()[0]
    for call in (lambda: model.pretrain(stage, X), lambda: model.load_stage(stage, file)):
        with pytest.raises(ValueError, match="pretrained: expected None.*set_params"):
            call()
    assert make(name).load_stage(stage, file).pretrained_.keys() == {stage.name}
    with pytest.raises(ValueError, match="for the 4 bands .* found weights for 5"):
        clone(model).fit(X[..., :4], y)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        clone(model).fit(X, y)
    with pytest.raises(ValueError, match="pretrained: expected the path .* found 5"):
        make(name, pretrained=5).check_params()


@every_pretrained
def test_a_cell_takes_pretrained_weights_from_its_own_folder(name, tmp_path):
    with pytest.raises(ValidationError, match="pretrained follow from .* leave them out"):
        CellSpec(dataset="SEED", features=tmp_path, model=name, hyper={"pretrained": "w"})


OWN_LABELS = {
    "words": np.array(["angry", "calm", "sad"]),
    "objects": np.array(["angry", "calm", "sad"], dtype=object),
    "1..3": np.array([1, 2, 3]),
    "other numbers": np.array([-2, 5, 40]),
}


@every_model
@pytest.mark.parametrize("labels", OWN_LABELS.values(), ids=OWN_LABELS)
def test_labels_of_ones_own_come_back(name, labels):
    X, y = toy()
    V, yv = toy(seed=1)
    numbers = make(name).fit(X, y, val=(V, yv))
    model = make(name).fit(X, labels[y], val=(V, labels[yv]))
    assert model.classes_.tolist() == labels.tolist()
    assert np.array_equal(model.predict_proba(V), numbers.predict_proba(V))
    assert np.array_equal(model.predict(V), labels[numbers.predict(V)])
    assert model.score(V, labels[yv]) == numbers.score(V, yv)
    assert model.predict(X[:0]).shape == (0,)
    with pytest.raises(ValueError, match="found other"):
        make(name).fit(X, labels[y], val=(V, np.full(24, "other")))
    with pytest.raises(ValueError, match="val: expected .* found Samples with class numbers"):
        make(name).fit(X, labels[y], val=from_arrays(V, yv))


@every_model
def test_true_and_false_are_labels(name):
    X, y = toy(classes=2)
    model = make(name, n_classes=2).fit(X, y == 1)
    assert model.classes_.tolist() == [False, True]
    assert model.predict(X).dtype == bool


@every_model
def test_class_numbers_keep_their_places_when_training_lacks_a_class(name):
    X, y = toy(classes=2)
    for labels in (y, y + 1):
        model = make(name).fit(X, labels)
        assert model.classes_.tolist() == [0, 1, 2]
        assert set(model.predict(X)) <= {0, 1, 2}


@every_model
def test_samples_hold_class_numbers_only(name):
    X, y = toy()
    with pytest.raises(ValueError, match="expected labels 0..2, found 3"):
        make(name).fit(from_arrays(X, y + 1))


@every_network
def test_labels_of_ones_own_are_saved_with_the_weights(name, tmp_path):
    X, y = toy()
    words = OWN_LABELS["words"][y]
    model = make(name).fit(X, words)
    model.save(tmp_path / "w.safetensors")
    loaded = make(name).load(tmp_path / "w.safetensors")
    assert np.array_equal(loaded.predict(X), model.predict(X))
    assert loaded.classes_.tolist() == model.classes_.tolist()


@every_model
def test_a_table_is_taken_only_where_its_columns_have_one_meaning(name):
    X, y = toy()
    one_band = make(name).fit(X[..., 4], y)
    assert np.array_equal(
        one_band.predict_proba(X[..., 4]), make(name).fit(X[..., 4:], y).predict_proba(X[..., 4:])
    )
    one_channel = make(name, 1).fit(X[:, 0], y)
    assert np.array_equal(one_channel.predict(X[:, 0]), one_channel.predict(X[:, :1]))
    table = X.reshape(24, 310)
    with pytest.raises(ValueError) as e:
        make(name).fit(table, y)
    assert "(window, channel, band)" in str(e.value)
    assert "X.reshape(-1, 62, 5)" in str(e.value)
    assert np.array_equal(table.reshape(-1, 62, 5), X)
    assert "X.reshape(-1, 5, 62).swapaxes(1, 2)" in str(e.value)
    by_band = X.swapaxes(1, 2).reshape(24, 310)
    assert np.array_equal(by_band.reshape(-1, 5, 62).swapaxes(1, 2), X)


SPELLINGS = ("Fp1", "fpz", "EEG FP2-Ref", "Af3", "T3", "T4", "T5", "T6", "Cz", "Oz")


@every_model
def test_channels_may_be_spelled_as_elsewhere(name, tmp_path):
    names = ("FP1", "FPZ", "FP2", "AF3", "T7", "T8", "P7", "P8", "CZ", "OZ")
    X, y = toy(len(names))
    usual = make(name).set_params(channels=names).fit(X, y)
    model = make(name).set_params(channels=SPELLINGS).fit(X, y)
    expected = usual.predict_proba(X)
    assert np.array_equal(model.predict_proba(X), expected)
    assert model.get_params()["channels"] == SPELLINGS, "hyper-parameters stay as they are given"
    assert model.channel_names == names
    for channels in (names, SPELLINGS):
        samples = from_arrays(X, channels=channels)
        assert np.array_equal(model.predict_proba(samples), expected)
        assert np.array_equal(usual.predict_proba(samples), expected)
    assert [s.key for s in model.stages()] == [s.key for s in usual.stages()]
    if model.has_weights:
        model.save(tmp_path / "w.safetensors")
        loaded = make(name).set_params(channels=names).load(tmp_path / "w.safetensors")
        assert np.array_equal(loaded.predict_proba(X), expected)


@every_model
def test_scikit_learn_sees_a_classifier(name):
    model = make(name)
    tags = get_tags(model)
    assert is_classifier(model)
    assert tags.classifier_tags.multi_class
    assert tags.target_tags.required
    assert tags.input_tags.three_d_array
    assert not tags.input_tags.two_d_array
    assert not tags.input_tags.allow_nan


@every_model
def test_scikit_learn_validates_and_searches(name):
    X, y = toy(n=36)
    words = OWN_LABELS["words"][y]
    assert np.isfinite(cross_val_score(make(name), X, words, cv=3)).all()
    search = GridSearchCV(make(name), {"seed": [0, 1]}, cv=3, scoring="roc_auc_ovr")
    search.fit(X, words)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert set(search.predict(X)) <= set(words)


@pytest.mark.parametrize(
    "name", [n for n in TAKES_ARRAYS if hasattr(MODELS[n], "decision_function")]
)
def test_a_decision_function_ranks_as_the_model_predicts(name):
    X, y = toy()
    model = make(name).fit(X, y)
    d = model.decision_function(X)
    assert d.shape == (24, 3)
    assert np.array_equal(d.argmax(1), model.predict(X))
    assert model.decision_function(X[:0]).shape == (0, 3)
    two = make(name, n_classes=2).fit(X, np.where(y > 0, "sad", "happy"))
    d = two.decision_function(X)
    assert d.shape == (24,)
    assert np.array_equal(two.classes_[(d > 0).astype(int)], two.predict(X))
    with pytest.raises(NotFittedError):
        make(name).decision_function(X)


def test_the_linear_svm_has_a_decision_function():
    assert callable(MODELS["svm"].decision_function)


@every_network
@pytest.mark.parametrize("n_channels", [62, 30])
def test_saved_and_loaded_weights_answer_alike(name, n_channels, tmp_path):
    X, y = toy(n_channels)
    per_window = np.ones((24, n_channels), bool)
    per_window[::2, 3] = False
    file = tmp_path / "weights.safetensors"
    model = make(name, n_channels).fit(X, y, valid=per_window)
    model.save(file)
    loaded = make(name, n_channels, seed=7).load(file)
    for valid in (None, per_window):
        for method in ("predict_proba", "transform"):
            expected = getattr(model, method)(X, valid=valid)
            assert np.array_equal(getattr(loaded, method)(X, valid=valid), expected)
    with pytest.raises(ValueError, match="expected channels"):
        make(name, n_channels - 1).load(file)
    with pytest.raises(ValueError, match="do not fit this network"):
        make(name, n_channels, n_classes=4).load(file)


@every_network
def test_weights_of_another_class_are_refused(name, tmp_path):
    X, y = toy()
    make(name).fit(X, y).save(tmp_path / "weights.safetensors")
    for other in set(NETWORKS) - {name}:
        with pytest.raises(ValueError, match="expected class .* found"):
            make(other).load(tmp_path / "weights.safetensors")


@every_model
def test_a_model_that_is_not_fitted_cannot_be_saved(name, tmp_path):
    with pytest.raises(ValueError):
        make(name).save(tmp_path / "weights.safetensors")


@every_network
def test_transform_is_what_the_last_linear_layer_sees(name):
    X, y = toy()
    model = make(name)
    with pytest.raises(NotFittedError):
        model.transform(X)
    z = model.fit(X, y).transform(X)
    assert z.dtype == np.float32
    assert z.ndim == 2
    assert len(z) == 24
    assert np.isfinite(z).all()
    last = [m for m in model.net_.modules() if type(m).__name__ == "Linear"][-1]
    logits = z @ last.weight.detach().cpu().numpy().T + last.bias.detach().cpu().numpy()
    p = np.exp(logits - logits.max(1, keepdims=True))
    assert np.allclose(p / p.sum(1, keepdims=True), model.predict_proba(X), atol=1e-5)
    with pytest.raises(ValueError):
        model.transform(X[:, :61])


@every_network
def test_no_windows_no_features(name):
    X, y = toy()
    model = make(name).fit(X, y)
    assert model.transform(X[:0]).shape == (0, model.transform(X).shape[1])


@every_network
def test_half_precision_trains_other_weights_near_the_same(name):
    X, y = toy()
    full, half = (make(name, precision=p).fit(X, y) for p in ("float32", "bfloat16"))
    pairs = zip(full.net_.state_dict().values(), half.net_.state_dict().values())
    assert all(v.dtype == w.dtype for v, w in pairs), "master weights stay as they are"
    a, b = full.predict_proba(X), half.predict_proba(X)
    assert not np.array_equal(a, b)
    assert np.allclose(a, b, atol=0.1)
    with pytest.raises(ValueError, match="precision"):
        make(name, precision="float16").check_params()


def size(name, n_channels=62, n_classes=3, **hyper):
    net = make_model(name, n_classes, CHANNELS[:n_channels], **hyper).make_net(5)
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", ["vit", "simplevit", "fbccnn", "stnet"])
def test_an_image_model_does_not_depend_on_the_size_of_the_cap(name):
    assert size(name, 62) == size(name, 30)


@pytest.mark.parametrize(
    "name, counts",
    [
        ("vit", (114_338, 114_371, 114_404)),
        ("simplevit", (25_570, 25_603, 25_636)),
        ("fbccnn", (2_118_338, 2_118_467, 2_118_596)),
        ("stnet", (2_387_858, 2_388_883, 2_389_908)),
        ("dgcnn", (131_344, 131_409, 131_474)),
    ],
)
def test_table_ii_has_the_parameters_that_torcheeg_counts(name, counts):
    "TorchEEG 1.1.3 with five bands; ViT and SimpleViT with patches of one electrode."
    assert tuple(size(name, n_classes=n) for n in (2, 3, 4)) == counts


@pytest.mark.parametrize("scale", ["sample", "band", "standard"])
def test_dgcnn_keeps_its_scale_in_the_weights(scale, tmp_path):
    X, y = toy()
    model = make("dgcnn", scale=scale).fit(X, y)
    model.save(tmp_path / "w.safetensors")
    loaded = make("dgcnn", scale=scale).load(tmp_path / "w.safetensors")
    assert np.array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_names():
    assert set(MODELS) >= {"vit", "simplevit", "fbccnn", "stnet", "dgcnn", "msmae", "svm"}
    with pytest.raises(ValueError, match=f"unknown model 'smv'; known: {', '.join(MODELS)}"):
        make_model("smv", 3)
    for name in MODELS:
        with pytest.raises(ValueError, match="at least 2 classes"):
            make_model(name, 1)


def test_importing_the_registry_does_not_import_torch():
    program = "import sys, emo_lib.models.registry; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "name, change",
    [
        ("vit", dict(heads=8, head_width=32)),
        ("vit", dict(scale="band")),
        ("dgcnn", dict(scale="band")),
        ("msmae", dict(heads=4)),
        ("msmae", dict(pool="max")),
        ("msmae", dict(scale="band")),
    ],
    ids=str,
)
def test_weights_of_other_parameters_are_refused_even_where_shapes_agree(name, change, tmp_path):
    X, y = toy()
    make(name).fit(X, y).save(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=f"expected ({'|'.join(change)}) "):
        make(name, **change).load(tmp_path / "m.safetensors")


# Models that take more than windows of EEG: three stubs, see stubs.py


@pytest.fixture(scope="module")
def features():
    "DE and eye features of a SEED-V twin: one subject, three sessions, three windows per trial."
    settings = TwinSettings("SEED-V", seed=3, seconds_per_trial=12.0)
    return twin_set(settings, "de", subjects=(1,), sessions=(1, 2, 3), eye=True)


@pytest.fixture
def registered(monkeypatch, features):
    "The stubs in the registries, and the twin's features behind every folder."
    for stub in STUBS:
        monkeypatch.setitem(MODELS.entries, stub.name, stub)
    monkeypatch.setitem(PROTOCOLS.entries, AdaptingSessions.name, AdaptingSessions)
    monkeypatch.setattr("emo_lib.run.cells.load_features", lambda folder: features)


KINDS = {
    EyeStub: dict(modalities=("eeg", "eye")),
    SequenceStub: dict(kind="sequence", length=2),
    AdaptingStub: dict(),
}


def cell_of(stub, tmp_path, **more):
    protocol = "stub_adapting_sessions" if stub.needs.adapts else "cross_session"
    return CellSpec(
        dataset="SEED-V",
        features=tmp_path,
        samples=KINDS[stub],
        model=stub.name,
        hyper=dict(stub.small),
        protocol=protocol,
        out=tmp_path / f"{stub.name}.json",
        **more,
    )


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.name)
def test_a_cell_runs_every_kind_of_model(registered, features, tmp_path, stub):
    result = run_cell(cell_of(stub, tmp_path), progress=False)
    predictions = read_predictions(result.spec.out)
    samples = make_samples(features, **KINDS[stub])
    assert len(result.folds) == 6
    assert len(predictions) == 2 * len(samples)
    assert result.mean > 0.2, "chance of five classes"
    for fold in result.folds:
        assert fold.n_test == (samples.meta.session == fold.names["test_session"]).sum()
        assert fold.n_adapt == (fold.n_test if stub.needs.adapts else 0)


def predicted_by_hand(features, names):
    "Predictions of the adapting stub for one fold, fitted for this target alone."
    samples = make_samples(features)
    session = samples.meta.session.to_numpy()
    train = samples[session == names["train_session"]]
    target = samples[session == names["test_session"]]
    return AdaptingStub(5).fit(train, adapt=target).predict_proba(target)


def assert_each_target_has_its_own_fit(features, result):
    "Fails if two targets of one training session share a fit."
    predictions = read_predictions(result.spec.out)
    for fold in result.folds:
        of_fold = predictions.fold == fold_name(fold.names)
        found = predictions.loc[of_fold, [f"p_{c}" for c in range(5)]].to_numpy()
        assert np.allclose(found, predicted_by_hand(features, fold.names))


def test_a_model_that_adapts_is_fitted_for_each_target(registered, features, tmp_path):
    spec = cell_of(AdaptingStub, tmp_path)
    result = run_cell(spec, progress=False)
    assert_each_target_has_its_own_fit(features, result)
    folds = spec.folds(make_samples(features).meta)
    assert [len(group) for group in shared_fits(spec, folds)] == [1] * 6
    assert len({fold.seed for fold in result.folds}) == 6


def test_sharing_a_fit_between_targets_would_be_noticed(
    registered, features, tmp_path, monkeypatch
):
    fold_key = Fold.key
    monkeypatch.setattr(Fold, "key", lambda fold, needs, uses=(): fold_key(fold, Needs(), uses))
    result = run_cell(cell_of(AdaptingStub, tmp_path), progress=False)
    with pytest.raises(AssertionError):
        assert_each_target_has_its_own_fit(features, result)


def test_a_model_that_does_not_adapt_shares_a_fit_between_targets(registered, features, tmp_path):
    spec = cell_of(SequenceStub, tmp_path)
    folds = spec.folds(make_samples(features, **KINDS[SequenceStub]).meta)
    assert [len(group) for group in shared_fits(spec, folds)] == [2] * 3


@pytest.mark.parametrize(
    "stub, samples, words",
    [
        (SequenceStub, {}, "stub_sequence takes sequences of windows, the samples are windows"),
        (AdaptingStub, dict(kind="trial"), "stub_adapting takes windows, the samples are whole"),
        (EyeStub, {}, "stub_eye takes EEG and eye movements, the samples have EEG"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_cell_refuses_samples_that_its_model_does_not_take(registered, stub, samples, words):
    with pytest.raises(ValueError, match=words):
        CellSpec(dataset="SEED-V", features=".", model=stub.name, samples=samples)


@pytest.mark.parametrize("stub", [EyeStub, SequenceStub], ids=lambda stub: stub.name)
def test_a_stub_network_saves_and_transforms(features, tmp_path, stub):
    samples = make_samples(features, **KINDS[stub])
    model = stub(5, **stub.small).fit(samples)
    model.save(tmp_path / "m.safetensors")
    loaded = stub(5, **stub.small).load(tmp_path / "m.safetensors")
    assert np.array_equal(loaded.predict_proba(samples), model.predict_proba(samples))
    assert model.transform(samples).shape == (len(samples), 8)
    assert model.transform(samples[:0]).shape == (0, 8)


def test_a_model_with_eye_movements_refuses_arrays_and_other_features(features):
    samples = make_samples(features, modalities=("eeg", "eye"))
    model = EyeStub(5, epochs=1).fit(samples)
    with pytest.raises(ValueError, match="EyeStub takes EEG and eye movements"):
        model.predict(samples.as_windows()[0])
    with pytest.raises(ValueError, match="33 eye features as in training, found 32"):
        model.predict(replace(samples, eye=samples.eye[..., :32]))
    with pytest.raises(ValueError, match="eye has NaN or infinite values"):
        model.predict(replace(samples, eye=samples.eye * np.nan))


class EyeOnlyStub(EyeStub):
    needs = Needs(modalities=("eye",))

    def prepare(self, samples):
        return (samples.eye[:, 0],)


def test_a_model_of_eye_movements_alone_needs_no_channels(features):
    samples = make_samples(features, modalities=("eye",))
    model = EyeOnlyStub(5, samples.channels, epochs=1).fit(samples)
    assert (model.n_bands_, model.n_eye_) == (0, 33)
    assert model.predict(samples).shape == (len(samples),)
    with pytest.raises(ValueError, match="channels: expected the names of the EEG channels"):
        EyeStub(5, ()).check_params()


def test_padding_does_not_change_the_answer_for_a_sequence(features):
    settings = dict(kind="sequence", length=2, short="pad")
    samples = make_samples(features, **settings)
    model = SequenceStub(5, epochs=1).fit(samples)
    padded = replace(
        samples,
        eeg=np.concatenate([samples.eeg, 0 * samples.eeg[:, :1]], 1),
        there=np.concatenate([samples.there, samples.there[:, :1] & False], 1),
        steps=np.concatenate([samples.steps, samples.steps[:, :1] & False], 1),
    )
    assert np.allclose(model.predict_proba(padded), model.predict_proba(samples), atol=1e-6)


# Models that take eye movements


def looks(n=24, n_eye=6, seed=0, n_channels=12):
    "Samples of EEG and eye movements, sequences of four steps or windows, of three classes."
    rng = np.random.default_rng(seed)
    X, y = toy(n_channels, n, seed)
    eye = rng.normal(size=(n, 1, n_eye)) + y[:, None, None]
    return replace(from_arrays(X, y, channels=CHANNELS[:n_channels]), eye=eye.astype("float32"))


def as_needed(name, samples):
    "The samples, repeated as steps for a model of sequences."
    if MODELS[name].needs.kind == "window":
        return samples
    names = ("eeg", "eye", "there", "steps")
    return replace(samples, **{k: np.repeat(getattr(samples, k), 4, axis=1) for k in names})


def made(name, **hyper):
    return make(name, 12, **hyper)


@every_eye_model
def test_an_eye_model_answers_and_repeats_itself(name):
    samples = as_needed(name, looks())
    a, b = made(name).fit(samples), made(name).fit(samples)
    p = a.predict_proba(samples)
    assert p.shape == (24, 3)
    assert np.allclose(p.sum(1), 1)
    assert np.array_equal(p, b.predict_proba(samples))
    assert np.array_equal(a.predict(samples), a.classes_[p.argmax(1)])
    assert a.predict_proba(samples[:0]).shape == (0, 3)
    assert np.allclose(a.predict_proba(samples[5:6]), p[5:6], atol=1e-5)


@every_eye_model
def test_an_eye_model_refuses_what_it_cannot_take(name):
    samples = as_needed(name, looks())
    model = made(name).fit(samples)
    with pytest.raises(ValueError, match="expected 6 eye features as in training, found 5"):
        model.predict(replace(samples, eye=samples.eye[:, :, :5]))
    broken = samples.eye.copy()
    broken[3, 0, 2] = np.inf
    with pytest.raises(ValueError, match="eye has .*infinite values in 1 of 24"):
        made(name).fit(replace(samples, eye=broken))
    with pytest.raises(ValueError, match="add eye to the modalities"):
        made(name).fit(replace(samples, eye=None))


@every_eye_model
def test_an_eye_model_bears_a_constant_feature(name):
    samples = as_needed(name, looks())
    eye = samples.eye.copy()
    eye[..., 2] = 7
    constant = replace(samples, eye=eye)
    assert np.isfinite(made(name).fit(constant).predict_proba(constant)).all()


@pytest.mark.parametrize("name", [n for n in TAKES_EYE if MODELS[n].has_weights])
def test_an_eye_model_comes_back_from_its_file(name, tmp_path):
    samples = as_needed(name, looks())
    model = made(name).fit(samples)
    model.save(tmp_path / "w.safetensors")
    again = made(name).load(tmp_path / "w.safetensors")
    assert np.array_equal(again.predict_proba(samples), model.predict_proba(samples))


@pytest.mark.parametrize("name", [n for n in TAKES_EYE if MODELS[n](2).stages()])
def test_an_eye_model_pretrains_and_resumes_from_its_stages(name, tmp_path):
    samples = as_needed(name, looks())
    model = made(name)
    other = made(name)
    for stage in model.stages():
        model.pretrain(stage, samples)
        model.save_stage(stage, tmp_path / f"{stage.name}.safetensors")
        other.load_stage(stage, tmp_path / f"{stage.name}.safetensors")
    p = model.fit(samples).predict_proba(samples)
    assert np.array_equal(p, other.fit(samples).predict_proba(samples))
    assert not np.array_equal(p, made(name).fit(samples).predict_proba(samples))
