"""What a folder holds in place of a result."""

import pytest

import cardiacreg
from cardiacreg import InvalidInputError


@pytest.mark.parametrize("name", ["nowhere", "a\0b", "x" * 300])
def test_a_folder_that_cannot_be_is_one_that_is_not_there(tmp_path, name):
    with pytest.raises(InvalidInputError, match="no such folder"):
        cardiacreg.load_result(tmp_path / name)
