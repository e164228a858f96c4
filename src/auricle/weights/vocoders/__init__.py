"""Models whose decoder is a Vocos: what they write are waveforms."""
