"""The whole chain of the multimodal model: what fusion can win, and what it cannot."""

import warnings

import numpy as np
import pandas as pd
import pytest

from emo_lib.base.montage import CHANNELS
from emo_lib.models.mv_sstma import MMVSSTMA, MVSSTMA, MVSSTMAEye
from emo_lib.samples.samples import Samples

CAP = CHANNELS[:6]
SIZE = dict(dim=8, layers=1, kernels=(3, 2, 1), heads=2, head_width=4, pretrain_epochs=2)
TRAINING = dict(epochs=25, lr=0.01, batch_size=60, pretrain_lr=0.003, seed=0)


def sequences(seed, eeg_effect, eye_effect, n=180):
    "Sequences of noise; an effect gives the shift of its modality in each of three classes."
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 3
    eeg = rng.standard_normal((n, 5, 6, 2)) + np.array(eeg_effect)[label][:, None, None, None]
    eye = rng.standard_normal((n, 5, 4)) + np.array(eye_effect)[label][:, None, None]
    meta = pd.DataFrame(dict(subject=1, session=1, trial=label + 1, clip=label + 1, label=label))
    there, steps = np.ones((n, 5, 6), bool), np.ones((n, 5), bool)
    return Samples(eeg.astype("float32"), eye.astype("float32"), there, steps, meta, CAP)


def accuracy(cls, train, test, **hyper):
    "Accuracy after pre-training on the training sequences and fine-tuning with their labels."
    model = cls(3, channels=CAP, **SIZE | TRAINING | hyper)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few samples for the correlation
        for stage in model.stages():
            model.pretrain(stage, train)
        return model.fit(train).score(test, test.label)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ("concat", "attention"))
def test_fusion_beats_both_modalities_where_each_separates_another_pair(fusion):
    "EEG separates class 0 from the others, the eye class 2: one modality reaches 2/3 at most."
    effects = dict(eeg_effect=(1, 0, 0), eye_effect=(0, 0, 1))
    train, test = sequences(0, **effects), sequences(1, **effects)
    eeg, eye = (accuracy(cls, train, test) for cls in (MVSSTMA, MVSSTMAEye))
    fused = accuracy(MMVSSTMA, train, test, fusion=fusion)
    assert max(eeg, eye) < 0.75
    assert fused > max(eeg, eye) + 0.15


@pytest.mark.slow
def test_fusion_wins_nothing_where_the_eye_carries_nothing():
    "Over five draws, the mean gain of fusion is at most two standard errors above zero."
    gains = []
    for seed in range(5):
        train, test = (sequences(10 * seed + k, (0.12, 0, -0.12), (0, 0, 0)) for k in (0, 1))
        fused, eeg = (accuracy(cls, train, test) for cls in (MMVSSTMA, MVSSTMA))
        gains.append(fused - eeg)
        assert 0.4 < eeg < 0.95, "the task leaves room for a gain"
    assert np.mean(gains) < 2 * np.std(gains, ddof=1) / np.sqrt(len(gains))
