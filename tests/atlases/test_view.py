"""A view of some atlases of a bank, and what it keeps."""

import gc
import weakref

from cardiacreg.atlases.view import AtlasView
from cardiacreg.phantoms.toy_heart import make_toy_heart


class Counted(list):
    """A bank that counts what is read of it."""

    reads = 0

    def without_image(self, index):
        self.reads += 1
        return self[index]


def test_labels_are_read_once():
    bank = Counted(make_toy_heart(size=size) for size in (0.8, 0.9, 1.0))
    view = AtlasView(bank, (2, 0))
    for _ in range(3):
        assert [each.name for each in view.labels_only()] == [bank[2].name, bank[0].name]
    assert bank.reads == 2


def test_what_is_kept_goes_with_the_view():
    """At once: a cohort would pile it up where it waited for Python to look for circles."""
    view = AtlasView([make_toy_heart()])
    kept = weakref.ref(view.labels_only())
    gc.disable()
    try:
        del view
        assert kept() is None
    finally:
        gc.enable()
