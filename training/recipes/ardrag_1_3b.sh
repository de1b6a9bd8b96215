#!/usr/bin/env bash
# Trains the 1.3B model on eight GPUs: bidirectional with tracks, causal start, consistency, distillation, GRPO.
#
#   BASE=models/fun-control DATA=runs/openvid bash training/recipes/ardrag_1_3b.sh 8gpu
#   bash training/recipes/ardrag_1_3b.sh mock    # all of it on two CPU processes with a small random model of that layout
#
# BASE is a pipeline folder that python -m ardrag.convert wrote, DATA one that python -m training.precompute wrote with
# its VAE, RUNS the folder of the runs (default runs/ardrag-1.3b). Running it again resumes: finished parts are skipped.
# A stage that does not pass its gate ends the recipe (eval.gate): tracks of another clip must lead to another place, the
# first frame must be kept, and the path error may not grow beyond the share of the stage before that is named below.
set -euo pipefail
cd "$(dirname "$0")/../.."

size="${1:-8gpu}"
runs="${RUNS:-runs/ardrag-1.3b}"
mkdir -p "$runs"
say() { printf '\n== %s (%s)\n' "$*" "$(date +%H:%M:%S)"; }
case "$size" in
  mock)
    export ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1
    launch() { python -m torch.distributed.run --standalone --nproc_per_node 2 -m "training.$1" "${@:2}"; }
    few=(--steps 2 --save_every 2 --log_every 1 --num_latents 3 --gradient_accumulation_steps 1)
    say "a small random model of the layout of the large one, and clips for it"
    python -m training.train_vae --output_dir "$runs/vae" --base_dim 8 --decoder_base_dim 8 --steps 1 --clip_start 1 \
      --batch_size 1 --pool_clips 2 --pool_frames 5 --save_every 1
    data="$runs/latents"
    [ -f "$data/state.json" ] || python -m training.precompute --vae "$runs/vae/vae" --output_dir "$data" \
      --num_clips 4 --num_frames 9
    base=(--vae "$runs/vae/vae" --num_layers 2 --num_heads 2 --head_dim 16 --ffn_dim 64)
    grpo=(--group_size 2 --tracker patch)
    gate() { :; } ;;
  8gpu)
    launch() {
      accelerate launch --config_file training/configs/accelerate/fsdp2_8gpu.yaml -m "training.$1" "${@:2}"
    }
    few=(); grpo=()
    base=(--init_from "${BASE:?BASE: name the pipeline folder that python -m ardrag.convert wrote}")
    data="${DATA:?DATA: name the folder of latents that python -m training.precompute wrote}"
    gate() { # STAGE[@STEPS] [STAGE BEFORE] [SHARE OF ITS PATH ERROR]
      local stage="${1%@*}" model="$runs/${1/@//pipeline@}" before=()
      [ "$stage" != "$1" ] || model="$model/pipeline"
      [ -z "${2:-}" ] || before=(--before "$runs/gate_$2/report.json" --before_system "$2" --at_most "$3")
      python -m eval.run --quick --output_dir "$runs/gate_$stage" --systems "$stage=$model" \
        "tracks of another clip=shuffled:$model" still truth
      python -m eval.gate "$runs/gate_$stage/report.json" --system "$stage" --control "tracks of another clip" "${before[@]}"
    } ;;
  *) echo "size: '$size' is unknown; use mock or 8gpu" >&2; exit 2 ;;
esac

say "stage 1: bidirectional, with tracks"
launch finetune training/configs/finetune_1_3b.yaml "${base[@]}" --data "$data" --output_dir "$runs/teacher" "${few[@]}"
gate teacher@24
say "causal start"
launch finetune training/configs/causal_1_3b.yaml --init_from "$runs/teacher/pipeline" --data "$data" \
  --output_dir "$runs/causal" "${few[@]}"
gate causal teacher 1.2
say "causal consistency distillation"
launch consistency training/configs/consistency_1_3b.yaml --init_from "$runs/causal/pipeline" --data "$data" \
  --output_dir "$runs/consistency" "${few[@]}"
gate consistency causal 1
say "stage 2: distillation on the student's own rollouts"
launch distill training/configs/distill_1_3b.yaml --init_from "$runs/consistency/pipeline" \
  --teacher "$runs/teacher/pipeline" --data "$data" --output_dir "$runs/distill" "${few[@]}"
gate distill consistency 1
say "stage 3: GRPO"
launch grpo training/configs/grpo_1_3b.yaml --init_from "$runs/distill/pipeline" --prompts "$data" \
  --output_dir "$runs/grpo" "${few[@]}" "${grpo[@]}"
gate grpo distill 1
say "checkpoint"
python -m training.export --pipeline "$runs/grpo/pipeline" --output_dir "$runs/checkpoint" --max_shard_size 5GB
