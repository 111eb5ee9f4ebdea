/* SPDX-License-Identifier: Apache-2.0 */
#include "base/die.h"
#include "io/state/midblock.h"
#include "unit/io/temp.h"

#include <dirent.h>
#include <math.h>
#include <signal.h>

static const uint64_t print = 0xabcdef0123456789u;

/* Three parts of odd shapes; every value says the salt, the part and the place. */
enum { PARTS = 3 };
static const int shape[PARTS][2] = {{5, 13}, {1, 1}, {7, 1}};

static float value(int salt, int part, int64_t at) { return (float)(salt * 1000 + part * 100) + (float)at; }

static bq_inside head_of(int pass, int steps) {
    bq_inside in = {.sweep = 1, .phase = 2, .pass = pass, .block = 7, .fingerprint = print};
    in.steps = steps, in.parts = PARTS, in.previous = steps % 2 ? NAN : 0.1 * steps;
    for (int p = 0; p < PARTS; p++) {
        snprintf(in.part[p].name, sizeof in.part[p].name, "part_%c", 'a' + p);
        in.part[p].rows = shape[p][0], in.part[p].cols = shape[p][1];
    }
    return in;
}

/* In the order that first says, with a ld of `more` beyond the columns. */
static void save(const char *path, const bq_inside *head, int salt, int first, int64_t more) {
    bq_inside in = *head;
    double *loss = malloc((size_t)in.steps * sizeof *loss);
    assert_non_null(loss);
    for (int64_t i = 0; i < in.steps; i++) loss[i] = salt + (double)i / 3;
    in.loss = loss;
    bq_inside_file *f = bq_inside_create(path, &in);
    for (int k = 0; k < PARTS; k++) {
        int p = (first + k) % PARTS;
        int64_t rows = shape[p][0], cols = shape[p][1];
        float room[128] = {0};
        bq_mat m = {room, rows, cols, cols + more, BQ_F32, BQ_HOST};
        for (int64_t i = 0; i < rows * cols; i++)
            *(float *)bq_mat_at(m, i / cols, i % cols) = value(salt, p, i);
        bq_inside_write(f, p, m);
    }
    bq_inside_commit(f);
    free(loss);
}

static const char *slot_path(int slot) {
    static char path[2][512];
    char dir[300];
    snprintf(dir, sizeof dir, "%s/ckpt", temp_dir);
    mkdir(dir, 0777);
    bq_inside_path(path[slot], sizeof path[slot], temp_dir, 7, slot);
    return path[slot];
}

static void save_slot(int slot, int pass, int steps) {
    bq_inside head = head_of(pass, steps);
    save(slot_path(slot), &head, pass * 10 + steps, 0, 0);
}

static void clear(void) { bq_inside_remove(temp_dir, 7); }

static void assert_holds(bq_inside_file *f, const bq_inside *head, int salt) {
    double *loss = calloc((size_t)head->steps, sizeof *loss);
    assert_true(loss && f);
    bq_inside_read_loss(f, loss);
    for (int64_t i = 0; i < head->steps; i++) assert_true(loss[i] == salt + (double)i / 3);
    for (int p = 0; p < PARTS; p++)
        for (int64_t first = 0; first < shape[p][0]; first += 2) { /* some rows, into a wider view */
            int64_t rows = shape[p][0] - first < 3 ? shape[p][0] - first : 3, cols = shape[p][1];
            float room[64];
            bq_mat m = {room, rows, cols, cols + 2, BQ_F32, BQ_HOST};
            bq_inside_read(f, p, first, m);
            for (int64_t i = 0; i < rows * cols; i++)
                assert_true(*(float *)bq_mat_at(m, i / cols, i % cols) == value(salt, p, first * cols + i));
        }
    free(loss);
}

/* What find says of the folder: slot, pass and steps; one line of the log for each file that does not count.
 */
