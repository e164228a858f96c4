#!/usr/bin/env bash
# From recordings to auricle-tiny-denoiser: shards, vocoder, denoise encoder, held-out results, release.
#
#     recipes/tiny/denoiser.sh DATA WORK
#
# DATA and WORK are those of run.sh, whose first two steps are taken here too unless they are done. A step that is done is
# skipped when the script runs again, and a training run that was stopped goes on from its newest checkpoint.
#
# To shrink: STEPS (of both runs), BATCH_SIZE, MATERIAL_SCALE, PAIRS (held-out pairs, 200),
# METRICS (of the table).
set -euo pipefail

if [[ $# -ne 2 ]]; then
    sed -n 's/^# \{0,1\}//; 2,10p' "$0" >&2
    exit 2
fi
data=$1 work=$2
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python}
changes=(${STEPS:+"steps=$STEPS"} ${BATCH_SIZE:+"batch_size=$BATCH_SIZE"})
short=(${STEPS:+"vocode.mel_only_steps=$((STEPS / 2))"})

auricle() { "$python" -m auricle.cli.main "$@"; }
say() { printf '\n== %s\n' "$*" >&2; }

say "1/5 shards: what the models learn from, and what they never see"
SHARDS_ONLY=1 "$recipe/run.sh" "$data" "$work"

say "2/5 vocoder: speech from the frames of auricle-tiny-encoder"
auricle train "$recipe/vocoder.yaml" --out "$work/vocoder" "data=[$work/shards/train]" "${changes[@]}" "${short[@]}"

say "3/5 denoise encoder: noisy frames become clean ones"
auricle train "$recipe/denoiser.yaml" --out "$work/denoiser" "data=[$work/shards/train]" \
    "denoise.vocoder=$work/vocoder/model" "${changes[@]}"

say "4/5 held-out speakers and noises: as they are, behind spectral gating, denoised"
if [[ ! -e $work/noisy/manifest.jsonl ]]; then
    "$python" "$recipe/noisy_pairs.py" "$work/shards/test" "$work/noisy" --count "${PAIRS:-200}"
fi
"$python" "$recipe/../../benchmarks/enhancement.py" "$work/noisy/manifest.jsonl" --model "$work/denoiser/model" \
    ${METRICS:+--metric $METRICS} -o "$work/enhancement.json"

say "5/5 release: written as the package holds it"
"$python" "$recipe/publish_denoiser.py" "$work/vocoder" "$work/denoiser" "$work/enhancement.json" "$work/embedded"
