#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Bugs put into the cuda backend one at a time; the emulator or a comparison with the cpu must catch each.
# seeded.sh BUILD CXX [PART PARTS]: BUILD has the test programs, made by make; every PARTS-th bug from the PART-th on, all
# without these.
set -euo pipefail
build=$(realpath "$1") cxx=$2 part=${3-1} parts=${4-1} root=$(cd "$(dirname "$0")/../.." && pwd)
temp=$(mktemp -d "${TMPDIR:-/tmp}/blockq-seeded-XXXXXX")
trap 'rm -rf "$temp"' EXIT
ulimit -c 0
seen=0 caught=0 missed=0
compile=("$cxx" -std=gnu++20 -O1 -ffp-contract=off "-I$temp" "-I$root/tests/simt")
if grep -q '^BQ_SANITIZE:.*=ON' "$build/CMakeCache.txt"; then compile+=("-fsanitize=address,undefined" -fno-sanitize-recover=all); fi
[[ -e $build/tests/CMakeFiles/simt_test_gemm.dir/link.txt ]] || { echo "not built by make" && exit 77; }
cp "$root/tests/simt/cuda_runtime.h" "$temp"
"${compile[@]}" -x c++-header "$temp/cuda_runtime.h" -o "$temp/cuda_runtime.h.gch" # most of a compilation is this

# bug WHAT FILE SED SOURCE PROGRAM: simt_PROGRAM with SOURCE compiled from a changed FILE (itself, or a header) fails.
bug() {
    (((seen++ - part + 1) % parts == 0)) || return 0
    local what=$1 file=$2 change=$3 source=$4 program=simt_$5 dir=$temp/$seen link code=0
    mkdir -p "$dir/kernels/cuda"
    sed -E "$change" "$root/src/kernels/cuda/$file" >"$dir/kernels/cuda/$file"
    if cmp -s "$root/src/kernels/cuda/$file" "$dir/kernels/cuda/$file"; then
        echo "MISSED $what: the change changes nothing" && missed=$((missed + 1)) && return 0
    fi
    [[ $file == "$source" ]] || cp "$root/src/kernels/cuda/$source" "$dir/kernels/cuda/"
    "${compile[@]}" "-I$dir" "-I$root/src" -include cuda_runtime.h -x c++ -c "$dir/kernels/cuda/$source" -o "$dir/seeded.o"
    link=$(sed -E "s|[^ ]*/bq_simt.dir/[^ ]*/$source\.o|$dir/seeded.o|; s|-o $program( )|-o $dir/$program\1|" \
        "$build/tests/CMakeFiles/$program.dir/link.txt")
    (cd "$build/tests" && bash -c "$link")
    { (cd "$build/tests" && timeout 600 "$dir/$program" >"$dir/log" 2>&1) || code=$?; } 2>/dev/null
    if ((code == 0 || code == 124)); then
        echo "MISSED $what: exit code $code" && missed=$((missed + 1)) && return 0
    fi
    caught=$((caught + 1))
    echo "caught $what: $(grep -m1 -E '^simt: |runtime error|AddressSanitizer|differ|beyond|nmse' "$dir/log" || echo "exit code $code")," \
        "$(sed -n 's/^\[ RUN *\] //p' "$dir/log" | tail -n 1)"
    rm -r "$dir"
}