static void expect(int slot, int pass, int steps, int lines, const char *needle) {
    char err[2048];
    bq_inside_file *f;
    bq_inside head = head_of(0, 0);
    int fd = captured_fd(0), got = bq_inside_find(&f, temp_dir, &head), said = 0;
    captured_text(fd, err, sizeof err);
    for (const char *c = err; *c; c++) said += *c == '\n';
    if (got != slot || said != lines || !strstr(err, needle))
        fail_msg("slot %d, not %d; %d lines, not %d with '%s': %s", got, slot, said, lines, needle, err);
    assert_true((f != NULL) == (slot >= 0));
    if (!f) return;
    assert_true(head.pass == pass && head.steps == steps && !head.loss);
    assert_true(steps % 2 ? isnan(head.previous) : head.previous == 0.1 * steps);
    assert_holds(f, &head, pass * 10 + steps);
    bq_inside_close(f);
}

static void names(void **state) {
    (void)state;
    char path[64];
    bq_inside_path(path, sizeof path, "run", 7, 0);
    assert_string_equal(path, "run/ckpt/inside_007.A.h5");
    bq_inside_path(path, sizeof path, "/a/b", 1234, 1);
    assert_string_equal(path, "/a/b/ckpt/inside_1234.B.h5");
}

static void the_further_one_counts(void **state) {
    (void)state;
    clear();
    expect(BQ_INSIDE_NONE, 0, 0, 0, "");
    save_slot(1, 0, 1);
    expect(1, 0, 1, 0, "");
    save_slot(0, 0, 30);
    expect(0, 0, 30, 0, "");
    save_slot(1, 0, 31);
    expect(1, 0, 31, 0, "");
    save_slot(0, 1, 4); /* a later pass counts more than many steps */
    expect(0, 1, 4, 0, "");
    save_slot(1, 1, 3);
    expect(0, 1, 4, 0, "");
    file_save(slot_path(0), "", 0);
    char temp[540];
    snprintf(temp, sizeof temp, "%s.4194999.tmp", slot_path(1));
    file_save(temp, "half", 4);
    clear();
    assert_false(file_there(slot_path(0)) || file_there(slot_path(1)) || file_there(temp));
    clear();
}

/* For people: what the further one says, as far as its head goes. */
static void a_glance(void **state) {
    (void)state;
    bq_inside in = {.block = 7, .fingerprint = print}, other = {.block = 7, .fingerprint = print + 1};
    clear();
    assert_false(bq_inside_glance(temp_dir, &in));
    save_slot(0, 1, 9);
    save_slot(1, 1, 4);
    assert_true(bq_inside_glance(temp_dir, &in));
    assert_true(in.sweep == 1 && in.phase == 2 && in.pass == 1 && in.steps == 9);
    assert_false(bq_inside_glance(temp_dir, &other));
    save_slot(1, 2, 1);
    assert_true(bq_inside_glance(temp_dir, &in));
    assert_true(in.pass == 2 && in.steps == 1);
    assert_int_equal(truncate(slot_path(1), 100), 0);
    assert_true(bq_inside_glance(temp_dir, &in));
    assert_true(in.pass == 1 && in.steps == 9);
    clear();
}

static void damage(void **state) {
    (void)state;
    size_t n;
    clear();
    save_slot(0, 0, 8);
    save_slot(1, 0, 9);
    char *data = file_load(slot_path(1), &n);
    for (size_t cut = 0; cut < n; cut += 997) {
        file_save(slot_path(1), data, cut);
        expect(0, 0, 8, 1, "block 8: state B of its training does not count: damaged or incomplete");
    }
    for (size_t i = 0; i < n; i += 499) {
        data[i] = (char)(data[i] ^ 16);
        file_save(slot_path(1), data, n);
        data[i] = (char)(data[i] ^ 16);
        expect(0, 0, 8, 1, "damaged or incomplete");
    }
    file_save(slot_path(0), data, 50);
    file_save(slot_path(1), data, 60);
    expect(BQ_INSIDE_NONE, 0, 0, 2, "damaged");
    file_save(slot_path(1), data, n);
    expect(1, 0, 9, 1, "state A");
    free(data);
    clear();
}

