"""Single-device networks and their configs, one file a family. Knows nothing of files, devices or the command line."""
