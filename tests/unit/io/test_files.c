/* SPDX-License-Identifier: Apache-2.0 */
/* Which files are opened, what may be a run directory, and private folders. */
#include "refuse.h"

#include "base/log.h"
#include "io/files.h"
#include "io/folder.h"
#include "io/state/lock.h"
#include "io/rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

static const char secret[] = "somebody's file";
static char victim[512];

/* <temp>/<folder>/ with one name of each kind, all but "file" and "none" leading to the victim. */
static void make_kinds(const char *folder) {
    char dir[400];
    snprintf(dir, sizeof dir, "%s", temp_path(folder));
    snprintf(victim, sizeof victim, "%s/victim", dir);
    assert_int_equal(mkdir(dir, 0777), 0);
    text_save(victim, secret);
    assert_int_equal(chdir(dir), 0);
    text_save("file", "ours");
    assert_int_equal(symlink("victim", "link"), 0);
    assert_int_equal(symlink("absent", "dangling"), 0);
    assert_int_equal(link("victim", "names"), 0);
    assert_int_equal(mkfifo("fifo", 0666), 0);
    assert_int_equal(mkdir("folder", 0777), 0);
    assert_int_equal(symlink("folder", "away"), 0);
    struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "socket"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    close(fd);
    alarm(20); /* an open that waits would wait for ever */
}

static void assert_untouched(void) {
    size_t n;
    char *data = file_load(victim, &n);
    assert_int_equal(n, strlen(secret));
    assert_memory_equal(data, secret, n);
    free(data);
    assert_false(file_there("absent"));
    alarm(0);
}

static void only_our_files_are_opened(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int read, write;
    } kind[] = {
        {"file", 0, 0},
        {"none", ENOENT, ENOENT},
        {"link", BQ_FILE_LINK, BQ_FILE_LINK},
        {"dangling", BQ_FILE_LINK, BQ_FILE_LINK},
        {"away", BQ_FILE_LINK, BQ_FILE_LINK},
        {"names", 0, BQ_FILE_NAMES},
        {"fifo", BQ_NOT_FILE, BQ_NOT_FILE},
        {"socket", BQ_NOT_FILE, BQ_NOT_FILE},
        {"folder", EISDIR, EISDIR},
        {"/dev/null", BQ_NOT_FILE, BQ_NOT_FILE},
        {"file/x", ENOTDIR, ENOTDIR},
    };
    make_kinds("open");
    for (size_t i = 0; i < sizeof kind / sizeof *kind; i++) {
        const char *name = kind[i].name;
        int fd = -2, got = bq_file_open_own(name, O_RDONLY, &fd), want = kind[i].read;
        if (got != want) fail_msg("%s to read: %d, not %d", name, got, want);
        assert_true(got ? fd == -1 : close(fd) == 0);
        const int flags[] = {O_WRONLY, O_RDWR, O_WRONLY | O_APPEND, O_RDWR | O_TRUNC,
                             O_WRONLY | O_APPEND | O_CREAT | O_TRUNC};
        for (int f = 0; f < 5; f++) {
            if (got == ENOENT && f == 4) continue; /* would be made */
            int again = bq_file_open_own(name, flags[f], &fd);
            if (again != kind[i].write) fail_msg("%s, flags %d: %d, not %d", name, f, again, kind[i].write);
            assert_true(again ? fd == -1 : close(fd) == 0);
        }
    }
    assert_int_equal(bq_file_size("file"), 0); /* O_TRUNC, in the end */
    int fd;
    assert_int_equal(bq_file_open("link", O_RDONLY, &fd), 0); /* an input may be a link */
    assert_int_equal(close(fd), 0);
    assert_untouched();
    assert_non_null(strstr(bq_file_why(BQ_FILE_LINK), "link"));
    assert_non_null(strstr(bq_file_why(BQ_FILE_NAMES), "hard link"));
}