bug "a barrier dropped before a tile is used" attention.cu 's|__syncthreads\(\); /\* these are there \*/||' attention.cu test_attention
bug "a barrier dropped after a tile was used" attention.cu 's|__syncthreads\(\); /\* the tiles before have been read \*/||' attention.cu test_attention
bug "a barrier dropped between two uses of shared memory" reduce.cuh 's|__syncthreads\(\); /\* all threads have read: .*||' smooth.cu test_smooth_ops
bug "a barrier that only some threads reach" mse.cu 's|__syncthreads\(\); /\* they are there|if (threadIdx.x < 32) __syncthreads(); /* they are there|' mse.cu test_model_ops
bug "a thread that leaves before an exchange" rmsnorm.cu 's|^( *)const int64_t n = r < rows \* runs \? cols : 0;|\1if (r >= rows * runs) return;\n\1const int64_t n = cols;|' rmsnorm.cu test_model_ops
bug "an exchange with half a mask" reduce.cuh 's|BQ_WARP = 0xffffffffu|BQ_WARP = 0x0000ffffu|' rmsnorm.cu test_model_ops
bug "a causal mask off by one" tiles.cuh 's|return j <= i \&\&|return j < i \&\&|' attention.cu test_attention
bug "a window off by one" tiles.cuh 's|i - window < j|i - window <= j|' attention.cu test_attention
bug "a cap without its slope" attention.cuh 's|1.0f - h \* h|1.0f|' attention_bwd.cu test_attention
bug "values with heads of the size of keys" attention.cu 's|a\.v, kv, a\.vd|a.v, kv, a.hd|' attention.cu test_attention
bug "an expert that one lane finds alone" experts.cu 's|bq_team_max\((bq_route_next\(.*, key\))\);|\1;|' experts.cu test_expert_ops
bug "rows that are added by a fused operation" experts.cu 's|bq_row\(y, r\)\[c\] \+= bq_row\(x, i\)\[c\] \* \*bq_row\(weight, i\)|bq_row(y, r)[c] = fmaf(bq_row(x, i)[c], *bq_row(weight, i), bq_row(y, r)[c])|' experts.cu test_expert_ops
bug "rows beyond the end are written" tiles.cuh 's|row < rows \&\& col < hd|col < hd|' attention.cu test_attention
bug "a bound off by one" elements.cu 's|c < cols|c <= cols|' elements.cu test_model_ops
bug "a shared index beyond its array" search.cuh 's|loss\[BQ_CANDIDATES\]|loss[BQ_CANDIDATES / 4]|' range_mse.cu test_search_ops
bug "lanes summed in another order" reduce.cuh 's|int w = BQ_LANES / 2; w > 0; w /= 2|int w = 1; w < BQ_LANES; w *= 2|' rmsnorm.cu test_model_ops
bug "a result read before the stream is done" cuda.cu 's|\(state = cudaStreamQuery\(cuda->stream\)\) == cudaErrorNotReady|(state = cudaSuccess) == cudaErrorNotReady|' cuda.cu test_model_ops
bug "a copy on the wrong stream" move.cu 's|const size_t size = bq_type_size\(from.type\)|BQ_CUDA(cudaStreamCreateWithFlags(\&stream, cudaStreamNonBlocking)); &|' move.cu test_model_ops
bug "weights used before they have arrived" move.cu 's|cudaStreamWaitEvent\(cuda->stream, cuda->copied, 0\)|cudaSuccess|' move.cu unit_test_dev
bug "weights overwritten while they are used" move.cu 's|cudaStreamWaitEvent\(cuda->ahead, cuda->called, 0\)|cudaSuccess|' move.cu unit_test_dev
bug "a matrix on the host given to a kernel" elements.cu 's|bq_rows<float> every = \{bq_f32\(bias\), 0\};|static float here[4096]; bq_rows<float> every = {here, 0};|' elements.cu test_model_ops
bug "operands of a GEMM exchanged" gemm.cu 's|tb \? CUBLAS_OP_T|ta ? CUBLAS_OP_T|' gemm.cu test_gemm
bug "an error that a column of GPTQ misses" gptq.cu 's|for \(int i = 0; i < STEP; i\+\+\)|for (int i = 0; i + 1 < STEP; i++)|' gptq.cu test_gptq_ops
bug "an error of a step that its columns miss" gptq.cu 's|x\[j\] = x\[j \+ 1\] - e|x[j] = x[j + 1] - (i < 30 ? e : 0)|' gptq.cu test_gptq_ops
bug "factors of errors used before they are there" gptq.cu 's|__syncthreads\(\); /\* all of it is there \*/||' gptq.cu test_gptq_ops
bug "a mask of four weights that does not move on" gptq.cu 's#stay >>= 1;##' gptq.cu test_sparse_ops
bug "of equal neighbours the later one goes" sparse.cu 's#bq_stays\(m\[1\], m\[0\], m\[2\], m\[3\], 1\)#bq_stays(m[1], m[0], m[2], m[3], 0)#' sparse.cu test_sparse_ops
bug "a block beside the diagonal that is not multiplied" factor.cu 's|\(int64_t i = 0; i < rest; i \+= PANEL\)|(int64_t i = PANEL; i < rest; i += PANEL)|' factor.cu test_factor
bug "no zeros below the diagonal of a panel" factor.cu 's|if \(n <= PANEL\)|if (n < PANEL)|' factor.cu test_factor
bug "columns that a panel of the factor misses" factor.cu 's|j / PANEL \* PANEL : 0|j / PANEL * PANEL : TILE|' factor.cu test_factor
bug "rows of a column that no thread has" columns.cu 's|each = \(rows \+ PARTS - 1\) / PARTS|each = rows > PARTS ? rows / PARTS : 1|' columns.cu test_smooth_ops
bug "of 0 and -0 the last one" columns.cu 's#mosts\[k\]\[lane\(\)\] > most#mosts[k][lane()] >= most#' columns.cu test_smooth_ops
bug "terms added before they are there" columns.cu 's|__syncthreads\(\); /\* the terms are there.*||' columns.cu test_smooth_ops
bug "contraction of a product and a sum" adascale.cu 's|\*m \+ a.keep1 \* \(g - \*m\)|fmaf(a.keep1, g - *m, *m)|' adascale.cu test_adascale_ops
bug "a reciprocal for a division" quantize.cu 's#bq_grid_code_of\(bq_row\(w, r\)\[c\], g\)#bq_nearest(g.number, bq_clamp_code(bq_row(w, r)[c] * (1.0f / g.scale), g.qmin, g.qmax))#' quantize.cu test_quant_ops
bug "operands cut to bf16, not rounded" gemm.cu 's#bq_to_bf16\(bq_row\(x, r\)\[c\]\)#(uint16_t)(bq_bits(bq_row(x, r)[c]) >> 16)#' gemm.cu unit_test_compute
bug "a term of fp16 forgotten" gemm.cu 's#if \(b\.lo\.data\) on_tensor_cores.*##' gemm.cu unit_test_compute
bug "a piece of a product that replaces the one before" gemm.cu 's#at, n\), one, c#at, n), factors + 1, c#' gemm.cu unit_test_compute
bug "a power of two that is one too large" gemm.cu 's#268 - e#269 - e#' gemm.cu unit_test_compute
bug "a Gram matrix whose panels start at the top" gram.cu 's#bq_mat_rows\(h, at, below\)#bq_mat_rows(h, 0, below)#' gram.cu test_gram
bug "a result of a replay that nobody waits for" graph.cu 's#cuda->pending\[cuda->npending\+\+\] = g->result\[i\];##' graph.cu unit_test_replay
bug "a replay with scratch where it was" graph.cu 's#&& cuda->graph\[i\].used == used##' graph.cu unit_test_replay
bug "ops recorded and not run" graph.cu '/g->result\[i\] = cuda/,/^}/s#BQ_CUDA\(cudaGraphLaunch.*##' graph.cu unit_test_replay
bug "words of an operand in the wrong lanes" tiles.cuh 's|\{p\[0\], q\[0\], p\[4\], q\[4\]\}|{p[0], p[4], q[0], q[4]}|' attention.cu test_attention
bug "scores in the wrong lanes of their product" tiles.cuh 's|w\[2 \* k \+ r\] = bq_word|w[2 * r + k] = bq_word|' attention_bwd.cu test_attention
bug "rows of values in the wrong lanes, in bf16" tiles.cuh 's|other = S::per > 1 \? 4 : 1|other = 1|' attention.cu unit_test_compute
bug "the lower half of a float left out" parts.cuh 's|bq_mma_tf32\(d, a\.hi, b\.lo\);||' attention.cu test_attention
bug "a score summed by the tensor core alone" tiles.cuh 's|if constexpr \(S::way == BQ_COMPUTE_F32\) \{|if constexpr (false) {|' attention_bwd.cu test_attention
bug "operands cut to tf32, not rounded" parts.cuh 's|\(bq_bits\(x\) \+ 0x1000u\) \& |bq_bits(x) \& |' attention_bwd.cu unit_test_compute
bug "operands of attention cut to bf16, not rounded" tiles.cuh 's#bq_word_bf16\(x\.v\[2 \* k\], x\.v\[2 \* k \+ 1\]\)#(bq_bits(x.v[2 * k + 1]) \& 0xffff0000u) | bq_bits(x.v[2 * k]) >> 16#' attention_bwd.cu unit_test_compute
bug "sums that are not scaled to a new maximum" attention.cu 's|\*shrink = none \? 1 : bq_exp\(\*max - top\)|*shrink = 1|' attention.cu test_attention
echo "$caught caught, $missed missed"
((missed == 0))
