#!/usr/bin/env bash
# Table 1 in small: every way to show a model where things go, trained alike in the small world (64x64, seven latents).
#
#   bash training/recipes/controls.sh cpu      # on one core or two: docs/results/controls.md and its companions
#   bash training/recipes/controls.sh debug    # a few steps of two controls, to see that it runs
#
# One start that never saw a track; from it, for each control, a bidirectional model by the same clips, steps and
# seeds; and causal ones with heat and with the carried piece. CONTROLS names the controls (default: all that need no masks)
# and CAUSAL the causal ones, RUNS is the folder of the runs (default runs/tables), REPORTS that of the pages (default
# docs/results, debug: RUNS).
# Running it again resumes: finished parts are skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."

size="${1:-cpu}"
runs="${RUNS:-runs/tables}"
reports="${REPORTS:-docs/results}"
controls="${CONTROLS:-carried coloured heat copied track_ids entity flow fused_flow boxes}"
case "$size" in
  debug) clips=4; scanned=40; tune="--steps 2 --batch_size 2 --save_every 2"; bench="--num_clips 3 --num_frames 17"
         steps=2; crossing=""; controls="${CONTROLS:-carried track_ids}"; causal="${CAUSAL:-carried}"
         reports="${REPORTS:-$runs}" ;;
  cpu)   clips=400; scanned=1200; tune=""; bench="--num_clips 24 --num_frames 25"; steps=24; crossing="yes"
         causal="${CAUSAL:-heat carried}" ;;
  *) echo "size: '$size' is unknown; use debug or cpu" >&2; exit 2 ;;
esac

say() { printf '\n== %s (%s)\n' "$*" "$(date +%H:%M:%S)"; }
stage() { python -m "training.$1" "${@:2}"; }
encode() { # folder, what
  [ -f "$1/state.json" ] || stage precompute training/configs/small/latents.yaml --output_dir "$1" "${@:2}"
}
shown() { # control: its motion beside the clips, where a VAE must encode it
  case "$1" in heat|copied|track_ids|entity) data=("$runs/clips" "$runs/two"); return ;; esac
  data=()
  for folder in "$runs/clips" "$runs/two"; do
    [ -f "${folder}_$1/state.json" ] || stage precompute --vae checkpoints/ardrag-tiny/vae --clips "$folder" \
      --control "$1" --batch_size 16 --output_dir "${folder}_$1"
    data+=("${folder}_$1")
  done
}
row() { # control, folder, more
  say "$2"
  shown "$1"
  stage finetune training/configs/small/control.yaml --init_from "$runs/start/pipeline" --control "$1" \
    --data "${data[@]}" --output_dir "$2" $tune "${@:3}"
}

mkdir -p "$runs"
say "clips: any, and more with two paths"
encode "$runs/clips" --num_clips "$clips"
encode "$runs/two" --start 10000 --num_clips "$scanned" --categories "two paths"
say "the common start"
stage finetune training/configs/small/base.yaml --data "$runs/clips" --output_dir "$runs/start" $tune
systems=()
for control in $controls; do
  row "$control" "$runs/$control"
  systems+=("$control=$runs/$control/pipeline@$steps")
done
for control in $causal; do
  row "$control" "$runs/causal_$control" --causal true
  systems+=("causal, $control=$runs/causal_$control/pipeline")
done
say "the systems side by side"
bounds=("start=$runs/start/pipeline@$steps")
[ "$size" = debug ] || bounds+=(still "VAE=vae:$runs/start/pipeline")
python -m eval.run --suite small --systems "${systems[@]}" "${bounds[@]}" $bench --num_long_clips 0 --workers 1 \
  --tracker patch --vae checkpoints/ardrag-tiny --title "Controls, trained alike" --output_dir "$runs/eval" \
  --report "$reports/controls"
[ -z "$crossing" ] || python -m eval.run --suite crossing --systems "${systems[@]}" still --num_frames 25 \
  --num_long_clips 0 --workers 1 --tracker patch --title "Controls where two paths cross" \
  --output_dir "$runs/eval" --report "$reports/controls_crossing"
[ -z "$crossing" ] || python -m eval.run --suite counterfactual:small --systems "${systems[@]}" --num_clips 6 \
  --num_frames 17 --tracker patch --title "Counterfactual controls, each way to show them" \
  --output_dir "$runs/eval" --report "$reports/controls_counterfactual"
