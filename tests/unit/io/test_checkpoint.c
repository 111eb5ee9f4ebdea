/* SPDX-License-Identifier: Apache-2.0 */
#include "base/die.h"
#include "unit/io/ckpt.h"

#include <signal.h>

/* Three weights: per channel, in groups with a short last one and zero points, and one that is not quantized.
 * In a folded block the first and the last have a bias; in the others the second has factors of its inputs.
 */
typedef struct {
    float fold[3][5][16];
    int8_t code[2][5][16];
    float scale[2][5][4], zero[5][4], bias[3][5], norm[2][11], pre[16];
    double loss[3];
    bq_ckpt c;
} example;

static void fill(example *e, int salt) {
    for (int l = 0; l < 3; l++)
        for (int r = 0; r < 5; r++)
            for (int c = 0; c < 16; c++) {
                e->fold[l][r][c] = (float)(salt + l * 1000 + r * 100 + c) / 7;
                if (l < 2) e->code[l][r][c] = (int8_t)((salt + l + r + c) % 16 - 8);
                if (l < 2 && c < 4) e->scale[l][r][c] = (float)(salt + 1 + l + r + c) / 128;
                if (c < 4) e->zero[r][c] = (float)((salt + 3 * r + c) % 16 - 8);
                e->bias[l][r] = (float)(salt + l - r) / 9;
            }
    for (int i = 0; i < 22; i++) e->norm[i / 11][i % 11] = (float)(salt - i) / 3;
    for (int i = 0; i < 16; i++) e->pre[i] = (float)(salt + i) / 5;
    for (int i = 0; i < 3; i++) e->loss[i] = salt + i / 3.0;
}

static bq_ckpt_linear weight(example *e, int l, const char *name, int rows, int cols, int groups,
                             bq_scheme scheme) {
    bq_ckpt_linear w = {.scheme = scheme, .fold = {e->fold[l], rows, cols, 16, BQ_F32, BQ_HOST}};
    snprintf(w.name, sizeof w.name, "%s", name);
    if (l < 2) w.code = (bq_mat){e->code[l], rows, cols, 16, BQ_I8, BQ_HOST};
    if (l < 2) w.scale = (bq_mat){e->scale[l], rows, groups, 4, BQ_F32, BQ_HOST};
    return w;
}

/* Even salts are of folded blocks. */
static const bq_ckpt *build(example *e, int salt) {
    *e = (example){.c = {.sweep = 1, .phase = 2, .block = 7, .fingerprint = print, .linears = 3, .steps = 3}};
    fill(e, salt);
    e->c.loss = e->loss;
    e->c.linear[0] =
        weight(e, 0, "self_attn.q_proj", 5, 13, 1, (bq_scheme){4, -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0});
    e->c.linear[1] =
        weight(e, 1, "mlp.gate/up", 3, 10, 3, (bq_scheme){8, 4, false, BQ_BF16, BQ_GRID_AIMET, 1, 0});
    e->c.linear[1].zero = (bq_mat){e->zero, 3, 3, 4, BQ_F32, BQ_HOST};
    e->c.linear[2] = weight(e, 2, "norm", 1, 16, 0, (bq_scheme){16, -1, true, BQ_F16, BQ_GRID_AIMET, 1, 0});
    if (salt % 2) {
        e->c.linear[1].pre = bq_mat_host(e->pre, 1, 10, BQ_F32);
        return &e->c;
    }
    for (int i = 0; i < 2; i++) e->c.norm[i] = bq_mat_host(e->norm[i], 1, 11, BQ_F32);
    e->c.linear[0].bias = bq_mat_host(e->bias[0], 1, 5, BQ_F32);
    e->c.linear[2].bias = bq_mat_host(e->bias[2], 1, 1, BQ_F32);
    return &e->c;
}

static void assert_same_part(bq_ckpt_file *f, int linear, bq_ckpt_part part, bq_mat shape, bq_mat expected) {
    char room[4096];
    assert_null(shape.data);
    assert_int_equal(shape.rows, expected.rows);
    assert_int_equal(shape.type, expected.rows ? expected.type : shape.type);
    if (!expected.rows) return;
    assert_int_equal(shape.cols, expected.cols);
    bq_mat got = {room, expected.rows, expected.cols, expected.cols + 3, expected.type, BQ_HOST};
    memset(room, 77, sizeof room);
    bq_ckpt_read(f, linear, part, got);
    size_t bytes = (size_t)expected.cols * bq_type_size(expected.type);
    for (int64_t r = 0; r < expected.rows; r++) {
        assert_memory_equal(bq_mat_at(got, r, 0), bq_mat_at(expected, r, 0), bytes);
        assert_int_equal(*(char *)bq_mat_at(got, r, got.cols), 77);
    }
    bq_mat last = bq_mat_host(room, 1, expected.cols, expected.type);
    bq_ckpt_read_rows(f, linear, part, expected.rows - 1, last);
    assert_memory_equal(room, bq_mat_at(expected, expected.rows - 1, 0), bytes);
}

