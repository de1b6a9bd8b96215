#!/usr/bin/env bash
# Are curated tracks as good to learn from as true ones? In the small world (64x64, seven latents).
#
#   bash training/recipes/curated.sh cpu      # on one core or two: docs/data/curated_tracks.md
#   bash training/recipes/curated.sh debug    # a few steps, to see that it runs
#
# The world is filmed to mp4, curated blind, and the same clips are encoded with their true tracks. From one start that
# never saw a track two models are trained alike, for each seed of SEEDS (default 0), and measured side by side.
# RUNS is the folder of the runs (default runs/curated), REPORT the report without suffix (default in RUNS). Running it
# again resumes: finished parts are skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."

size="${1:-cpu}"
runs="${RUNS:-runs/curated}"
report="${REPORT:-$runs/report}"
vae="checkpoints/ardrag-tiny/vae"
case "$size" in
  debug) clips=6; tune="--steps 2 --batch_size 2 --save_every 2"; bench="--num_clips 3 --num_frames 17"; steps=2 ;;
  cpu)   clips=400; tune=""; bench="--num_clips 24 --num_frames 25"; steps=24 ;;
  *) echo "size: '$size' is unknown; use debug or cpu" >&2; exit 2 ;;
esac

say() { printf '\n== %s (%s)\n' "$*" "$(date +%H:%M:%S)"; }
stage() { python -m "training.$1" "${@:2}"; }
encode() { # folder, what
  [ -f "$1/state.json" ] || stage precompute "${@:2}" --control carried --batch_size 16 --output_dir "$1"
}
train() { # folder, clips, seed
  say "$1"
  stage finetune training/configs/small/control.yaml --init_from "$runs/start/pipeline" --control carried \
    --data "$2" --seed "$3" --output_dir "$1" $tune
}

mkdir -p "$runs"
say "films, curated blind"
[ -d "$runs/films" ] || stage worlds.film --world small --num_clips "$clips" --output_dir "$runs/films"
stage curate "$runs/films" --output_dir "$runs/kept" --buckets 64x64 --num_frames 25
say "clips: with curated tracks, and with true ones"
encode "$runs/clips_curated" --vae "$vae" --data "$runs/kept"
encode "$runs/clips_true" training/configs/small/latents.yaml --num_clips "$clips"
[ -d "$runs/clips_same" ] || stage worlds.compare --curated "$runs/clips_curated" --truth "$runs/clips_true" \
  --output_dir "$runs/clips_same"
say "the start"
stage finetune training/configs/small/base.yaml --control carried --data "$runs/clips_true" --output_dir "$runs/start" $tune
systems=()
for seed in ${SEEDS:-0}; do
  train "$runs/true_$seed" "$runs/clips_same" "$seed"
  train "$runs/curated_$seed" "$runs/clips_curated" "$seed"
  systems+=("true, seed $seed=$runs/true_$seed/pipeline@$steps" "curated, seed $seed=$runs/curated_$seed/pipeline@$steps")
done
say "side by side"
python -m eval.run --suite small --systems "${systems[@]}" "start=$runs/start/pipeline@$steps" still \
  "VAE=vae:$runs/start/pipeline" $bench --num_long_clips 0 --workers 1 --tracker patch \
  --title "Curated tracks and true ones" --output_dir "$runs/eval" --report "$report"