static void writers_touch_no_other_file(void **state) {
    (void)state;
    static const char *const name[] = {"link", "dangling", "names"};
    int fd;
    bq_lock lock;
    make_kinds("write");
    assert_int_equal(mkdir("ckpt", 0777), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_not_equal(bq_file_append(name[i], "x", 1), 0);
        assert_int_not_equal(bq_log_open(name[i]), 0);
        bq_log_errors_to(name[i]);
        fd = captured_fd(0);
        bq_log_all(BQ_ERROR, "an error");
        char said[200];
        captured_text(fd, said, sizeof said);
        bq_log_close();
        char there[64];
        snprintf(there, sizeof there, "../%s", name[i]);
        if (i < 2 ? symlink(there, "ckpt/lock") : link("names", "ckpt/lock")) fail_msg("no lock");
        fd = captured_fd(0);
        int code = bq_lock_take(&lock, ".");
        captured_text(fd, said, sizeof said);
        assert_int_equal(code, BQ_USAGE);
        assert_one_line(said, "ckpt/lock': a ");
        assert_int_equal(unlink("ckpt/lock"), 0);
    }
    assert_int_equal(bq_log_open("fifo"), BQ_NOT_FILE);
    assert_int_equal(bq_file_append("fifo", "x", 1), BQ_NOT_FILE);
    for (int i = 0; i < 3; i++) { /* replaced */
        assert_int_equal(bq_file_create(name[i], &fd), 0);
        assert_int_equal(bq_file_put(fd, "new", 3), 0);
        assert_int_equal(close(fd), 0);
        assert_int_equal(bq_file_size(name[i]), 3);
    }
    assert_int_equal(bq_file_create("folder", &fd), EEXIST);
    char temp[64]; /* our own temporary's name, taken by a link */
    snprintf(temp, sizeof temp, "small.%ld.tmp", (long)getpid());
    assert_int_equal(symlink("victim", temp), 0);
    assert_int_equal(bq_file_write_atomic("small", "abc", 3), 0);
    assert_int_equal(bq_file_size("small"), 3);
    assert_int_equal(symlink("victim", "small2"), 0); /* a link in the place of the file: replaced */
    assert_int_equal(bq_file_write_atomic("small2", "abcd", 4), 0);
    assert_int_equal(bq_path_own("small2", false, true), 0);
    assert_int_equal(bq_file_write_atomic("fifo", "abcd", 4), EEXIST);
    assert_untouched();
}

