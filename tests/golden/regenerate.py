"""Rewrites the golden lists after a wanted change of the public surface: `python tests/golden/regenerate.py`."""

import surface
from auricle.cli.main import app

surface.write("public_api.txt", surface.public_api())
surface.write("cli_flags.txt", surface.cli_flags(app))
