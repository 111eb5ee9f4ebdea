/* tiles.cuh - products of 64 x 64 tiles for attention, in shared memory and registers.
 *
 * A thread block has 256 threads.  Thread t has the rows 4 (t / 16) + i of a tile.  Of scores it has the
 * columns 4 (t % 16) + j (i, j < 4); of a result of HD columns it has the columns 2 (t % 16) + 32 j + {0, 1}.
 * So the 16 threads of a team (reduce.cuh) share rows.
 *
 * A matrix is one head of a wider matrix: `hd` columns from `at`, rows `ld` apart.  Rows from `rows` on, and
 * columns from hd to HD, count as 0. */
#ifndef BQ_TILES_CUH
#define BQ_TILES_CUH

#include "kernels/cuda/reduce.cuh"

enum { BQ_TILE = 64, BQ_DEPTH = 32, BQ_PITCH = BQ_TILE + 4 }; /* pitch: a multiple of 4 for vector loads */

struct alignas(16) bq_four {
    float v[4];
};
struct alignas(8) bq_two {
    float v[2];
};

struct bq_head {
    const float *at;
    int64_t ld, rows;
    int hd;
};

/* The shared memory of a thread block.  Operands pass through `in`.  `across` holds the left operand of
 * bq_tile_add: its row k is column k of the tile's 64 rows. */
struct bq_tiles {
    alignas(16) float in[2 * BQ_DEPTH * BQ_PITCH];
    alignas(16) float across[BQ_TILE * BQ_PITCH];
};

static inline __device__ float bq_head_at(bq_head m, int64_t row, int col) {
    return row < m.rows && col < m.hd ? m.at[row * m.ld + col] : 0;
}

/* Load rows [row, row + 64) and columns [col, col + BQ_DEPTH) to `to`, transposed. */
static inline __device__ void bq_tile_load(bq_head m, int64_t row, int col, float *to) {
    for (int i = (int)threadIdx.x; i < BQ_TILE * BQ_DEPTH; i += BQ_THREADS)
        to[i % BQ_DEPTH * BQ_PITCH + i / BQ_DEPTH] = bq_head_at(m, row + i / BQ_DEPTH, col + i % BQ_DEPTH);
}

/* s = 64 rows of a from `arow` times the transpose of 64 rows of b from `brow`.  Any shared memory may be in
 * use when it is called; when it returns `in` is in use. */
template <int HD>
static __device__ void bq_tile_scores(bq_tiles *mem, bq_head a, int64_t arow, bq_head b, int64_t brow,
                                      float s[4][4]) {
    float *left = mem->in, *right = mem->in + BQ_DEPTH * BQ_PITCH;
    const int y = (int)threadIdx.x / 16 * 4, x = (int)threadIdx.x % 16 * 4;
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) s[i][j] = 0;
    for (int col = 0; col < HD; col += BQ_DEPTH) {
        __syncthreads(); /* `in` and `across` have been read */
        bq_tile_load(a, arow, col, left);
        bq_tile_load(b, brow, col, right);
        __syncthreads(); /* both are there */
        for (int d = 0; d < BQ_DEPTH; d++) {
            const bq_four l = *(const bq_four *)(left + d * BQ_PITCH + y),
                          r = *(const bq_four *)(right + d * BQ_PITCH + x);
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) s[i][j] = fmaf(l.v[i], r.v[j], s[i][j]);
        }
    }
}

/* Keep a tile of scores: it becomes the left operand of bq_tile_add. */
static inline __device__ void bq_tile_keep(bq_tiles *mem, const float s[4][4]) {
    const int y = (int)threadIdx.x / 16 * 4, x = (int)threadIdx.x % 16 * 4;
    for (int j = 0; j < 4; j++)
        *(bq_four *)(mem->across + (x + j) * BQ_PITCH + y) = {{s[0][j], s[1][j], s[2][j], s[3][j]}};
}

/* o += the tile that was kept, times 64 rows of m from `row`. */
template <int HD>
static __device__ void bq_tile_add(bq_tiles *mem, bq_head m, int64_t row, float o[4][HD / 16]) {
    constexpr int depth = HD <= 128 ? BQ_DEPTH : BQ_DEPTH / 2; /* rows of the operand at a time */
    static_assert(depth * HD <= 2 * BQ_DEPTH * BQ_PITCH, "the operand fits");
    const int y = (int)threadIdx.x / 16 * 4, x = (int)threadIdx.x % 16 * 2;
    for (int part = 0; part < BQ_TILE; part += depth) {
        __syncthreads(); /* `in` has been read, `across` is there */
        for (int i = (int)threadIdx.x; i < depth * HD; i += BQ_THREADS)
            mem->in[i] = bq_head_at(m, row + part + i / HD, i % HD);
        __syncthreads(); /* the operand is there */
        for (int k = 0; k < depth; k++) {
            const bq_four l = *(const bq_four *)(mem->across + (part + k) * BQ_PITCH + y);
            for (int j = 0; j < HD / 32; j++) {
                const bq_two r = *(const bq_two *)(mem->in + k * HD + x + 32 * j);
                for (int i = 0; i < 4; i++) {
                    o[i][2 * j] = fmaf(l.v[i], r.v[0], o[i][2 * j]);
                    o[i][2 * j + 1] = fmaf(l.v[i], r.v[1], o[i][2 * j + 1]);
                }
            }
        }
    }
}

/* Store rows [row, row + 64) of a result, row i times factor[i], to one head of a matrix. */
template <int HD>
static __device__ void bq_tile_store(float *to, int64_t ld, int64_t row, int64_t rows, int hd,
                                     const float o[4][HD / 16], const float factor[4]) {
    const int y = (int)threadIdx.x / 16 * 4, x = (int)threadIdx.x % 16 * 2;
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < HD / 16; j++) {
            const int col = x + j / 2 * 32 + j % 2;
            if (row + y + i < rows && col < hd) to[(row + y + i) * ld + col] = o[i][j] * factor[i];
        }
}

/* Does query i see key j? */
static inline __device__ bool bq_sees(int64_t i, int64_t j, int64_t window) {
    return j <= i && (window == 0 || i - window < j);
}

#endif