static void assert_holds(const char *path, int salt) {
    example e;
    const bq_ckpt *c = build(&e, salt);
    bq_ckpt head;
    bq_ckpt_file *f;
    char why[BQ_WHY];
    double loss[3];
    if (bq_ckpt_open(&f, path, print, &head, why)) fail_msg("%s: %s", path, why);
    assert_int_equal(head.sweep * 100 + head.phase * 10 + head.block, 127);
    assert_true(head.fingerprint == print);
    assert_int_equal(head.linears, 3);
    assert_int_equal(head.steps, 3);
    assert_null(head.loss);
    bq_ckpt_read_loss(f, loss);
    assert_memory_equal(loss, e.loss, sizeof loss);
    for (int l = 0; l < 3; l++) {
        assert_string_equal(head.linear[l].name, c->linear[l].name);
        assert_true(bq_scheme_equal(head.linear[l].scheme, c->linear[l].scheme));
        assert_same_part(f, l, BQ_CKPT_FOLD, head.linear[l].fold, c->linear[l].fold);
        assert_same_part(f, l, BQ_CKPT_CODE, head.linear[l].code, c->linear[l].code);
        assert_same_part(f, l, BQ_CKPT_SCALE, head.linear[l].scale, c->linear[l].scale);
        assert_same_part(f, l, BQ_CKPT_ZERO, head.linear[l].zero, c->linear[l].zero);
        assert_same_part(f, l, BQ_CKPT_BIAS, head.linear[l].bias, c->linear[l].bias);
        assert_same_part(f, l, BQ_CKPT_PRE, head.linear[l].pre, c->linear[l].pre);
    }
    assert_int_equal(bq_ckpt_folded(&head), salt % 2 == 0);
    for (int i = 0; i < 2 && salt % 2 == 0; i++) {
        float norm[11];
        assert_true(head.norm[i].rows == 1 && head.norm[i].cols == 11 && !head.norm[i].data);
        bq_ckpt_read_norm(f, i, bq_mat_host(norm, 1, 11, BQ_F32));
        assert_memory_equal(norm, e.norm[i], sizeof norm);
    }
    bq_ckpt_close(f);
    assert_int_equal(bq_ckpt_peek(path, print), BQ_CKPT_OK);
}

static void names(void **state) {
    (void)state;
    char path[64];
    bq_ckpt_path(path, sizeof path, "run", 0, 1, 7);
    assert_string_equal(path, "run/ckpt/block_007.p1.s0.h5");
    bq_ckpt_path(path, sizeof path, "/a/b", 12, 3, 1234);
    assert_string_equal(path, "/a/b/ckpt/block_1234.p3.s12.h5");
}

static void round_trip(void **state) {
    (void)state;
    example e;
    const char *path = temp_path("r.h5");
    bq_ckpt_write(path, build(&e, 5));
    assert_holds(path, 5);
    bq_ckpt_write(path, build(&e, 6)); /* in place of the old one */
    assert_holds(path, 6);
    assert_false(file_there(temp_path("r.h5.tmp")));
    expect(path, print + 1, BQ_CKPT_FOREIGN, "fingerprint is abcdef0123456789, not abcdef012345678a");
    assert_int_equal(bq_ckpt_peek(path, print + 1), BQ_CKPT_FOREIGN);
    expect(temp_path("none.h5"), print, BQ_CKPT_ABSENT, "No such file");
    assert_int_equal(bq_ckpt_peek(temp_path("none.h5"), print), BQ_CKPT_ABSENT);
}

static void empty_and_full(void **state) {
    (void)state;
    example e;
    bq_ckpt *c = (bq_ckpt *)(uintptr_t)build(&e, 1), head;
    bq_ckpt_file *f;
    for (int linears = 0; linears <= BQ_MAX_LINEAR; linears += BQ_MAX_LINEAR) {
        for (int l = 0; l < linears; l++) c->linear[l] = c->linear[l % 3];
        c->linears = linears, c->steps = 0, c->loss = NULL;
        bq_ckpt_write(temp_path("n.h5"), c);
        assert_int_equal(bq_ckpt_open(&f, temp_path("n.h5"), print, &head, NULL), BQ_CKPT_OK);
        assert_int_equal(head.linears, linears);
        assert_int_equal(head.steps, 0);
        bq_ckpt_read_loss(f, NULL);
        bq_ckpt_close(f);
    }
}

