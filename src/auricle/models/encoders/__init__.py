"""The encoders of the comparison, one file a family."""
