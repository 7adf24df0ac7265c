"""Types of arrays, for annotations, and copies of objects that hold them."""

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


class MadeAnew:
    """A dataclass that is made anew when it is unpickled or copied: its arrays stay read-only."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how to make it again: from its fields, which are arguments."""
        return type(self), tuple(getattr(self, each.name) for each in fields(self))  # type: ignore[arg-type]
