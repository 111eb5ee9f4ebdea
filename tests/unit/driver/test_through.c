/* SPDX-License-Identifier: Apache-2.0 */
/* A stream through blocks unit by unit against bq_block_forward on whole blocks: the same bits, wherever the
 * stream is. */
#include "golden.h"

#include "driver/load/through.h"
#include "golden/rig.h"

enum { SAMPLES = 3, T = 40 };

static int steps;
static void count(void *ctx, int unit, int64_t sample) {
    (void)ctx, (void)sample;
    assert_true(unit >= 0);
    steps++;
}

static void same_bits(void **state) {
    golden g;
    golden_rig m;
    golden_vector_model(&g, *state);
    golden_rig_open(&m, &g, T);
    const bq_arch *arch = &m.src.arch;
    int64_t h = arch->model.hidden, n = T * h;
    bq_mat want = bq_arena_push(&m.dev.mem, SAMPLES * T, h, BQ_F32),
           have = bq_arena_push(&m.dev.mem, SAMPLES * T, h, BQ_F32),
           buffer = bq_arena_push(&m.dev.mem, T, h, BQ_F32);
    for (int64_t i = 0; i < SAMPLES * n; i++) bq_f32(want)[i] = bq_f32(have)[i] = (float)sin((double)i * 1.3);
    bq_stream on_disk, in_memory = bq_stream_over(have, T);
    bq_stream_open(&on_disk, SAMPLES, T, h, (bq_home){.scratch = "."});
    for (int64_t i = 0; i < SAMPLES; i++) bq_stream_put(&on_disk, i, bq_mat_rows(want, i * T, T));
    bq_through memory, disk;
    bq_through_open(&memory, &m.src, BQ_ANGLES_HF, &m.dev, SAMPLES, T, (bq_home){0});
    bq_through_open(&disk, &m.src, BQ_ANGLES_HF, &m.dev, SAMPLES, T, (bq_home){.scratch = "."});
    memory.step = count, disk.buffer = buffer;
    for (int b = 0; b < arch->model.blocks; b++) {
        steps = 0;
        bq_through_block(&memory, b, SAMPLES, &in_memory, &in_memory);
        bq_through_block(&disk, b, SAMPLES, &on_disk, &on_disk);
        assert_int_equal(steps, SAMPLES * (1 + bq_source_core(&m.src, b)->experts));
        bq_source_block(&m.src, &m.dev, b, &m.blk);
        for (int64_t i = 0; i < SAMPLES; i++) {
            bq_mat x = bq_mat_rows(want, i * T, T);
            bq_block_sample(&m.dev, &m.blk, m.blk.w, &m.work, x, x);
            assert_memory_equal(bq_mat_at(have, i * T, 0), x.data, (size_t)n * sizeof(float));
            assert_memory_equal(bq_stream_get(&on_disk, i, buffer).data, x.data, (size_t)n * sizeof(float));
        }
    }
    bq_through_close(&memory);
    bq_through_close(&disk);
    bq_stream_close(&on_disk);
    golden_rig_close(&m);
    golden_close(&g);
}

int main(void) {
    static const char *const models[] = {"model_llama_default", "model_mixtral",  "model_qwen2_moe",
                                         "model_qwen3_moe",     "model_glm4_moe", "model_gpt_oss",
                                         "model_deepseek_v3",   "model_olmo2"};
    enum { N = sizeof models / sizeof *models };
    struct CMUnitTest tests[N];
    for (int i = 0; i < N; i++)
        tests[i] = (struct CMUnitTest)cmocka_unit_test_prestate(same_bits, (void *)(uintptr_t)models[i]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
