import numpy as np

from clmm_core.federated.arrays import FUSION
from clmm_core.federated.messages import LeftOut
from clmm_core.federated.traffic import array_bytes, word_bytes


def test_arrays_count_for_their_part():
    arrays = {
        "modalities.acc.encoder.w": np.zeros((3, 5), np.float32),
        "modalities.acc.mean": np.zeros(3, np.float32),
        "modalities.gyro.packed": np.zeros(7, np.uint8),
        "primary.w": np.zeros((), np.float32),
        "fusion.quality": np.zeros(2, np.float64),
    }
    assert array_bytes(arrays) == {"acc": 72, "gyro": 7, FUSION: 20}
    assert array_bytes({}) == {}


def test_words_count_as_they_are_written():
    assert word_bytes(LeftOut(device="d", reason="é")) == len('{"device":"d","reason":"é"}'.encode())