static void foreign(void **state) {
    (void)state;
    clear();
    save_slot(1, 0, 5);
    bq_inside head[6];
    for (int i = 0; i < 6; i++) head[i] = head_of(0, 9);
    head[0].fingerprint++, head[1].sweep++, head[2].phase--, head[3].block++;
    head[4].part[0].name[0] = 'x';
    static const char *const needles[] = {"its fingerprint is abcdef012345678a, not abcdef0123456789",
                                          "its sweep is 2, not 1", "its phase is 1, not 2",
                                          "its block is 8, not 7", "'part_a' is missing"};
    for (int i = 0; i < 5; i++) {
        save(slot_path(0), &head[i], 9, 0, 0);
        expect(1, 0, 5, 1, needles[i]);
    }
    save(slot_path(0), &head[5], 9, 0, 0); /* nothing wrong with it */
    expect(0, 0, 9, 0, "");
    bq_inside other = head[5];
    other.part[0].rows++; /* asked for another shape */
    char why[BQ_WHY];
    assert_null(bq_inside_open(slot_path(0), &other, why));
    assert_string_equal(why, "'part_a' is 5 x 13");
    clear();
}

/* Whole files by their seal, with contents that no program of ours wrote. */
typedef enum { LATER, OTHER, NO_STEPS, LOSSES, PREVIOUS, TYPE, PASS, GOOD } wrong;

static void make_wrong(wrong w) {
    bq_h5 h;
    bq_h5_create(&h, slot_path(0));
    bq_h5_put_head(&h, w == OTHER ? "blockq block" : "blockq inside", w == LATER ? 2 : 1, print);
    bq_h5_put_int(&h, "sweep", BQ_I32, 1);
    bq_h5_put_int(&h, "phase", BQ_I32, 2);
    bq_h5_put_int(&h, "pass", BQ_I32, w == PASS ? -1 : 0);
    bq_h5_put_int(&h, "block", BQ_I32, 7);
    bq_h5_put_int(&h, "steps", BQ_I64, w == NO_STEPS ? 0 : 2);
    bq_h5_put_data(&h, "loss", BQ_F64, 1, (int64_t[]){w == LOSSES ? 3 : 2});
    for (int p = 0; p < PARTS; p++)
        bq_h5_put_data(&h, (const char *[]){"part_a", "part_b", "part_c"}[p], w == TYPE ? BQ_F64 : BQ_F32, 2,
                       (int64_t[]){shape[p][0], shape[p][1]});
    bq_h5_put_data(&h, "previous", BQ_F64, 1, (int64_t[]){w == PREVIOUS ? 2 : 1});
    bq_h5_fix(&h);
    bq_h5_seal(&h, print);
    bq_h5_commit(&h);
}

static void hostile(void **state) {
    (void)state;
    static const char *const needles[] = {[LATER] = "its version is 2, not 1",
                                          [OTHER] = "its format is 'blockq block'",
                                          [NO_STEPS] = "'steps' is 0",
                                          [LOSSES] = "3 losses for 2 steps",
                                          [PREVIOUS] = "'previous' has 2 values",
                                          [TYPE] = "not of type F32",
                                          [PASS] = "'pass' is -1"};
    clear();
    for (wrong w = LATER; w < GOOD; w++) {
        make_wrong(w);
        expect(BQ_INSIDE_NONE, 0, 0, 1, needles[w]);
    }
    make_wrong(GOOD);
    bq_inside_file *f;
    bq_inside head = head_of(0, 0);
    assert_int_equal(bq_inside_find(&f, temp_dir, &head), 0);
    bq_inside_close(f);
    clear();
}

