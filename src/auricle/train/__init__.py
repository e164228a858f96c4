"""One training loop, one file per objective."""
