/* SPDX-License-Identifier: Apache-2.0 */
#include "base/die.h"
#include "io/files.h"
#include "io/state/h5_strict.h"
#include "io/state/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void bq_h5_library(char text[16]) {
    unsigned major, minor, release;
    H5get_libversion(&major, &minor, &release);
    snprintf(text, 16, "%u.%u.%u", major % 100, minor % 100, release % 1000);
}

_Static_assert(sizeof(hid_t) == sizeof(int64_t), "handles are kept as int64_t");

enum { MAX_RANK = 3 };

void bq_h5_init(void) {
    static bool ready;
    if (ready) return;
    ready = true;
    setenv("HDF5_USE_FILE_LOCKING", "FALSE", 0);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

static hid_t file_type(bq_type type) {
    switch (type) {
    case BQ_F32: return H5T_IEEE_F32LE;
    case BQ_F64: return H5T_IEEE_F64LE;
    case BQ_I8: return H5T_STD_I8LE;
    case BQ_U8: return H5T_STD_U8LE;
    case BQ_I32: return H5T_STD_I32LE;
    case BQ_I64: return H5T_STD_I64LE;
    default: BQ_DIE("type %s has no place in our HDF5 files", bq_type_name(type));
    }
}

static _Noreturn void give_up(bq_h5 *h, const char *what, const char *reason) {
    if (h->temp) unlink(h->temp);
    BQ_DIE("%s of '%s' failed: %s", what, h->path, reason);
}

_Noreturn void bq_h5_fail(bq_h5 *h, const char *what) { give_up(h, what, strerror(errno)); }

/* The first entry of the error stack is the deepest: if a system call failed, it has that message. */
static herr_t deepest(unsigned n, const H5E_error2_t *error, void *text) {
    if (n == 0 && error->desc) {
        const char *from = strstr(error->desc, "error message = '");
        snprintf(text, BQ_WHY, "%s", from ? from + 17 : error->desc);
        char *end = from ? strchr(text, '\'') : NULL;
        if (end) *end = 0;
    }
    return 0;
}

const char *bq_h5_reason(char text[BQ_WHY]) {
    snprintf(text, BQ_WHY, "unknown HDF5 error");
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, deepest, text);
    return text;
}

/* Check a call of the HDF5 library while making a file: a negative result ends the job. */
static int64_t must(bq_h5 *h, int64_t result) {
    char text[BQ_WHY];
    if (result < 0) give_up(h, "write", bq_h5_reason(text));
    return result;
}

void bq_h5_create(bq_h5 *h, const char *path) {
    bq_h5_init();
    char temp[BQ_PATH + 32];
    bq_temp_name(temp, sizeof temp, path);
    *h = (bq_h5){.fd = -1, .path = bq_text_copy(path), .temp = bq_text_copy(temp)};
    if (bq_fault("h5_create")) errno = ENOSPC, bq_h5_fail(h, "write");
    /* The oldest structures, whatever the library's default is: our reader and every HDF5 know them. */
    hid_t plist = must(h, H5Pcreate(H5P_FILE_ACCESS));
    must(h, H5Pset_libver_bounds(plist, H5F_LIBVER_EARLIEST, H5F_LIBVER_LATEST));
    h->file = must(h, H5Fcreate(h->temp, H5F_ACC_EXCL, H5P_DEFAULT, plist));
    must(h, H5Pclose(plist));
    bq_h5_put_group(h, NULL);
}

void bq_h5_put_group(bq_h5 *h, const char *name) {
    if (h->at) must(h, H5Gclose(h->at));
    hid_t plist = must(h, H5Pcreate(H5P_GROUP_CREATE));
    must(h, H5Pset_obj_track_times(plist, 0));
    h->at = must(h, name ? H5Gcreate2(h->file, name, H5P_DEFAULT, plist, H5P_DEFAULT)
                         : H5Gopen2(h->file, "/", H5P_DEFAULT));
    must(h, H5Pclose(plist));
}

static void put_attribute(bq_h5 *h, const char *name, hid_t type, hid_t memory, const void *value) {
    hid_t space = must(h, H5Screate(H5S_SCALAR));
    hid_t attr = must(h, H5Acreate2(h->at, name, type, space, H5P_DEFAULT, H5P_DEFAULT));
    must(h, H5Awrite(attr, memory, value));
    must(h, H5Aclose(attr));
    must(h, H5Sclose(space));
}

void bq_h5_put_int(bq_h5 *h, const char *name, bq_type type, int64_t value) {
    BQ_CHECK(type == BQ_I64 || (type == BQ_I32 && value == (int32_t)value),
             "attribute %s = %" PRId64 " as %s", name, value, bq_type_name(type));
    put_attribute(h, name, file_type(type), H5T_NATIVE_INT64, &value);
}

