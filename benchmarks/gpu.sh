#!/usr/bin/env bash
# Measures what docs/performance.md says of GPUs and what it leaves open. The machine needs torch, timm, pyarrow, pillow
# and pytest, no ray.
#
#   benchmarks/gpu.sh wheels      where there is a network: what such a machine lacks, into build/gpu-wheels
#   benchmarks/gpu.sh [STEP...]   on the machine, in the root of the repository; tables and JSON into $OUT (build/gpu)
#
# Steps, all by default: tests engine pieces float8 pipeline
#
# PYTHON        the Python to use (default: python3)
# PYTHON_THERE  the version that wheels are fetched for (default: 3.12)
# CIFAR10       folder of tars of the CIFAR-10 test set, for accuracy in float8 (default: made-up images)
set -euo pipefail
cd "$(dirname "$0")/.."
wheels=build/gpu-wheels python=${PYTHON:-python3} out=${OUT:-build/gpu}

if [ "${1:-}" = wheels ]; then
  mkdir -p "$wheels"
  exec "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "${PYTHON_THERE:-3.12}" \
    --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 -c constraints.txt -d "$wheels" \
    annotated-types braceexpand markdown-it-py mdurl pydantic pydantic-core pygments pyyaml rich safetensors \
    typing-inspection typing-extensions webdataset
fi

"$python" -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "gpu.sh: torch sees no GPU here")'
mkdir -p "$out"
if [ -d "$wheels" ]; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install --quiet --no-index --no-deps --upgrade --target "$site" "$wheels"/*.whl
  export PYTHONPATH=$site
fi
export PYTHONPATH=$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}

measure() { # NAME MODULE ARGUMENTS...
  local name=$1
  shift
  "$python" -m "$@" | tee "$out/$name.txt"
  tail -1 "$out/$name.txt" >"$out/$name.json"
}
small=vit_tiny_patch16_224 middle=vit_small_patch16_224 large=vit_base_patch16_224

tests() { # a benchmark plugin, where there is one, objects to xdist
  OMP_NUM_THREADS=2 "$python" -m pytest -q --noconftest -p no:benchmark -p no:cacheprovider -k "gpu or golden or float8 or card" \
    tests/workers/votes/test_on_gpu.py tests/workers/votes/test_smoothed_vit.py tests/benchmarks/test_float8_blocks.py \
    tests/workers/tars/test_decoding_on_gpu.py | tee "$out/tests.txt"
}
engine() {
  local bench="benchmarks.engine --device cuda --rounds 5 --published 16 --dense 2 --loop 0"
  measure engine $bench --images 128 --dtype bfloat16 --model $middle $large $small --ablation column:19:1 column:19:8
  measure precise $bench --images 64 --dtype float16 float32 --model $middle --ablation column:19:1
  measure areas $bench --images 64 --dtype bfloat16 --model $middle --ablation mask:32:3 block:75:16
}
pipeline() { # slopes of two sizes, with Pillow; then 50,000 photos that the GPU decodes, too
  local bench="benchmarks.pipeline --dtype bfloat16 --threads $(nproc)"
  for model in $middle $large; do
    measure "pipeline-$model" $bench --model "$model" --images 512
  done
  measure pipeline-nvjpeg $bench --model $middle --ablation column:19:1 --decoder nvjpeg --photo 224 224 --no-resize \
    --repeat-photos --shards 50 --images 1000 --rounds 1
}
float8() { measure float8 benchmarks.float8 --random-images 32 ${CIFAR10:+--tars "$CIFAR10"}; }
pieces() { measure pieces benchmarks.pieces --width 384 768; }
steps=${*:-tests engine pieces float8 pipeline}
for step in $steps; do "$step"; done
