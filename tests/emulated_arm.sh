#!/usr/bin/env bash
# The kernels of the neon-dotprod tier against their twins, on an emulated AArch64 processor: `make neon`.
#
#   emulated_arm.sh FOLDER [pytest arguments]     FOLDER keeps the Debian root and the wheels between calls
#
# Needs root, debootstrap, qemu-user, pip, and about 2 GB. An hour on two cores: the emulator is 30 times slower.
set -euo pipefail

folder=$(mkdir -p "$1" && cd "$1" && pwd)
shift
root=$folder/root
site=$folder/site

if [ ! -e "$root/usr/bin/python3.11" ]; then
  debootstrap --arch=arm64 --foreign --variant=minbase --include=python3,libstdc++6 bookworm "$root" \
    http://deb.debian.org/debian
  for package in "$root"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
fi
if [ ! -d "$site/numba" ]; then
  platforms=(--platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64
    --platform manylinux2014_aarch64)
  python3 -m pip install --quiet --target "$site" "${platforms[@]}" --implementation cp --python-version 3.11 \
    --only-binary=:all: numpy numba pytest pytest-timeout hypothesis gguf ml_dtypes jinja2 tokenizers
fi

# The emulator cannot tell what it emulates, so the processor is named: every one since Armv8.2 has these.
export NUMBA_CPU_NAME=neoverse-n1 NUMBA_CPU_FEATURES="+neon,+dotprod,+fp-armv8,+crc,+lse,+rdm,+rcpc,+fullfp16"
export PYTHONPATH="$site:." REFQUANT_CACHE=$folder/cache PYTHONDONTWRITEBYTECODE=1
python=(qemu-aarch64 -cpu max -L "$root" "$root/usr/bin/python3.11")

"${python[@]}" -c 'from runtime.simd.tier import TIER; assert TIER == "neon-dotprod", TIER'
if [ $# -eq 0 ]; then
  set -- tests/runtime/test_block_kernels.py tests/runtime/test_activations.py tests/runtime/test_attention.py \
    tests/runtime/test_fused.py tests/runtime/test_step.py --deselect \
    tests/runtime/test_step.py::test_every_overrun_is_caught_in_checked_mode # starts a process, which needs binfmt
fi
exec "${python[@]}" -m pytest -p no:cacheprovider --timeout 3000 "$@"
