"""The truth of a twin: effects of every data set in closed form, and the settings of a folder."""

import json

import numpy as np
import pytest

from emo_lib.base.facts import SPECS
from emo_lib.twins.brain import TwinSettings, effect_table, session_traits
from emo_lib.twins.truth import class_entropy, read_twin, true_effects

SETTINGS = TwinSettings("SEED", seed=3, seconds_per_trial=4.0)


@pytest.mark.parametrize("name", list(SPECS))
def test_effects_of_every_data_set(name):
    settings = TwinSettings(name, seconds_per_trial=8.0)
    spec = settings.spec
    effects = true_effects(settings, spec.subjects[0], 1)
    assert effects.shape == (len(spec.classes), len(spec.channels))
    assert np.isfinite(effects).all()
    assert effects.min() >= 0
    assert effects.max() > 0.1


@pytest.mark.parametrize("name", list(SPECS))
def test_without_emotion_all_classes_are_alike(name):
    settings = TwinSettings(name, emotion=0.0)
    subject = settings.spec.subjects[0]
    assert np.allclose(true_effects(settings, subject, 1), 0, atol=1e-12)
    assert np.ptp(class_entropy(settings, subject, 1), axis=0).max() < 1e-12


def bad_electrodes():
    "(subject, session, electrode) of every session that has a bad electrode."
    for subject in range(1, 16):
        for session in (1, 2, 3):
            if bad := session_traits(SETTINGS, subject, session).bad:
                yield subject, session, bad[0]


def test_a_bad_electrode_has_no_effect():
    subject, session, bad = next(bad_electrodes())
    effects = true_effects(SETTINGS, subject, session)
    assert (effects[:, bad] == 0).all()
    assert (np.delete(effects, bad, 1).max(0) > 0).all()


@pytest.fixture
def record():
    "The part of TWIN.json that is read."
    parameters = dict(
        name="SEED",
        seed=3,
        seconds_per_trial=4.0,
        emotion=1.0,
        subject_effect=1.0,
        session_drift=1.0,
        subjects=2,
    )
    effects = effect_table(SETTINGS.spec.classes).tolist()
    return {"parameters": parameters, "truth": {"effect_db": effects}}


def test_settings_come_back_from_the_folder_and_from_the_file(record, tmp_path):
    (tmp_path / "TWIN.json").write_text(json.dumps(record))
    assert read_twin(tmp_path) == SETTINGS
    assert read_twin(tmp_path / "TWIN.json") == SETTINGS


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"parameters": {"name": "SEED"}}'])
def test_a_file_that_is_no_record_is_refused(text, tmp_path):
    (tmp_path / "TWIN.json").write_text(text)
    with pytest.raises(ValueError, match="expected the record of a twin"):
        read_twin(tmp_path)


def test_a_folder_without_a_record_is_refused(tmp_path):
    with pytest.raises(ValueError, match="found FileNotFoundError"):
        read_twin(tmp_path)


def test_a_twin_with_other_effects_is_refused(record, tmp_path):
    record["truth"]["effect_db"][0][0][0] += 1
    (tmp_path / "TWIN.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="other effects"):
        read_twin(tmp_path)
