/* SPDX-License-Identifier: Apache-2.0 */
/* The peak is this program's: what it has touched and given back, and not what ran before exec. */
#include "base/clock.h"

#include "child.h"

#include <sys/mman.h>

enum { BYTES = 200 << 20 };
static const char *self;

static void touch(void) {
    char *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) abort();
    for (size_t i = 0; i < BYTES; i += 4096) p[i] = 1;
    munmap(p, BYTES);
}

static int touched_here(void) {
    size_t before = bq_peak_rss();
    touch();
    return before > 0 && bq_peak_rss() >= BYTES ? 0 : 1;
}

static int touched_before_exec(void) {
    touch();
    execl(self, self, "say", NULL);
    return 2;
}

static void peak(void **state) {
    (void)state;
    assert_int_equal(in_child(touched_here).code, 0);
    assert_int_equal(in_child(touched_before_exec).code, 0);
}

int main(int argc, char **argv) {
    self = argv[0];
    if (argc > 1) return bq_peak_rss() >= BYTES;
    const struct CMUnitTest tests[] = {cmocka_unit_test(peak)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