/* Another process, garbage in fresh memory, parts in another order, another ld, a stale temporary file. */
static void equal_bytes(void **state) {
    (void)state;
    char err[1024];
    bq_inside head = head_of(0, 5);
    assert_int_equal(child_run("write", temp_path("a.h5"), "MALLOC_PERTURB_=85", err, sizeof err), 0);
    sleep(1);
    file_save(temp_path("b.h5.4194999.tmp"), "stale", 5);
    assert_int_equal(child_run("write", temp_path("b.h5"), "MALLOC_PERTURB_=170", err, sizeof err), 0);
    assert_same_file(temp_path("a.h5"), temp_path("b.h5"));
    assert_false(file_there(temp_path("b.h5.4194999.tmp")));
    save(temp_path("c.h5"), &head, 5, 2, 3);
    assert_same_file(temp_path("a.h5"), temp_path("c.h5"));
}

static int files(void) {
    char dir[300];
    int n = 0;
    snprintf(dir, sizeof dir, "%s/ckpt", temp_dir);
    DIR *list = opendir(dir);
    assert_non_null(list);
    for (struct dirent *e; (e = readdir(list));) n += e->d_name[0] != '.';
    closedir(list);
    return n;
}

/* A failed call: exit 1, one line, the other file still counts, nothing beside it. */
static void failed_calls(void **state) {
    (void)state;
    static const char *const faults[] = {"BQ_FAULT=inside_write", "BQ_FAULT=file_rename"},
                             *const needles[] = {"write of '", "rename of '"};
    char err[1024];
    for (int i = 0; i < 2; i++) {
        clear();
        save_slot(1, 0, 6);
        assert_int_equal(child_run("write", slot_path(0), faults[i], err, sizeof err), BQ_DIED);
        assert_one_line(err, needles[i]);
        assert_false(file_there(slot_path(0)));
        assert_int_equal(files(), 1);
        expect(1, 0, 6, 0, "");
    }
    assert_int_equal(child_run("lacks", slot_path(0), NULL, err, sizeof err), BQ_DIED);
    assert_one_line(err, "2 of 3 parts");
    assert_int_equal(files(), 2); /* a bug leaves its temporary file; */
    clear();
    assert_int_equal(files(), 0); /* with the block's end it goes, too */
}

/* Killed at any moment of writing in turn, the folder has a whole state, and no older than before. */
static void killed(void **state) {
    (void)state;
    clear();
    save_slot(0, 0, 2);
    for (int n = 0, least = 2; n < 20; n++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            execl("/proc/self/exe", "test", "turns", temp_dir, (char *)NULL);
            _exit(126);
        }
        usleep((useconds_t)(20000 + 1111 * n));
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        bq_inside_file *f;
        bq_inside head = head_of(0, 0);
        assert_true(bq_inside_find(&f, temp_dir, &head) >= 0);
        assert_true(head.steps >= least);
        least = (int)head.steps;
        assert_holds(f, &head, least);
        bq_inside_close(f);
    }
    clear();
}

static int child(const char *what, const char *path) {
    bq_inside head = head_of(0, 5);
    if (strcmp(what, "write") == 0) save(path, &head, 5, 0, 0);
    if (strcmp(what, "lacks") == 0) {
        float room[65] = {0};
        double loss[5] = {0};
        head.loss = loss;
        bq_inside_file *f = bq_inside_create(path, &head);
        for (int p = 0; p < 2; p++)
            bq_inside_write(f, p, bq_mat_host(room, shape[p][0], shape[p][1], BQ_F32));
        bq_inside_commit(f);
    }
    while (strcmp(what, "turns") == 0) {
        bq_inside_file *f;
        snprintf(temp_dir, sizeof temp_dir, "%s", path);
        int slot = bq_inside_find(&f, path, &head);
        bq_inside_close(f);
        save_slot((slot + 1) % BQ_INSIDE_SLOTS, 0, (int)head.steps + 1);
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3) return child(argv[1], argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),       cmocka_unit_test(the_further_one_counts),
        cmocka_unit_test(a_glance),    cmocka_unit_test(damage),
        cmocka_unit_test(foreign),     cmocka_unit_test(hostile),
        cmocka_unit_test(equal_bytes), cmocka_unit_test(failed_calls),
        cmocka_unit_test(killed),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