#define assert_usage(call, needle)                                                                           \
    do {                                                                                                     \
        char usage_text[4096];                                                                               \
        int usage_fd = captured_fd(0), usage_rc = (call);                                                    \
        captured_text(usage_fd, usage_text, sizeof usage_text);                                              \
        if (usage_rc != BQ_USAGE) fail_msg("%s: returned %d", #call, usage_rc);                              \
        assert_one_line(usage_text, needle);                                                                 \
    } while (0)

static void a_run_is_known_by_what_it_leaves(void **state) {
    (void)state;
    static const char *const runs[][3] = {{"ckpt/lock"},
                                          {"recipe.json", "ckpt/x"},
                                          {"recipe.json", "run.log"}},
                             *const others[] = {"recipe.json", "config.json", "run.log", "ckpt.json",
                                                ".hidden"};
    char dir[400], ckpt[420], path[440];
    snprintf(dir, sizeof dir, "%s", temp_path("place"));
    assert_int_equal(bq_rundir_place(dir), BQ_OK); /* not there */
    snprintf(ckpt, sizeof ckpt, "%s/ckpt", dir);
    assert_int_equal(bq_dir_make(ckpt), 0);
    snprintf(path, sizeof path, "%s/job.nodes", dir);
    text_save(path, "2");
    assert_int_equal(bq_rundir_place(dir), BQ_OK); /* killed at once */
    for (int i = 0; i < 5; i++) {
        char alone[400];
        snprintf(alone, sizeof alone, "%s%d", temp_path("other"), i);
        assert_int_equal(mkdir(alone, 0777), 0);
        snprintf(path, sizeof path, "%s/%s", alone, others[i]);
        text_save(path, "x");
        assert_usage(bq_rundir_place(alone), "neither empty nor a run directory");
    }
    for (int i = 0; i < 3; i++) {
        snprintf(dir, sizeof dir, "%s%d", temp_path("run"), i);
        snprintf(ckpt, sizeof ckpt, "%s/ckpt", dir);
        assert_int_equal(bq_dir_make(i < 2 ? ckpt : dir), 0);
        for (int k = 0; k < 3 && runs[i][k]; k++) {
            snprintf(path, sizeof path, "%s/%s", dir, runs[i][k]);
            text_save(path, "x");
        }
        snprintf(path, sizeof path, "%s/notes.txt", dir);
        text_save(path, "x");
        assert_int_equal(bq_rundir_place(dir), BQ_OK);
    }
}

static void a_run_holds_files_of_its_own(void **state) {
    (void)state;
    static const char *const kind[] = {"link", "dangling", "fifo", "folder", "names"},
                             *const name[] = {"run.log",     "run.csv",         "recipe.json",
                                              "result.json", "ckpt/state.json", "acts/fp_000.h5"};
    char to[64];
    make_kinds("check");
    assert_int_equal(bq_rundir_check("run", true), BQ_OK);
    assert_int_equal(bq_dir_make("run/ckpt"), 0);
    assert_int_equal(bq_dir_make("run/acts"), 0);
    assert_int_equal(symlink("../victim", "run/notes"), 0); /* nobody's business */
    assert_int_equal(bq_rundir_check("run", true), BQ_OK);
    for (int n = 0; n < 6; n++)
        for (int k = 0; k < 5; k++) {
            snprintf(to, sizeof to, "run/%s", name[n]);
            if (k < 4)
                assert_int_equal(rename(kind[k], to), 0);
            else
                assert_int_equal(link("names", to), 0);
            bool in_place = k < 4 || n < 2 || n == 5;
            if (in_place)
                assert_usage(bq_rundir_check("run", true), to);
            else
                assert_int_equal(bq_rundir_check("run", true), BQ_OK);
            if (k < 4)
                assert_usage(bq_rundir_check("run", false), to);
            else
                assert_int_equal(bq_rundir_check("run", false), BQ_OK);
            assert_int_equal(k < 4 ? rename(to, kind[k]) : unlink(to), 0);
        }
    assert_int_equal(rename("run/acts", "acts"), 0);
    assert_int_equal(symlink("../acts", "run/acts"), 0);
    assert_usage(bq_rundir_check("run", false), "run/acts': a link");
    assert_untouched();
}

static const char *const patterns[] = {"*.h5", "*.h5.*", NULL};

static void private_folders(void **state) {
    (void)state;
    bq_folder a = {0}, b = {0};
    struct stat st;
    char path[BQ_PATH + 32], letter[BQ_PATH + 32];
    bq_folder_remove(&a, patterns);
    assert_int_equal(bq_folder_make(&a, temp_path("scratch/deep"), "name"), 0);
    assert_int_equal(bq_folder_make(&b, temp_path("scratch/deep"), "name"), 0);
    assert_string_not_equal(a.path, b.path);
    assert_true(stat(a.path, &st) == 0 && (st.st_mode & 07777) == 0700 && st.st_uid == geteuid());
    text_save((snprintf(path, sizeof path, "%s/x.h5", a.path), path), "x");
    text_save((snprintf(letter, sizeof letter, "%s/letter", b.path), letter), "x");
    bq_folder_remove_left(temp_path("scratch/deep"), "name", patterns); /* both are held */
    assert_true(file_there(path) && file_there(letter));
    assert_int_equal(close(a.fd), 0); /* as a kill would */
    bq_folder_remove_left(temp_path("scratch/deep"), "nam", patterns);
    assert_true(file_there(path));
    bq_folder_remove_left(temp_path("scratch/deep"), "name", patterns);
    assert_false(file_there(a.path));
    snprintf(a.path, sizeof a.path, "%s", b.path);
    bq_folder_remove(&b, patterns); /* what is not ours stays, and its folder */
    assert_true(file_there(letter) && !b.path[0]);
    bq_folder_remove_left(temp_path("nowhere"), "name", patterns);
    text_save(temp_path("plain"), "x");
    assert_int_equal(bq_folder_make(&b, temp_path("plain"), "name"), ENOTDIR);
    assert_false(b.path[0]);
}

/* One process removes what was left while another makes folders: none of these is ever gone. */
static void makers_win_over_removers(void **state) {
    (void)state;
    char dir[400];
    snprintf(dir, sizeof dir, "%s", temp_path("race"));
    assert_int_equal(mkdir(dir, 0777), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) bq_folder_remove_left(dir, "name", patterns);
    }
    for (int i = 0; i < 1000; i++) {
        bq_folder f = {0};
        assert_int_equal(bq_folder_make(&f, dir, "name"), 0);
        for (int k = 0; k < 3; k++) assert_true(file_there(f.path));
        bq_folder_remove(&f, patterns);
    }
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* Folders of the right name that are links, or of another user, are not entered. */
static void folders_of_others(void **state) {
    (void)state;
    char host[65] = "", name[600];
    gethostname(host, sizeof host - 1);
    make_kinds("left");
    text_save("folder/x.h5", secret);
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "name-%s-AAAAA%d", host, i);
        assert_int_equal(i ? mkdir(name, 0777) : symlink("folder", name), 0);
    }
    if (geteuid() == 0) assert_int_equal(chown(name, 12345, 12345), 0);
    bq_folder_remove_left(".", "name", patterns);
    assert_true(file_there("folder/x.h5"));
    assert_int_equal(file_there(name), geteuid() == 0);
    assert_untouched();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_our_files_are_opened),
        cmocka_unit_test(writers_touch_no_other_file),
        cmocka_unit_test(a_run_is_known_by_what_it_leaves),
        cmocka_unit_test(a_run_holds_files_of_its_own),
        cmocka_unit_test(private_folders),
        cmocka_unit_test(makers_win_over_removers),
        cmocka_unit_test(folders_of_others),
    };
    return cmocka_run_group_tests(tests, temp_make, temp_remove);
}
