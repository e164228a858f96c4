"""Models of other authors behind the contract of `AudioLM`: Whisper, endpoints, classes of transformers."""
