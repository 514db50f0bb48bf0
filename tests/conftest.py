"""Fixtures for the tests of the core. Nothing here touches a test that does not ask for it."""

from __future__ import annotations

import contextlib
import logging
import warnings

import pytest


@pytest.fixture
def quiet():
    """One thread, a fixed seed, no chatter: asked for by the core's test files as a whole."""
    import torch
    from transformers.utils import logging as transformers_logging

    threads, level = torch.get_num_threads(), transformers_logging.get_verbosity()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    transformers_logging.set_verbosity(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    transformers_logging.set_verbosity(level)
    torch.set_num_threads(threads)


@pytest.fixture
def refused():
    """`with refused(model, "words", ...)`: a PeftLabError that says these words, and the model is as it was."""
    from peftlab.errors import PeftLabError
    from tests import tiny

    @contextlib.contextmanager
    def check(model, *words: str, error: type[Exception] = PeftLabError):
        before = tiny.snapshot(model)
        with pytest.raises(error) as caught:
            yield
        missing = [word for word in words if word not in str(caught.value)]
        assert not missing, f"the message says nothing of {missing}: {caught.value}"
        assert tiny.differences(before, tiny.snapshot(model)) == []

    return check


@pytest.fixture
def no_window():
    """The course's figure style, drawn nowhere, and no figure left behind: for the test files of figures as a whole."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    from peftlab.show import plots

    backend = mpl.get_backend()
    plt.switch_backend("agg")
    with mpl.rc_context():
        plots.style()
        yield
    plt.close("all")
    plt.switch_backend(backend)
