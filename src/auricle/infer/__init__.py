"""What a user does with a model: describe, ask, transcribe, embed."""