void bq_h5_put_text(bq_h5 *h, const char *name, const char *text) {
    hid_t type = must(h, H5Tcopy(H5T_C_S1));
    must(h, H5Tset_size(type, strlen(text) + 1));
    put_attribute(h, name, type, type, text);
    must(h, H5Tclose(type));
}

void bq_h5_put_head(bq_h5 *h, const char *format, int version, uint64_t fingerprint) {
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, fingerprint);
    bq_h5_put_text(h, "format", format);
    bq_h5_put_int(h, "version", BQ_I32, version);
    bq_h5_put_text(h, "fingerprint", text);
}

int64_t bq_h5_put_data(bq_h5 *h, const char *name, bq_type type, int rank, const int64_t *shape) {
    int64_t bytes;
    hsize_t dims[MAX_RANK];
    BQ_CHECK(rank >= 1 && rank <= MAX_RANK && bq_h5_shape_bytes(type, rank, shape, &bytes),
             "dataset %s of '%s' has an impossible shape", name, h->path);
    for (int i = 0; i < rank; i++) dims[i] = (hsize_t)shape[i];
    hid_t space = must(h, H5Screate_simple(rank, dims, NULL));
    hid_t plist = must(h, H5Pcreate(H5P_DATASET_CREATE));
    must(h, H5Pset_obj_track_times(plist, 0));
    must(h, H5Pset_layout(plist, H5D_CONTIGUOUS));
    must(h, H5Pset_alloc_time(plist, H5D_ALLOC_TIME_EARLY));
    must(h, H5Pset_fill_time(plist, H5D_FILL_TIME_NEVER));
    hid_t data = must(h, H5Dcreate2(h->at, name, file_type(type), space, H5P_DEFAULT, plist, H5P_DEFAULT));
    haddr_t offset = H5Dget_offset(data);
    BQ_CHECK(offset != HADDR_UNDEF, "HDF5 reserved no space for %s of '%s'", name, h->path);
    must(h, H5Dclose(data));
    must(h, H5Pclose(plist));
    must(h, H5Sclose(space));
    return (int64_t)offset;
}

void bq_h5_fix(bq_h5 *h) {
    struct stat st;
    must(h, H5Gclose(h->at));
    must(h, H5Fclose(h->file));
    h->at = h->file = 0;
    if ((errno = bq_file_open_own(h->temp, O_RDWR, &h->fd)) || fstat(h->fd, &st)) bq_h5_fail(h, "open");
    h->size = st.st_size;
    if (!bq_raw_reserve(h->fd, h->size)) bq_h5_fail(h, "write");
}

bool bq_h5_move(const bq_h5 *h, int64_t offset, bq_mat m) {
    size_t row = (size_t)m.cols * bq_type_size(m.type);
    int64_t runs = m.ld == m.cols ? 1 : m.rows; /* a packed matrix is one long row */
    if (runs == 1) row *= (size_t)m.rows;
    BQ_CHECK(m.place != BQ_DEVICE && offset >= 0 && offset + runs * (int64_t)row <= h->size,
             "data of %s x %" PRId64 " columns do not fit at %" PRId64 " of '%s'", bq_type_name(m.type),
             m.cols, offset, h->path);
    for (int64_t r = 0; r < runs; r++)
        if (!bq_raw_write(h->fd, bq_mat_at(m, r, 0), row, offset + r * (int64_t)row)) return false;
    return true;
}

void bq_h5_write(bq_h5 *h, int64_t offset, bq_mat m) {
    if (!bq_h5_move(h, offset, m)) bq_h5_fail(h, "write");
}

void bq_h5_seal(bq_h5 *h, uint64_t tag) {
    if (!bq_seal_append(h->fd, h->size, tag)) bq_h5_fail(h, "write");
}

const char *bq_h5_publish(bq_h5 *h) {
    if ((errno = bq_fault("h5_sync") ? EIO : bq_raw_sync(h->fd))) return "write";
    int failed = close(h->fd);
    h->fd = -1;
    if (failed) return "write";
    if ((errno = bq_file_rename(h->temp, h->path))) return "rename";
    free(h->temp);
    h->temp = NULL;
    return NULL;
}

void bq_h5_commit(bq_h5 *h) {
    const char *failed = bq_h5_publish(h);
    if (failed) bq_h5_fail(h, failed);
    bq_h5_close(h);
}

void bq_h5_close(bq_h5 *h) {
    if (!h->path) return;
    if (h->at > 0) H5Gclose(h->at);
    if (h->file > 0) H5Fclose(h->file);
    h->at = h->file = 0;
    bq_h5_detach(h);
    if (h->fd >= 0) close(h->fd);
    if (h->temp) unlink(h->temp);
    free(h->temp);
    free(h->path);
    h->temp = h->path = NULL;
    h->fd = -1;
}
