"""Models from elsewhere: by file, by module, as objects; what they may not do is refused."""

import json
import sys

import numpy as np
import pytest
import xarray as xr
from sklearn.ensemble import RandomForestClassifier

import emo_lib as emo
from emo_lib.models.plugins import EstimatorAdapter, ModuleAdapter, PluginError, import_class
from emo_lib.run.evaluate import evaluate
from emo_lib.run.results import read_result

FOREST = """
from pathlib import Path
from sklearn.ensemble import RandomForestClassifier
Path(__file__).with_suffix(".imported").touch()
class Forest(RandomForestClassifier):
    pass
"""


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """The folder of a small feature set."""
    folder = tmp_path_factory.mktemp("plugins")
    emo.write_twin("SEED", folder / "SEED", subjects=2, seconds_per_trial=5)
    from emo_lib.samples.featuresets import write_features

    dataset = emo.open_dataset("SEED", folder / "SEED")
    write_features(dataset, folder / "features", feature="de_LDS", window_s=1.0)
    return folder / "features"


@pytest.fixture
def forest(tmp_path):
    """A file with a model of a user."""
    file = tmp_path / "my_forest.py"
    file.write_text(FOREST)
    return file


def cell(features, model, **more):
    """The parameters of a cell."""
    return dict(dataset="SEED", features=features, model=model, **more)


def test_a_file_names_a_model_and_its_source_is_recorded(features, forest, tmp_path):
    hyper = {"n_estimators": 5}
    spec = cell(features, f"{forest}:Forest", hyper=hyper, out=tmp_path / "forest.json")
    result = emo.run_cell(spec, progress=False)
    assert result.n_subjects == 2
    assert len(result.provenance.model_source) == 16
    forest.write_text(FOREST + "    bootstrap = False\n")
    again = emo.run_cell(spec | {"out": tmp_path / "again.json"}, progress=False)
    assert again.provenance.model_source != result.provenance.model_source


def test_reading_a_result_imports_nothing(features, forest, tmp_path):
    out = tmp_path / "forest.json"
    hyper = {"n_estimators": 5}
    emo.run_cell(cell(features, f"{forest}:Forest", hyper=hyper, out=out), progress=False)
    trace = forest.with_suffix(".imported")
    trace.unlink()
    for name in [name for name in sys.modules if name.startswith("my_forest")]:
        del sys.modules[name]
    assert read_result(out)[0].spec.model == f"{forest}:Forest"
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module:Net", "expected a module that imports"),
        ("sklearn.svm:Svc", "expected a class 'Svc'"),
        ("sklearn.cluster:KMeans", "predict_proba or decision_function"),
        ("builtins:dict", "expected a model of emo_lib"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_refused_before_the_data_are_read(name, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        emo.run_cell(cell(tmp_path / "no-features", name), progress=False)


def test_wrong_hyper_parameters_name_the_class(features):
    with pytest.raises(PluginError, match="no_such"):
        emo.run_cell(cell(features, "sklearn.svm:LinearSVC", hyper={"no_such": 1}))


def test_pretraining_and_kept_weights_are_refused_for_an_estimator(features, tmp_path):
    for more in ({"pretrain_on": features}, {"keep_models": tmp_path}):
        with pytest.raises(ValueError, match="leave it out"):
            emo.run_cell(cell(features, "sklearn.svm:LinearSVC", **more))


def test_wrong_shape_and_writing_into_the_input_are_refused():
    class Wide(RandomForestClassifier):
        def predict_proba(self, X):
            return np.ones((len(X), 7)) / 7

    class Writer(RandomForestClassifier):
        def fit(self, X, y):
            X -= X.mean(0)
            return super().fit(X, y)

    X = np.random.default_rng(0).standard_normal((30, 62, 5)).astype("float32")
    y = np.arange(30) % 3
    with pytest.raises(PluginError, match="shape"):
        EstimatorAdapter(n_classes=3, estimator=Wide(5)).fit(X, y).predict(X)
    with pytest.raises(PluginError, match="leaves its input alone"):
        EstimatorAdapter(n_classes=3, estimator=Writer(5)).fit(X, y)


class Misbehaving(RandomForestClassifier):
    "A forest with one fault, named by `fault`."

    def __init__(self, fault="", n_estimators=5):
        super().__init__(n_estimators)
        self.fault = fault

    def fit(self, X, y):
        if self.fault == "raises":
            raise RuntimeError("out of trees")
        super().fit(X, y)
        if self.fault == "words":
            self.classes_ = np.array(["sad", "neutral", "happy"])
        return self

    def predict_proba(self, X):
        p = super().predict_proba(X)
        changed = {"votes": 5 * p, "signs": p - 0.5, "nan": p * np.nan}
        return changed.get(self.fault, p)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raises", "Misbehaving: fit raised RuntimeError: out of trees"),
        ("words", "expected classes_ among the class numbers 0 to 2 that fit was given"),
        ("votes", "expected probabilities from 0 to 1, found 5.0"),
        ("signs", "expected probabilities from 0 to 1, found -0.5"),
        ("nan", "expected probabilities from 0 to 1, found nan"),
    ],
)
def test_what_is_no_distribution_over_the_classes_is_refused(fault, words):
    X = np.zeros((30, 62, 5), "float32")
    X[:, 0, 0] = np.arange(30) % 3
    y = np.arange(30) % 3
    with pytest.raises(PluginError, match=words):
        EstimatorAdapter(n_classes=3, estimator=Misbehaving(fault)).fit(X, y).predict(X)


