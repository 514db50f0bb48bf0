"""The errors a learner can meet. Each message names the cause and the mend."""

from __future__ import annotations


class PeftLabError(ValueError):
    """Something about the request is wrong; nothing was changed."""


class ConfigError(PeftLabError):
    """A hyperparameter, or a field of an adapter_config.json, cannot be honoured."""


class CheckpointError(PeftLabError):
    """A file cannot be read, or does not fit the model."""


class NotMergeable(PeftLabError):
    """The adapter has no equivalent plain layer."""
