"""Portable arithmetic: every model gives the same bits whatever kernels the processor offers."""

import os
import subprocess
import sys

import pytest

from emo_lib.base.arithmetic import MODES, PORTABLE

FIT_EVERY_MODEL = """
from emo_lib.base.arithmetic import restart_portably
restart_portably()
import hashlib
import numpy as np
import emo_lib as emo

rng = np.random.default_rng(0)
X = rng.standard_normal((60, 62, 5)).astype("float32")
y = rng.integers(0, 3, 60)
takes_arrays = [n for n, model in emo.MODELS.items() if model.needs.modalities == ("eeg",)]
for name in sorted(takes_arrays):
    model = emo.make_model(name, n_classes=3, **emo.MODELS[name].small).fit(X, y)
    digest = hashlib.sha256(np.ascontiguousarray(model.predict_proba(X)).tobytes())
    print(name, digest.hexdigest()[:16])
"""
# the same processor, held to its oldest kernels by variables set from outside
OLD_KERNELS = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Nehalem",
}


def digests(mode, **processor):
    """{model: digest of its probabilities} in a process of its own."""
    outside = {name: value for name, value in os.environ.items() if name not in PORTABLE}
    environment = outside | processor | {"EMO_ARITHMETIC": mode}
    command = [sys.executable, "-c", FIT_EVERY_MODEL]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(line.split() for line in done.stdout.splitlines())


@pytest.mark.slow
def test_every_model_gives_the_same_bits_under_two_settings_of_the_processor():
    found = {mode: (digests(mode), digests(mode, **OLD_KERNELS)) for mode in MODES}
    assert found["portable"][0] == found["portable"][1]
    # the control: without the mode, the same two settings differ for every network
    new, old = found["native"]
    assert {name for name in new if new[name] == old[name]} <= {"svm"}
