"""Huge pages that migration splits on its way."""

from __future__ import annotations

import numpy as np

from movepages.kernel.split_folios import SplitFolios


class Huge:
    """Folios of four pages, at multiples of 16: mapped in part, held, and without a used page."""

    def __init__(self, *, partly, held=(), empty=()):
        """Take the folios of each kind."""
        self.partly, self.held, self.empty = partly, held, empty
        self.forced = []

    def partially_mapped(self, pages):
        """Tell which are mapped in part."""
        return np.isin(pages, self.partly)

    def split_isolated(self, page, *, force):
        """Return the pages of one, unless it is held."""
        self.forced.append(force)
        if page in self.held:
            return None
        return np.arange(page, page if page in self.empty else page + 4)


def test_parts_are_collected_and_the_rest_goes_on():
    """Folios mapped in part leave the list, but one that is held; their pages wait, in order."""
    split = SplitFolios(Huge(partly=[16, 48, 80], held=[48]))
    rest = split.split_partially_mapped(np.array([16, 32, 48, 64, 80]), force=False)
    assert rest.tolist() == [32, 48, 64]
    assert split.pages.tolist() == [16, 17, 18, 19, 80, 81, 82, 83]
    assert split.count == 2


def test_a_folio_of_which_nothing_is_left_is_split_all_the_same():
    """All of its pages were unused: nothing is to be moved, and it is off the list."""
    frames = Huge(partly=[16], empty=[16])
    split = SplitFolios(frames)
    assert split.split_partially_mapped(np.array([16]), force=True).tolist() == []
    assert (split.count, len(split.pages), frames.forced) == (1, 0, [True])


def test_a_list_without_such_folios_stays_as_it_is():
    """The very same array comes back."""
    pages = np.array([16, 32])
    assert SplitFolios(Huge(partly=[])).split_partially_mapped(pages, force=False) is pages