/* Codes of all elements come back, with odd numbers of columns and without the weights before rounding.  The
 * file has so many bytes. */
static void packed(void **state) {
    (void)state;
    enum { ROWS = 300, COLS = 1021 };
    static const int element[] = {2, 3, 4, 5, 6, 7, 8, BQ_E2M1, BQ_E2M3, BQ_E3M2, BQ_E4M3, BQ_E5M2};
    static int8_t code[ROWS * COLS], back[ROWS * COLS];
    static float scale[ROWS];
    bq_ckpt c = {.fingerprint = print, .linears = 1}, head;
    bq_ckpt_file *f;
    for (size_t k = 0; k < sizeof element / sizeof *element; k++) {
        const int bits = bq_element_of(element[k]).bits, above = 8 - bits;
        for (int i = 0; i < ROWS * COLS; i++) {
            uint8_t high = (uint8_t)((uint32_t)i * 2654435761u >> 24 << above);
            code[i] = (int8_t)(bq_element_whole(element[k]) ? (int8_t)high >> above : high >> above);
        }
        c.linear[0] = (bq_ckpt_linear){.name = "q",
                                       .scheme = {element[k], -1, true, BQ_F32, BQ_GRID_AIMET, 1, 0},
                                       .code = bq_mat_host(code, ROWS, COLS, BQ_I8),
                                       .scale = bq_mat_host(scale, ROWS, 1, BQ_F32)};
        bq_ckpt_write(temp_path("p.h5"), &c);
        assert_int_equal(bq_ckpt_open(&f, temp_path("p.h5"), print, &head, NULL), BQ_CKPT_OK);
        assert_int_equal(head.linear[0].fold.rows, 0);
        bq_ckpt_read(f, 0, BQ_CKPT_CODE, bq_mat_host(back, ROWS, COLS, BQ_I8));
        assert_memory_equal(back, code, sizeof code);
        bq_ckpt_read_rows(f, 0, BQ_CKPT_CODE, 7, bq_mat_host(back, ROWS - 9, COLS, BQ_I8));
        assert_memory_equal(back, code + 7 * COLS, (ROWS - 9) * COLS);
        bq_ckpt_close(f);
        struct stat st;
        assert_int_equal(stat(temp_path("p.h5"), &st), 0);
        const int64_t least = ROWS * ((COLS * bits + 7) / 8);
        assert_in_range(st.st_size, least, least + 4 * ROWS + 8192);
    }
}

/* Another process, garbage in fresh memory, another ld, a stale temporary file: the same bytes. */
static void equal_bytes(void **state) {
    (void)state;
    char err[1024];
    example e;
    assert_int_equal(child_run("write", temp_path("a.h5"), "MALLOC_PERTURB_=85", err, sizeof err), 0);
    sleep(1);
    file_save(temp_path("b.h5.999999999.tmp"), "stale", 5);
    assert_int_equal(child_run("write", temp_path("b.h5"), "MALLOC_PERTURB_=170", err, sizeof err), 0);
    assert_false(temporary_there(temp_path("b.h5")));
    assert_same_file(temp_path("a.h5"), temp_path("b.h5"));
    bq_ckpt *c = (bq_ckpt *)(uintptr_t)build(&e, 5);
    float packed[5][13];
    for (int r = 0; r < 5; r++) memcpy(packed[r], e.fold[0][r], sizeof packed[r]);
    c->linear[0].fold = bq_mat_host(packed, 5, 13, BQ_F32);
    bq_ckpt_write(temp_path("c.h5"), c);
    assert_same_file(temp_path("a.h5"), temp_path("c.h5"));
}

static void damage(void **state) {
    (void)state;
    example e;
    size_t n;
    const char *path = temp_path("d.h5"), *bad = temp_path("bad.h5");
    bq_ckpt_write(path, build(&e, 5));
    char *data = file_load(path, &n);
    for (size_t cut = 0; cut < n; cut += 256) {
        file_save(bad, data, cut);
        expect(bad, print, BQ_CKPT_TORN, "seal");
        assert_int_equal(bq_ckpt_peek(bad, print), BQ_CKPT_TORN);
    }
    for (size_t i = 0; i < n; i += 53) {
        data[i] = (char)(data[i] ^ 1);
        file_save(bad, data, n);
        data[i] = (char)(data[i] ^ 1);
        expect(bad, print, BQ_CKPT_TORN, "seal");
    }
    free(data);
}

