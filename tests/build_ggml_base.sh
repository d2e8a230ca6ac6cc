#!/usr/bin/env bash
# Build the part of ggml that quantizes, with the compiler flags that decide its bytes:
#
#   tests/build_ggml_base.sh llama.cpp/ggml strict.so -ffp-contract=off      what stock x86-64 builds give
#   tests/build_ggml_base.sh llama.cpp/ggml fused.so -march=native           a * b + c fused where the compiler likes
#
# llama.cpp lies in the source distribution of llama-cpp-python, under vendor/. GCC and GNU ld.
set -euo pipefail

source=$1 library=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

printf '#define GGML_VERSION ""\n#define GGML_COMMIT ""\n' >"$work/ggml-version.h" # CMake generates it
printf '{ global: ggml_quantize_*; ggml_get_type_traits; quantize_row_*; dequantize_row_*; local: *; };' >"$work/exports"
options=(-O3 -DNDEBUG -fPIC -ffunction-sections -fdata-sections "$@" -I"$work" -I"$source/include" -I"$source/src")

gcc -std=gnu11 "${options[@]}" -c "$source/src/ggml.c" -o "$work/ggml.o"
gcc -std=gnu11 "${options[@]}" -c "$source/src/ggml-quants.c" -o "$work/ggml-quants.o"
g++ -std=gnu++17 "${options[@]}" -c "$source/src/ggml-threading.cpp" -o "$work/ggml-threading.o"
# What is not exported is dropped, and with it the calls of ggml.c into the backends, which are not built here.
g++ -shared "$work"/*.o -Wl,--gc-sections -Wl,--version-script="$work/exports" -o "$library" -lm
