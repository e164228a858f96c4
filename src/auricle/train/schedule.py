"""Learning rate over a run."""

import math


def learning_rate(step: int, *, peak: float, warmup: int, total: int, floor: float = 0.1) -> float:
    """Linear warm-up from 0, then a cosine to ``floor × peak`` at ``total`` steps.

    Source: Dasheng's training configuration and MiDashengLM §3 (cosine to 10 % of the peak).
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return peak * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress)))