/* A failed call: exit 1, one line, the old file as it was, nothing beside it. */
static void failed_calls(void **state) {
    (void)state;
    static const struct {
        const char *fault, *needle;
    } cases[] = {{"BQ_FAULT=ckpt_write", "write of '"},
                 {"BQ_FAULT=ckpt_rename", "rename of '"},
                 {"BQ_FAULT=file_rename", "rename of '"}};
    const char *path = temp_path("old.h5");
    char err[1024];
    example e;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unlink(path);
        assert_int_equal(child_run("write", path, cases[i].fault, err, sizeof err), BQ_DIED);
        assert_one_line(err, cases[i].needle);
        expect(path, print, BQ_CKPT_ABSENT, "");
        bq_ckpt_write(path, build(&e, 9));
        assert_int_equal(child_run("write", path, cases[i].fault, err, sizeof err), BQ_DIED);
        assert_holds(path, 9);
        assert_false(file_there(temp_path("old.h5.tmp")));
    }
}

static void killed(void **state) {
    (void)state;
    const char *path = temp_path("killed.h5");
    example e;
    bq_ckpt_write(path, build(&e, 9));
    for (int n = 0; n < 25; n++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            execl("/proc/self/exe", "test", "loop", path, (char *)NULL);
            _exit(126);
        }
        while (n == 0 && !temporary_there(path)) usleep(100);
        usleep((useconds_t)(20000 + 1111 * n));
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        bq_ckpt head;
        bq_ckpt_file *f;
        double loss[3];
        assert_int_equal(bq_ckpt_open(&f, path, print, &head, NULL), BQ_CKPT_OK);
        bq_ckpt_read_loss(f, loss); /* all of one generation */
        bq_ckpt_close(f);
        assert_holds(path, (int)loss[0]);
    }
}

static void full_disk(void **state) {
    (void)state;
    char err[1024], path[600];
    const char *disk = temp_path("disk");
    if (!small_disk(disk, "size=72k")) skip();
    snprintf(path, sizeof path, "%s/x.h5", disk);
    int first = child_run("write", path, NULL, err, sizeof err);
    int rc = child_run("large", path, NULL, err, sizeof err);
    bool left = temporary_there(path);
    bq_ckpt head;
    bq_ckpt_file *f;
    int old = bq_ckpt_open(&f, path, print, &head, NULL);
    bq_ckpt_close(f);
    umount(disk);
    assert_int_equal(first, 0);
    assert_int_equal(rc, BQ_DIED);
    assert_one_line(err, "x.h5' failed: No space left on device");
    assert_false(left);
    assert_int_equal(old, BQ_CKPT_OK);
}

static void bugs_die(void **state) {
    (void)state;
    char err[1024];
    assert_int_equal(child_run("bad", temp_path("x.h5"), NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "linear 1 has codes of another shape");
    assert_false(file_there(temp_path("x.h5")));
    assert_int_equal(child_run("rows", temp_path("x.h5"), NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "rows 4 + 2 of code of linear 0");
    assert_int_equal(child_run("norm", temp_path("x.h5"), NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "norm 1 of '");
    assert_int_equal(child_run("half", temp_path("y.h5"), NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "the block has norms of unlike shapes");
    assert_false(file_there(temp_path("y.h5")));
}

static int child(const char *what, const char *path) {
    static example e;
    static float large[1 << 16];
    bq_ckpt *c = (bq_ckpt *)(uintptr_t)build(&e, 5), head;
    bq_ckpt_file *f;
    if (strcmp(what, "bad") == 0) c->linear[1].code.cols--;
    if (strcmp(what, "large") == 0) c->linear[2].fold = bq_mat_host(large, 1, 1 << 16, BQ_F32);
    if (strcmp(what, "half") == 0) c->norm[0] = bq_mat_host(e.norm, 1, 11, BQ_F32);
    bq_ckpt_write(path, c);
    for (int salt = 0; strcmp(what, "loop") == 0; salt++) bq_ckpt_write(path, build(&e, salt % 50));
    if (strcmp(what, "rows") == 0) {
        bq_ckpt_open(&f, path, print, &head, NULL);
        bq_ckpt_read_rows(f, 0, BQ_CKPT_CODE, 4, bq_mat_host(large, 2, 13, BQ_I8));
    }
    if (strcmp(what, "norm") == 0) { /* of a block that was not folded */
        bq_ckpt_open(&f, path, print, &head, NULL);
        bq_ckpt_read_norm(f, 1, bq_mat_host(large, 1, 11, BQ_F32));
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3) return child(argv[1], argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),    cmocka_unit_test(round_trip),  cmocka_unit_test(empty_and_full),
        cmocka_unit_test(damage),   cmocka_unit_test(equal_bytes), cmocka_unit_test(killed),
        cmocka_unit_test(packed),   cmocka_unit_test(full_disk),   cmocka_unit_test(failed_calls),
        cmocka_unit_test(bugs_die),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
