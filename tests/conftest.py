"""Settings of the whole suite."""

from hypothesis import settings

# How long an example takes says something about the machine, nothing about the code.
settings.register_profile("auricle", deadline=None)
settings.load_profile("auricle")
