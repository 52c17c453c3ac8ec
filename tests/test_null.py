"""Every model at chance without emotion, and above it with: the whole way from files to a score, so that a leak anywhere in it would show."""

import numpy as np
import pytest

from emo_lib.data.datasets import open_dataset
from emo_lib.models.registry import MODELS, make_model
from emo_lib.protocols.registry import make_protocol
from emo_lib.twins.twin import write_twin

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
STRONG = {
    "simplevit": 3.0,
    "fbccnn": 3.0,
}  # emotion of the twin for networks that see 1 only after minutes of training
SUBJECTS = 3


def score(fs, name):
    "Mean accuracy over all folds."
    x, y, found, fitted, trained = fs.eeg.values, fs.label.values, [], {}, None
    for fold in make_protocol("cross_session").split(fs):
        key = fold.train.tobytes()  # 1 -> 2 and 1 -> 3 have one model
        if key not in fitted:
            model = make_model(name, n_classes=3, **SMALL[name])
            if model.stages() and trained is None:  # once: labels play no part in it
                for stage in model.stages():
                    model.pretrain(stage, x[fold.pool], train=x[fold.train])
                trained = model.pretrained_
            if trained is not None:
                model.pretrained_ = trained
            fitted[key] = model.fit(x[fold.train], y[fold.train])
        found.append((fitted[key].predict(x[fold.test]) == y[fold.test]).mean())
    return np.mean(found)


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    "emotion -> the features of a twin with that much of it, made once."
    made = {}

    def twin(emotion):
        if emotion not in made:
            root = tmp_path_factory.mktemp("twin")
            write_twin(
                "SEED",
                root,
                subjects=SUBJECTS,
                seconds_per_trial=10,
                emotion=emotion,
                signals=False,
                features=("de_LDS",),
                seed=5,
            )
            made[emotion] = open_dataset("SEED", root).features("de_LDS", window_s=1.0)
        return made[emotion]

    return twin


@pytest.mark.parametrize("there", [False, True], ids=["no emotion", "emotion"])
@pytest.mark.parametrize("name", list(MODELS))
def test_at_chance_without_emotion_and_above_it_with(twins, name, there):
    assert set(SMALL) == set(MODELS), "a new model needs its small size here"
    fs = twins(STRONG.get(name, 1.0) if there else 0.0)
    error = np.sqrt(
        1 / 3 * 2 / 3 / (45 * SUBJECTS)
    )  # of a share over independent trials: 45 a subject
    above = (score(fs, name) - 1 / 3) / error
    assert above > 3 if there else abs(above) < 3, (
        f"{name}: {above:.1f} standard errors from chance"
    )
