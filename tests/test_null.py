"""Every model is at chance without emotion, and above it with: from files to a score.

A leak anywhere on the way would show.
"""

import numpy as np
import pytest

from emo_lib.data.datasets import open_dataset
from emo_lib.models.registry import MODELS, make_model
from emo_lib.protocols.registry import make_protocol
from emo_lib.samples.needs import Needs
from emo_lib.twins.twin import write_twin

pytestmark = pytest.mark.slow

SMALL = {
    "svm": {},
    "dgcnn": dict(epochs=10),
    "stnet": dict(width=0.1, epochs=10),
    "fbccnn": dict(width=0.25, epochs=10, scale="band"),
    "vit": dict(layers=1, head_width=8, patch=3, scale="band", lr=5e-3, epochs=25),
    "simplevit": dict(layers=2, head_width=8, patch=3, scale="band", lr=5e-3, epochs=30),
    "msmae": dict(
        dim_channel=32,
        dim_spatial=32,
        layers=1,
        heads=4,
        pretrain_epochs=2,
        pretrain_batch_size=128,
        epochs=8,
        optimizer="adamw",
        lr=2e-3,
        pretrain_lr=2e-3,
        clip=1.0,
    ),
}
WINDOW_MODELS = [name for name, model in MODELS.items() if model.needs == Needs()]
SIZES = {name: model.small for name, model in MODELS.items()} | SMALL
# Strength of the emotion for networks that detect the default only after minutes of training.
STRONG = {"simplevit": 3.0, "fbccnn": 3.0}
SUBJECTS = 3


def pretrained(name, fs, fold):
    "What a model learns before it sees labels, or None."
    model, x = make_model(name, n_classes=3, **SIZES[name]), fs.eeg.values
    for stage in model.stages():
        model.pretrain(stage, x[fold.pool], train=x[fold.train])
    return model.pretrained_ if model.stages() else None


def accuracy(fs, name):
    "Mean accuracy over all folds. Folds with the same training rows share one fitted model."
    x, y = fs.eeg.values, fs.label.values
    folds = list(make_protocol("cross_session").split(fs))
    weights = pretrained(name, fs, folds[0])  # once is enough: labels play no part in it
    fitted, accuracies = {}, []
    for fold in folds:
        key = fold.train.tobytes()
        if key not in fitted:
            model = make_model(name, n_classes=3, **SIZES[name])
            if weights is not None:
                model.pretrained_ = weights
            fitted[key] = model.fit(x[fold.train], y[fold.train])
        accuracies.append((fitted[key].predict(x[fold.test]) == y[fold.test]).mean())
    return np.mean(accuracies)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    "A function: strength of the emotion -> the features of a twin, written once."
    made = {}

    def make(emotion):
        if emotion not in made:
            root = tmp_path_factory.mktemp("twin")
            only_features = dict(signals=False, features=("de_LDS",), seconds_per_trial=10)
            write_twin("SEED", root, subjects=SUBJECTS, seed=5, emotion=emotion, **only_features)
            made[emotion] = open_dataset("SEED", root).features("de_LDS", window_s=1.0)
        return made[emotion]

    return make


def errors_above_chance(fs, name):
    "Difference from chance in standard errors of 45 independent trials per subject."
    p = 1 / 3
    return (accuracy(fs, name) - p) / np.sqrt(p * (1 - p) / (45 * SUBJECTS))


@pytest.mark.parametrize("name", WINDOW_MODELS)
def test_at_chance_without_emotion(features, name):
    assert abs(errors_above_chance(features(0.0), name)) < 3


@pytest.mark.parametrize("name", WINDOW_MODELS)
def test_above_chance_with_emotion(features, name):
    assert errors_above_chance(features(STRONG.get(name, 1.0)), name) > 3
