#!/usr/bin/env bash
# Makes a model of both worlds, sprites and photographs, from the student of sprites: pictures, VAE, latents with the
# collage, transplant, causal start.
#
#   bash training/recipes/ardrag_tiny_photos.sh cpu     # four hours on two cores
#   bash training/recipes/ardrag_tiny_photos.sh gpu     # twenty times the clips and steps, meant for one large GPU
#   bash training/recipes/ardrag_tiny_photos.sh debug   # a few steps of everything, to see that it runs
#
# CONTROL is what the model is shown of the tracks: cutout, for which a network first learns outlines, or collage.
# RUNS is the folder of the runs (default runs/photos), ARDRAG_PHOTOS that of the pictures (default RUNS/pictures;
# about 450 MB are fetched). Running it again resumes: finished parts are skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."

size="${1:-cpu}"
runs="${RUNS:-runs/photos}"
control="${CONTROL:-cutout}"
export ARDRAG_PHOTOS="${ARDRAG_PHOTOS:-$runs/pictures}"
case "$size" in
  debug) frames="--steps 2 --save_every 2 --pool_clips 2 --held_out_clips 1 --batch_size 2"
         clips="--steps 2 --save_every 2 --pool_clips 2 --photo_pool_clips 2 --held_out_clips 1 --clip_batch_size 1"
         photos=5; sprites=4; move="--sprite_clips 2 --photo_clips 2 --batches 2"
         tune="--steps 2 --batch_size 2 --save_every 2"
         cuts="--widths 4 8 --photos 4 --sprites 2 --steps 2 --batch_size 2 --validation_grabs 8" ;;
  cpu)   frames=""; clips="--steps 585"; photos=600; sprites=600; move=""; tune=""; cuts="--photos 12000 --steps 5000" ;;
  gpu)   frames="--steps 20000 --batch_size 64 --save_every 1000"
         clips="--steps 10000 --clip_batch_size 16 --clip_frames 33 --photo_pool_clips 4000 --save_every 1000"
         photos=12000; sprites=8000; move="--batches 100"; tune="--steps 12000 --batch_size 32 --save_every 500"
         cuts="--photos 20000 --sprites 4000 --steps 20000 --batch_size 64 --save_every 1000" ;;
  *) echo "size: '$size' is unknown; use debug, cpu or gpu" >&2; exit 2 ;;
esac

say() { printf '\n== %s (%s)\n' "$*" "$(date +%H:%M:%S)"; }
stage() { python -m "training.$1" "${@:2}"; }

mkdir -p "$runs"
say "pictures"
[ -f "$ARDRAG_PHOTOS/index.json" ] || stage worlds.fetch --output_dir "$ARDRAG_PHOTOS"
say "VAE on single frames"
stage train_vae training/configs/vae_photos.yaml --output_dir "$runs/vae" $frames
say "VAE on clips"
stage train_vae training/configs/vae_photos_clips.yaml --init_from "$runs/vae/vae" --output_dir "$runs/vae_clips" $clips
outline=(); halved=(transformer)
if [ "$control" = cutout ]; then
  say "outlines"
  outline=(--outline "$runs/outline/outline"); halved+=(outline)
  [ -f "$runs/outline/curves.png" ] || stage outlines.train --output_dir "$runs/outline" $cuts
fi
say "latents"
encode() {
  [ -f "$1/state.json" ] || stage precompute --vae "$runs/vae_clips/vae" --output_dir "$1" --num_frames 33 \
    --control "$control" "${outline[@]}" "${@:2}"
}
encode "$runs/latents_photos" --world photos --num_clips "$photos"
encode "$runs/latents_wide" --world photos --start 100000 --num_clips $((photos / 5)) --height 96 --width 160
encode "$runs/latents_high" --world photos --start 200000 --num_clips $((photos / 5)) --height 160 --width 96
encode "$runs/latents_sprites" --world sprites --num_clips "$sprites"
data=("$runs/latents_photos" "$runs/latents_wide" "$runs/latents_high" "$runs/latents_sprites")
say "the student of sprites moves to the new latents"
[ -f "$runs/transplant/model_index.json" ] || stage transplant --pipeline checkpoints/ardrag-tiny \
  --vae "$runs/vae_clips/vae" --data "${data[@]}" --control "$control" "${outline[@]}" --sigmas 1.0 0.755 0.522 0.0 \
  --output_dir "$runs/transplant" $move
say "causal start"
stage finetune training/configs/causal_photos.yaml --init_from "$runs/transplant" --data "${data[@]}" \
  --control "$control" --output_dir "$runs/student" $tune
say "checkpoint"
stage export --pipeline "$runs/student/pipeline" --half "${halved[@]}" --output_dir "$runs/checkpoint"
