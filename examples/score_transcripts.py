"""Score transcripts under both scoring rules.

`compat` computes what the published script computes: rows with an empty transcript do not count. Under `strict` every
row counts. Both come with a 95 % interval over the rows.
"""

from auricle.metrics import TranscriptPair, error_rates

pairs = [
    TranscriptPair("seven two four", "seven nine eight four", "en"),
    TranscriptPair("good morning how are you", "good morning", "en"),
    TranscriptPair("twelve o'clock", "", "en"),
]
for rule in ("compat", "strict"):
    rates = error_rates(pairs, scoring_rule=rule)
    print(f"{rule}: WER {rates.total.value:.3f} [{rates.total.low:.3f}, {rates.total.high:.3f}]")
    print(f"        {rates.left_out} rows left out, {rates.empty} empty")
