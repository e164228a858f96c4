"""Bytes → 16 kHz mono waveform → log-mel. Knows nothing of any other room."""
