"""Helpers of the tests of damaged downloads: .mat files, and the problems a reader reports."""

import pytest
import scipy.io

from emo_lib.data.datasets import LayoutError, open_dataset


def write_mat(path, data):
    "A .mat file of noise; its header says SYNTHETIC."
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, data)
    with open(path, "r+b") as f:
        f.write(b"MATLAB 5.0 MAT-file, SYNTHETIC test data".ljust(116))


def contents(path):
    return {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}


def complete(problems):
    "`problems`, after a check that each has all four parts and none is repeated."
    assert all(p.path and p.expected and p.found and p.fix for p in problems)
    assert len(set(problems)) == len(problems)
    return problems


def single(problems):
    assert len(problems) == 1, list(map(str, problems))
    return problems[0]


def refusal(name, root, **kw):
    "The problems with which strict opening refuses; the message has a line for each."
    with pytest.raises(LayoutError) as e:
        open_dataset(name, root, **kw)
    assert all(str(p) in str(e.value) for p in e.value.problems)
    return complete(e.value.problems)


def only_refusal(name, root):
    return single(refusal(name, root))
