"""The whole chain of the multimodal model on twins: what fusion can win, and what it cannot."""

import warnings

import numpy as np
import pytest

from emo_lib.base.montage import CHANNELS
from emo_lib.models.mv_sstma import MMVSSTMA, MVSSTMA, MVSSTMAEye
from emo_lib.run.evaluate import evaluate
from emo_lib.twins.brain import TwinSettings
from emo_lib.twins.twin import twin_set

CAP = CHANNELS[::6]  # eleven electrodes all over the head
SAMPLES = dict(kind="sequence", length=5, modalities=("eeg", "eye"))
TRAINING = dict(
    dim=8,
    layers=1,
    kernels=(3, 2, 1),
    heads=2,
    head_width=4,
    pretrain_epochs=4,
    pretrain_lr=0.005,
    pretrain_batch_size=32,
    epochs=30,
    lr=0.01,
    batch_size=24,
)


def features_of(**mechanisms):
    "DE and eye features of four people on two days, SYNTHETIC."
    settings = TwinSettings(
        "SEED-V", seconds_per_trial=48, emotion=2.0, session_drift=0.5, mechanisms=mechanisms
    )
    people = dict(subjects=(1, 2, 3, 4), sessions=(1, 2))
    return twin_set(settings, "de", **people).sel(channel=list(CAP))


def accuracies(cls, features):
    "Accuracy of each fold, after pre-training and fine-tuning on the trials that train."
    model = cls(5, channels=CAP, **TRAINING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few samples for the correlation
        result = evaluate(model, features, "seedv-9-6", samples=SAMPLES)
    return np.array([fold.accuracy for fold in result.folds])


@pytest.mark.slow
def test_fusion_beats_both_modalities_where_each_separates_other_emotions():
    "EEG cannot tell disgust from fear, the eyes cannot tell neutral from happy."
    features = features_of(eeg_alike=("disgust", "fear"), eye_alike=("neutral", "happy"))
    eeg, eye, fused = (accuracies(cls, features) for cls in (MVSSTMA, MVSSTMAEye, MMVSSTMA))
    assert fused.mean() > max(eeg.mean(), eye.mean()) + 0.05


@pytest.mark.slow
def test_fusion_wins_nothing_where_the_eye_carries_nothing():
    "Over eight folds, the mean gain of fusion is within five points, or two standard errors."
    features = features_of(eyes=0.0)
    eeg, fused = (accuracies(cls, features) for cls in (MVSSTMA, MMVSSTMA))
    gain = fused - eeg
    assert 0.3 < eeg.mean() < 0.9, "the task can be learnt and leaves room for a gain"
    assert gain.mean() <= max(0.05, 2 * gain.std(ddof=1) / np.sqrt(len(gain)))
    assert gain.std(ddof=1) < 0.2, "the test can tell a gain"
