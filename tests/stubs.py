"""Three models and a protocol for tests: two modalities, sequences, adaptation to a target."""

import os
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from scipy.special import softmax
from torch import nn

from emo_lib.protocols.cross_session import CrossSession
from emo_lib.samples.needs import Needs
from emo_lib.training.estimator import Classifier, NetworkClassifier

DEVICE = os.environ.get("EMO_TEST_DEVICE", "cpu")  # "cuda": the same tests on a GPU


class HiddenLayerNet(nn.Module):
    "Rows (n, d) -> logits (n, n_classes)."

    def __init__(self, n_inputs, n_classes):
        super().__init__()
        self.norm = nn.BatchNorm1d(n_inputs)
        self.hidden = nn.Linear(n_inputs, 8)
        self.head = nn.Linear(8, n_classes)

    def features(self, x):
        return self.hidden(self.norm(x)).relu()

    def forward(self, x):
        return self.head(self.features(x))


class EyeStub(NetworkClassifier):
    "EEG and eye movements side by side."

    name, title = "stub_eye", "EEG and eye movements"
    reference = "none"
    needs = Needs(modalities=("eeg", "eye"))
    small = dict(epochs=40, optimizer="adamw", lr=0.01)

    def make_net(self, n_bands, n_eye=0):
        return HiddenLayerNet(len(self.channels) * n_bands + n_eye, self.n_classes)

    def prepare(self, samples):
        eeg = torch.as_tensor(samples.eeg).flatten(1)
        return (torch.cat([eeg, torch.as_tensor(samples.eye[:, 0])], 1),)


class SequenceNet(HiddenLayerNet):
    "Steps (n, step, d) and bool (n, step) -> logits; padding counts for nothing."

    def features(self, x, steps):
        mean = (x * steps[..., None]).sum(1) / steps.sum(1, keepdim=True)
        return super().features(mean)

    def forward(self, x, steps):
        return self.head(self.features(x, steps))


class SequenceStub(NetworkClassifier):
    "The mean over the steps of a sequence."

    name, title = "stub_sequence", "mean over a sequence"
    reference = "none"
    needs = Needs(kind="sequence")
    small = dict(epochs=40, optimizer="adamw", lr=0.01)

    def make_net(self, n_bands, n_eye=0):
        return SequenceNet(len(self.channels) * n_bands, self.n_classes)

    def prepare(self, samples):
        return torch.as_tensor(samples.eeg).flatten(2), samples.steps.astype(np.float32)


class AdaptingStub(Classifier):
    "The nearest class mean, each session centred on its own mean, which is where it adapts."

    name, title = "stub_adapting", "centred class means"
    reference = "none"
    needs = Needs(adapts=True)
    small = {}

    def _fit(self, train, val, adapt):
        if adapt is None:
            raise ValueError("adapt: expected samples of the target, found None")
        assert (adapt.label == -1).all(), "labels of the target must not reach a model"
        rows = _rows(train)
        classes = range(self.n_classes)
        self.means_ = np.stack([rows[train.label == c].mean(0) for c in classes]) - rows.mean(0)
        self.target_ = _rows(adapt).mean(0)

    def _predict_proba(self, samples):
        centred = _rows(samples) - self.target_
        distance = np.square(centred[:, None] - self.means_).mean(2)
        return softmax(-distance.astype(np.float64), axis=1)


def _rows(samples):
    return samples.eeg.reshape(len(samples), -1)


class AdaptingSessions(CrossSession):
    "Cross-session folds in which `fit` may see the unlabelled test session."

    name: ClassVar[str] = "stub_adapting_sessions"

    def split(self, meta, subjects=None):
        for fold in super().split(meta, subjects):
            yield replace(fold, adapt=fold.test).check(meta)


STUBS = (EyeStub, SequenceStub, AdaptingStub)
