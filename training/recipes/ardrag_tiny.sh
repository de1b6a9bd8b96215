#!/usr/bin/env bash
# Makes a model like ardrag-tiny from nothing: VAE, latents, teacher, causal student, distillation, GRPO,
# benchmark.
#
#   bash training/recipes/ardrag_tiny.sh cpu     # a few hours on two cores: the parts that the bundled checkpoint had
#   bash training/recipes/ardrag_tiny.sh gpu     # ten times the clips and steps, meant for one large GPU
#   bash training/recipes/ardrag_tiny.sh debug   # a few steps of everything, to see that it runs
#
# RUNS is the folder of the runs (default runs/ardrag-tiny). Running it again resumes: finished parts are skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."

size="${1:-cpu}"
runs="${RUNS:-runs/ardrag-tiny}"
case "$size" in
  debug) vae="--steps 4 --clip_start 2 --pool_clips 4 --save_every 4"; long="--steps 2 --pool_clips 4 --save_every 2"
         clips=8; tune="--steps 2 --batch_size 2 --save_every 2 --validate false"; distill="$tune --critic_updates 1"
         grpo="--steps 2 --group_size 2 --save_every 2 --validate false"; bench="--num_clips 3" ;;
  cpu)   vae=""; long=""; clips=1500; tune=""; distill=""; grpo=""; bench="" ;;
  gpu)   vae="--steps 20000 --clip_start 6000 --batch_size 64 --clip_batch_size 8 --save_every 1000"
         long="--steps 8000 --clip_batch_size 8 --pool_clips 3000 --save_every 1000"
         clips=20000; tune="--steps 20000 --batch_size 64 --save_every 1000"
         distill="--steps 6000 --batch_size 32 --critic_updates 5 --save_every 500"
         grpo="--steps 2000 --gradient_accumulation_steps 8"; bench="" ;;
  *) echo "size: '$size' is unknown; use debug, cpu or gpu" >&2; exit 2 ;;
esac

say() { printf '\n== %s (%s)\n' "$*" "$(date +%H:%M:%S)"; }
stage() { python -m "training.$1" "${@:2}"; }

mkdir -p "$runs"
say "VAE on frames and short clips"
stage train_vae training/configs/vae_tiny.yaml --output_dir "$runs/vae" $vae
say "VAE on whole clips"
stage train_vae training/configs/vae_tiny_long.yaml --init_from "$runs/vae/vae" --output_dir "$runs/vae_long" $long
say "latents"
encode() {
  [ -f "$1/state.json" ] || stage precompute --vae "$runs/vae_long/vae" --output_dir "$1" --num_clips "$clips" \
    --num_frames 49 --control coloured "${@:2}"
}
encode "$runs/latents"
encode "$runs/latents_hard" --start 1000000 --categories occluded
say "stage 1: bidirectional teacher"
stage finetune training/configs/finetune_tiny.yaml --vae "$runs/vae_long/vae" --data "$runs/latents" \
  --control coloured --output_dir "$runs/teacher" $tune
say "causal start of the student"
stage finetune training/configs/causal_tiny.yaml --init_from "$runs/teacher/pipeline" --data "$runs/latents" \
  --sink_frames 1 --output_dir "$runs/student" $tune
say "the student goes on from its own histories"
stage finetune training/configs/causal_own_tiny.yaml --init_from "$runs/student/pipeline" --data "$runs/latents" \
  --output_dir "$runs/student_own" $tune
say "the same on longer clips and hard ones"
stage finetune training/configs/causal_sink_tiny.yaml --init_from "$runs/student_own/pipeline" \
  --data "$runs/latents" "$runs/latents_hard" --output_dir "$runs/student_sink" $tune
say "teacher of the distillation, on whole clips"
stage finetune training/configs/finetune_tiny_teacher.yaml --init_from "$runs/student/pipeline" \
  --data "$runs/latents" --output_dir "$runs/teacher_long" $tune
for variant in tiny tiny_wo_self_rollout tiny_self_forcing; do
  say "stage 2: $variant"
  stage distill "training/configs/distill_$variant.yaml" --init_from "$runs/student_sink/pipeline" \
    --teacher "$runs/teacher_long/pipeline" --data "$runs/latents" --output_dir "$runs/distill_$variant" $distill
done
say "stage 3: GRPO"
stage grpo training/configs/grpo_tiny.yaml --init_from "$runs/distill_tiny/pipeline" --output_dir "$runs/grpo" $grpo
say "VAE, the decoder alone"
stage train_vae training/configs/vae_tiny_decoder.yaml --init_from "$runs/vae_long/vae" \
  --output_dir "$runs/vae_decoder" $long
say "checkpoint"
stage export --pipeline "$runs/grpo/pipeline" --vae "$runs/vae_decoder/vae" --output_dir "$runs/checkpoint"
say "the systems side by side"
python -m eval.run --output_dir "$runs/eval" $bench --systems "AR-Drag=$runs/checkpoint" \
  "w/o RL=$runs/distill_tiny/pipeline" \
  "w/o Self-Rollout=$runs/distill_tiny_wo_self_rollout/pipeline" \
  "Self-Forcing=$runs/distill_tiny_self_forcing/pipeline" "initial model=$runs/student_sink/pipeline" \
  "teacher model=$runs/teacher_long/pipeline@24" truth still "VAE=vae:$runs/checkpoint" \
  "tracks of another clip=shuffled:$runs/checkpoint"