def test_a_file_named_like_a_package_does_not_replace_it(tmp_path):
    file = tmp_path / "sklearn.py"
    file.write_text("class Mine:\n    pass\n")
    before = sys.modules["sklearn"]
    assert import_class(f"{file}:Mine").__name__ == "Mine"
    assert sys.modules["sklearn"] is before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"protocol": None}, "protocol: expected a name in PROTOCOLS or a Protocol, found None"),
        ({"samples": {"kind": "trail"}}, "samples: kind: expected 'window', 'sequence' or 'trial'"),
        ({"features": np.zeros((9, 62, 5))}, "features: expected a feature set"),
    ],
)
def test_evaluate_names_the_argument_that_is_wrong(features, arguments, words):
    with pytest.raises(ValueError, match=words):
        evaluate(RandomForestClassifier(), **{"features": features} | arguments)


def test_windows_that_are_listed_twice_are_refused(features):
    once = emo.load_features(features).load()
    twice = xr.concat([once, once], "window", combine_attrs="override")
    with pytest.raises(ValueError, match="expected each window once, found 450 again"):
        evaluate(RandomForestClassifier(), twice)


def test_evaluate_equals_the_cell_of_the_same_model(features, tmp_path):
    by_name = emo.run_cell(cell(features, "svm", out=tmp_path / "a.json"), progress=False)
    model = emo.make_model("svm", n_classes=3)
    by_object = evaluate(model, features, out=tmp_path / "b.json", progress=False)
    assert by_name.predictions_digest == by_object.predictions_digest
    assert by_name.spec.hyper == by_object.spec.hyper


def test_a_torch_module_starts_each_fold_from_the_same_weights(features):
    from torch import nn

    torch_module = nn.Sequential(nn.Flatten(), nn.Linear(310, 3))
    before = json.dumps([p.tolist() for p in torch_module.parameters()])
    result = evaluate(torch_module, features, progress=False)
    assert result.n_subjects == 2
    assert before == json.dumps([p.tolist() for p in torch_module.parameters()])


def test_a_module_that_writes_into_its_input_leaves_the_samples_alone():
    from torch import nn

    class Shifting(nn.Sequential):
        def forward(self, x):
            x -= 1
            return super().forward(x)

    X = np.random.default_rng(0).standard_normal((30, 62, 5)).astype("float32")
    before = X.copy()
    module = Shifting(nn.Flatten(), nn.Linear(310, 3))
    model = ModuleAdapter(n_classes=3, module=module, epochs=1).fit(X, np.arange(30) % 3)
    assert np.array_equal(model.predict_proba(X), model.predict_proba(X))
    assert np.array_equal(X, before)


def test_a_module_that_does_not_fit_is_refused_before_training():
    from torch import nn

    X = np.zeros((30, 62, 5), "float32")
    with pytest.raises(PluginError, match="expected logits"):
        ModuleAdapter(n_classes=3, module=nn.Flatten()).fit(X, np.arange(30) % 3)
    with pytest.raises(PluginError, match="expected a module that takes x"):
        ModuleAdapter(n_classes=3, module=nn.Linear(62, 3)).fit(X, np.arange(30) % 3)
