#!/usr/bin/env bash
# The frame-rate dial: the tiny model at 25, 12.5, 6.25, 5 and 2.5 audio tokens a second; quality x tokens x speed.
#
#     recipes/dial/run.sh WORK
#
# WORK is the folder that recipes/tiny/run.sh filled up to its step 2 (shards/train, shards/test); everything made is put
# under WORK/dial. A step that is done is skipped when the script runs again.
#
# To shrink: STEPS, MOST (clips of a set), LIMIT (clips of a row of the table), FACTORS.
set -euo pipefail

if [[ $# -ne 1 ]]; then
    sed -n 's/^# \{0,1\}//; 2,9p' "$0" >&2
    exit 2
fi
work=$1
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python}
factors=(${FACTORS:-1 2 4 5 10})
auricle() { "$python" -m auricle.cli.main "$@"; }

if [[ ! -e $work/dial/rows/rows.jsonl ]]; then
    "$python" "$recipe/rows.py" "$work/shards/train" "$work/dial/rows" --most "${MOST:-300}"
fi
for factor in "${factors[@]}"; do
    folder=$work/dial/$factor
    if [[ ! -e $folder/start/config.json ]]; then "$python" "$recipe/start.py" "$folder/start" "$factor"; fi
    auricle train "$recipe/dial.yaml" --out "$folder/run" "sft.init=$folder/start" \
        "sft.train=[$work/dial/rows/rows.jsonl]" ${STEPS:+"steps=$STEPS"}
    if [[ ! -e $folder/table.json ]]; then
        auricle heldout "$work/shards/test" --model "$folder/run/model" ${LIMIT:+--limit "$LIMIT"} -o "$folder/table.json"
    fi
done
"$python" "$recipe/draw.py" "$work" "${factors[@]}"
