#!/usr/bin/env bash
# Every figure of a GPU in docs/performance.md, in one call on a machine that has torch, timm, pyarrow and pillow, no ray.
#
#   benchmarks/gpu.sh wheels   where there is a network: what such a machine lacks, into build/gpu-wheels
#   benchmarks/gpu.sh          on the machine, in the root of the repository; tables and JSON into $OUT (build/gpu)
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
# First what is right, then what is fast.
"$python" -m pytest -q --noconftest tests/workers/votes/test_on_gpu.py tests/workers/votes/test_smoothed_vit.py \
  tests/benchmarks/test_float8_blocks.py -k "gpu or golden" | tee "$out/tests.txt"
measure pieces benchmarks.pieces
models="vit_tiny_patch16_224 vit_small_patch16_224 vit_base_patch16_224"
measure engine benchmarks.engine --device cuda --model $models --ablation column:19:1 column:37:1 column:19:8 \
  --dtype float32 bfloat16 float16 --images 64 --published 16 --dense 4 --rounds 3
measure blocks benchmarks.engine --device cuda --model vit_small_patch16_224 --ablation block:75:8 --dtype bfloat16 \
  --images 16 --published 16 --dense 0 --rounds 3
measure float8 benchmarks.float8 ${CIFAR10:+--tars "$CIFAR10"}
for model in vit_small_patch16_224 vit_base_patch16_224; do
  measure "pipeline-$model" benchmarks.pipeline --model "$model" --dtype bfloat16 --threads "$(nproc)" --images 512
done
