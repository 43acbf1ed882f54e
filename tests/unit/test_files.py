"""Files of arrays that are damaged."""

import numpy as np
import pytest

from svco.basics.errors import UserError
from svco.basics.files import read_arrays
from svco.commands.evaluation.scoring import SetScores


@pytest.mark.parametrize("left", ["nothing", "text", "a beginning", "other arrays", "a flipped bit"])
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # a file left open
def test_damaged_arrays_are_one_error(tmp_path, left):
    path = tmp_path / "arrays.npz"
    np.savez(path, key=np.arange(50))
    assert (read_arrays(path, "key")[0] == np.arange(50)).all()
    whole = path.read_bytes()
    flipped = bytes([*whole[:200], whole[200] ^ 1, *whole[201:]])
    kinds = {
        "nothing": b"",
        "text": b"damaged",
        "a beginning": whole[:300],
        "other arrays": whole,
        "a flipped bit": flipped,
    }
    path.write_bytes(kinds[left])
    with pytest.raises(ValueError):
        read_arrays(path, "key", "logps" if left == "other arrays" else "key")
    with pytest.raises(UserError, match="does not hold scores of an evaluation"):
        SetScores.load(path)
