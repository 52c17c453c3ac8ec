"""Every model at chance without emotion, and above it with: the whole way from files to a score, so that a leak anywhere in it would show."""
import numpy as np
import pytest
from emo_lib.datasets import open_dataset
from emo_lib.models import MODELS, make_model
from emo_lib.protocols import make_protocol
from emo_lib.twin import write_twin

SMALL = {"svm": {}, "dgcnn": dict(epochs=10),
         "msmae": dict(dim_channel=32, dim_spatial=32, layers=1, heads=4, pretrain_epochs=2, pretrain_batch_size=128, epochs=8, optimizer="adamw", lr=2e-3, pretrain_lr=2e-3, clip=1.)}
SUBJECTS = 3

def score(fs, name):
    "Mean accuracy over all folds."
    x, y, found = fs.eeg.values, fs.label.values, []
    for fold in make_protocol("cross_session").split(fs):
        model = make_model(name, n_classes=3, **SMALL[name])
        if hasattr(model, "pretrain") and not found: trained = model.pretrain(x[fold.pool], X_target=x[fold.train])     # once: labels play no part in it
        if hasattr(model, "pretrain"): model.pretrained_weights_, model.pretrain_history_ = trained.pretrained_weights_, trained.pretrain_history_
        found.append((model.fit(x[fold.train], y[fold.train]).predict(x[fold.test]) == y[fold.test]).mean())
    return np.mean(found)

@pytest.fixture(scope="module", params=[0., 1.], ids=["no emotion", "emotion"])
def twin(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("twin")
    write_twin("SEED", root, subjects=SUBJECTS, seconds_per_trial=10, emotion=request.param, signals=False, features=("de_LDS",), seed=5)
    return request.param, open_dataset("SEED", root).features("de_LDS", window_s=1.)

@pytest.mark.parametrize("name", list(MODELS))
def test_at_chance_without_emotion_and_above_it_with(twin, name):
    assert set(SMALL) == set(MODELS), "a new model needs its small size here"
    emotion, fs = twin
    error = np.sqrt(1/3*2/3/(45*SUBJECTS))              # of a share over independent trials: 45 a subject
    above = (score(fs, name) - 1/3)/error
    assert above > 3 if emotion else abs(above) < 3, f"{name}: {above:.1f} standard errors from chance"
