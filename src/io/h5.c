#include "io/h5.h"

#include "base/die.h"
#include "io/files.h"
#include "io/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(sizeof(hid_t) == sizeof(int64_t), "handles are kept as int64_t");

enum { MAX_TEXT = 255, MAX_RANK = 3 };

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

/* Bytes of a shape; false when a size is not positive or the product too large for a file. */
static bool shape_bytes(bq_type type, int rank, const int64_t *shape, int64_t *bytes) {
    *bytes = (int64_t)bq_type_size(type);
    for (int i = 0; i < rank; i++)
        if (shape[i] <= 0 || __builtin_mul_overflow(*bytes, shape[i], bytes)) return false;
    return true;
}

/* -- making ---------------------------------------------------------------------------------------------- */

static _Noreturn void give_up(bq_h5 *h, const char *what, const char *reason) {
    if (h->temp) unlink(h->temp);
    BQ_DIE("%s of '%s' failed: %s", what, h->path, reason);
}

_Noreturn void bq_h5_fail(bq_h5 *h, const char *what) { give_up(h, what, strerror(errno)); }

/* The first entry is the deepest: a failed system call, if there was one, with its message in it. */
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

/* A call of HDF5 that makes a file: negative ends the job. */
static int64_t must(bq_h5 *h, int64_t result) {
    char text[BQ_WHY];
    if (result < 0) give_up(h, "write", bq_h5_reason(text));
    return result;
}

static char *text_of(const char *path) {
    char *s = strdup(path);
    BQ_CHECK(s, "no memory for a path");
    return s;
}

void bq_h5_create(bq_h5 *h, const char *path) {
    bq_h5_init();
    char temp[BQ_PATH + 32];
    bq_temp_name(temp, sizeof temp, path);
    *h = (bq_h5){.fd = -1, .path = text_of(path), .temp = text_of(temp)};
    if (bq_fault("h5_create")) errno = ENOSPC, bq_h5_fail(h, "write");
    h->file = must(h, H5Fcreate(h->temp, H5F_ACC_EXCL, H5P_DEFAULT, H5P_DEFAULT));
    bq_h5_put_group(h, NULL);
}

void bq_h5_put_group(bq_h5 *h, const char *name) {
    if (h->at) must(h, H5Gclose(h->at));
    if (!name) {
        h->at = must(h, H5Gopen2(h->file, "/", H5P_DEFAULT));
        return;
    }
    hid_t plist = must(h, H5Pcreate(H5P_GROUP_CREATE));
    must(h, H5Pset_obj_track_times(plist, 0));
    h->at = must(h, H5Gcreate2(h->file, name, H5P_DEFAULT, plist, H5P_DEFAULT));
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

void bq_h5_put_hex(bq_h5 *h, const char *name, uint64_t value) {
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, value);
    bq_h5_put_text(h, name, text);
}

int64_t bq_h5_put_data(bq_h5 *h, const char *name, bq_type type, int rank, const int64_t *shape) {
    int64_t bytes;
    hsize_t dims[MAX_RANK];
    BQ_CHECK(rank >= 1 && rank <= MAX_RANK && shape_bytes(type, rank, shape, &bytes),
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

void bq_h5_write(bq_h5 *h, int64_t offset, bq_mat m) {
    size_t row = (size_t)m.cols * bq_type_size(m.type);
    int64_t runs = m.ld == m.cols ? 1 : m.rows; /* a packed matrix is one long row */
    if (runs == 1) row *= (size_t)m.rows;
    BQ_CHECK(m.place != BQ_DEVICE && offset >= 0 && offset + runs * (int64_t)row <= h->size,
             "data of %s x %" PRId64 " columns do not fit at %" PRId64 " of '%s'", bq_type_name(m.type),
             m.cols, offset, h->path);
    for (int64_t r = 0; r < runs; r++)
        if (!bq_raw_write(h->fd, bq_mat_at(m, r, 0), row, offset + r * (int64_t)row)) bq_h5_fail(h, "write");
}

void bq_h5_seal(bq_h5 *h, uint64_t tag) {
    if (!bq_seal_append(h->fd, h->size, tag)) bq_h5_fail(h, "write");
}

void bq_h5_commit(bq_h5 *h) {
    if ((errno = bq_fault("h5_sync") ? EIO : bq_raw_sync(h->fd))) bq_h5_fail(h, "write");
    int rc = close(h->fd);
    h->fd = -1;
    if (rc) bq_h5_fail(h, "write");
    errno = bq_file_rename(h->temp, h->path);
    if (errno) bq_h5_fail(h, "rename");
    free(h->temp);
    h->temp = NULL;
    bq_h5_close(h);
}

/* -- reading --------------------------------------------------------------------------------------------- */

bool bq_h5_refuse(bq_h5 *h, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    if (!h->why[0]) vsnprintf(h->why, sizeof h->why, fmt, ap);
    va_end(ap);
    return false;
}

static bool open_raw(bq_h5 *h, uint64_t *tag) {
    struct stat st;
    int err = bq_file_open(h->path, O_RDONLY, &h->fd);
    h->absent = err == ENOENT;
    if (!err && fstat(h->fd, &st)) err = errno;
    if (err) return bq_h5_refuse(h, "%s", bq_file_why(err));
    h->size = st.st_size;
    if (tag && !bq_seal_check(h->fd, true, &h->size, tag))
        return bq_h5_refuse(h, "damaged or incomplete: its seal does not agree");
    return true;
}

bool bq_h5_open(bq_h5 *h, const char *path, uint64_t *tag) {
    char text[BQ_WHY];
    bq_h5_init();
    *h = (bq_h5){.fd = -1, .path = text_of(path)};
    if (open_raw(h, tag)) {
        if (H5Fis_hdf5(path) <= 0)
            bq_h5_refuse(h, "not an HDF5 file");
        else if (bq_fault("h5_open"))
            bq_h5_refuse(h, "HDF5 cannot open it: %s", strerror(EIO));
        else if ((h->file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT)) < 0)
            bq_h5_refuse(h, "HDF5 cannot open it: %s", bq_h5_reason(text));
        else if ((h->at = H5Gopen2(h->file, "/", H5P_DEFAULT)) < 0)
            bq_h5_refuse(h, "it has no root group");
    }
    if (!h->why[0]) return true;
    bq_h5_close(h);
    return false;
}

/* Is there a hard link of that name?  Others may lead to other files. */
static bool linked(bq_h5 *h, hid_t at, const char *name) {
    H5L_info_t info;
    if (H5Lexists(at, name, H5P_DEFAULT) <= 0) return bq_h5_refuse(h, "'%s' is missing", name);
    if (H5Lget_info(at, name, &info, H5P_DEFAULT) < 0 || info.type != H5L_TYPE_HARD)
        return bq_h5_refuse(h, "'%s' is a link to elsewhere", name);
    return true;
}

bool bq_h5_get_group(bq_h5 *h, const char *name) {
    if (h->why[0] || (name && !linked(h, h->file, name))) return false;
    hid_t at = H5Gopen2(h->file, name ? name : "/", H5P_DEFAULT);
    if (at < 0) return bq_h5_refuse(h, "'%s' is not a group", name ? name : "/");
    H5Gclose(h->at);
    h->at = at;
    return true;
}

/* Open a scalar attribute and its type; -1 with a reason if it is missing or no scalar. */
static hid_t open_attribute(bq_h5 *h, const char *name, hid_t *type) {
    if (h->why[0]) return -1;
    *type = -1;
    hid_t attr = H5Aexists(h->at, name) > 0 ? H5Aopen(h->at, name, H5P_DEFAULT) : -1;
    if (attr < 0) {
        bq_h5_refuse(h, "attribute '%s' is missing", name);
        return -1;
    }
    hid_t space = H5Aget_space(attr);
    if (space >= 0 && H5Sget_simple_extent_npoints(space) == 1) *type = H5Aget_type(attr);
    if (space >= 0) H5Sclose(space);
    if (*type >= 0) return attr;
    bq_h5_refuse(h, "attribute '%s' is not a single value", name);
    H5Aclose(attr);
    return -1;
}

bool bq_h5_get_int(bq_h5 *h, const char *name, int64_t min, int64_t max, int64_t *value) {
    hid_t type, attr = open_attribute(h, name, &type);
    int64_t got = 0;
    if (attr < 0) return false;
    if (H5Tget_class(type) != H5T_INTEGER || H5Tget_size(type) > 8)
        bq_h5_refuse(h, "attribute '%s' is not an integer", name);
    else if (H5Aread(attr, H5T_NATIVE_INT64, &got) < 0)
        bq_h5_refuse(h, "attribute '%s' cannot be read", name);
    else if (got < min || got > max)
        bq_h5_refuse(h, "attribute '%s' is %" PRId64 ", outside %" PRId64 " .. %" PRId64, name, got, min,
                     max);
    H5Tclose(type);
    H5Aclose(attr);
    if (!h->why[0]) *value = got;
    return !h->why[0];
}

/* No control characters: texts end up on terminals and in messages. */
static bool printable(const char *text) {
    for (; *text; text++)
        if ((unsigned char)*text < 32 || *text == 127) return false;
    return true;
}

bool bq_h5_get_text(bq_h5 *h, const char *name, char *out, size_t size) {
    char text[MAX_TEXT + 1] = "";
    hid_t type, attr = open_attribute(h, name, &type);
    if (attr < 0) return false;
    size_t length = H5Tget_size(type);
    if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type))
        bq_h5_refuse(h, "attribute '%s' is not a string of fixed length (in h5py: numpy.bytes_)", name);
    else if (length > MAX_TEXT)
        bq_h5_refuse(h, "attribute '%s' is %zu bytes long", name, length);
    else if (H5Aread(attr, type, text) < 0)
        bq_h5_refuse(h, "attribute '%s' cannot be read", name);
    bool spaces = H5Tget_strpad(type) == H5T_STR_SPACEPAD;
    H5Tclose(type);
    H5Aclose(attr);
    if (h->why[0]) return false;
    for (size_t n = strlen(text); spaces && n > 0 && text[n - 1] == ' '; n--) text[n - 1] = 0;
    if (strlen(text) >= size) return bq_h5_refuse(h, "attribute '%s' is longer than %zu", name, size - 1);
    if (!printable(text)) return bq_h5_refuse(h, "attribute '%s' has control characters", name);
    memcpy(out, text, strlen(text) + 1);
    return true;
}

bool bq_h5_get_hex(bq_h5 *h, const char *name, uint64_t *value) {
    char text[17] = "";
    if (!bq_h5_get_text(h, name, text, sizeof text)) return false;
    if (strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
        return bq_h5_refuse(h, "attribute '%s' is not 16 hexadecimal digits", name);
    *value = strtoull(text, NULL, 16);
    return true;
}

bool bq_h5_has_data(bq_h5 *h, const char *name) {
    return !h->why[0] && H5Lexists(h->at, name, H5P_DEFAULT) > 0;
}

static bool describe(bq_h5 *h, hid_t data, const char *name, bq_type type, int rank, int64_t *shape) {
    hid_t space = H5Dget_space(data), kind = H5Dget_type(data), plist = H5Dget_create_plist(data);
    hsize_t dims[MAX_RANK] = {0};
    if (space < 0 || kind < 0 || plist < 0)
        bq_h5_refuse(h, "'%s' cannot be read", name);
    else if (H5Tequal(kind, file_type(type)) <= 0)
        bq_h5_refuse(h, "'%s' is not of type %s", name, bq_type_name(type));
    else if (H5Sget_simple_extent_ndims(space) != rank)
        bq_h5_refuse(h, "'%s' has %d dimensions, not %d", name, H5Sget_simple_extent_ndims(space), rank);
    else if (H5Pget_layout(plist) != H5D_CONTIGUOUS || H5Pget_external_count(plist) != 0)
        bq_h5_refuse(h, "'%s' is not stored contiguously", name);
    else if (H5Sget_simple_extent_dims(space, dims, NULL) < 0)
        bq_h5_refuse(h, "'%s' has no shape", name);
    for (int i = 0; i < rank; i++) shape[i] = dims[i] <= INT64_MAX ? (int64_t)dims[i] : -1;
    if (plist >= 0) H5Pclose(plist);
    if (kind >= 0) H5Tclose(kind);
    if (space >= 0) H5Sclose(space);
    return !h->why[0];
}

bool bq_h5_get_data(bq_h5 *h, const char *name, bq_type type, int rank, int64_t *shape, int64_t *offset) {
    int64_t bytes;
    if (h->why[0] || !linked(h, h->at, name)) return false;
    hid_t data = H5Dopen2(h->at, name, H5P_DEFAULT);
    if (data < 0) return bq_h5_refuse(h, "'%s' is not a dataset", name);
    bool good = describe(h, data, name, type, rank, shape);
    haddr_t at = good ? H5Dget_offset(data) : HADDR_UNDEF;
    H5Dclose(data);
    if (!good) return false;
    if (!shape_bytes(type, rank, shape, &bytes)) return bq_h5_refuse(h, "'%s' is empty or too large", name);
    if (at == HADDR_UNDEF || at > (haddr_t)h->size || bytes > h->size - (int64_t)at)
        return bq_h5_refuse(h, "'%s' reaches beyond the end of the file", name);
    *offset = (int64_t)at;
    return true;
}

void bq_h5_detach(bq_h5 *h) {
    if (h->at > 0) H5Gclose(h->at);
    if (h->file > 0) H5Fclose(h->file);
    h->at = h->file = 0;
}

bool bq_h5_read(bq_h5 *h, int64_t offset, bq_mat m) {
    size_t row = (size_t)m.cols * bq_type_size(m.type);
    int64_t runs = m.ld == m.cols ? 1 : m.rows;
    if (h->why[0]) return false;
    if (runs == 1) row *= (size_t)m.rows;
    BQ_CHECK(m.place != BQ_DEVICE, "a file is read into host memory");
    for (int64_t r = 0; r < runs; r++)
        if (bq_fault("h5_read") ? (errno = EIO, true)
                                : !bq_raw_read(h->fd, bq_mat_at(m, r, 0), row, offset + r * (int64_t)row))
            return bq_h5_refuse(h, "read failed: %s", strerror(errno));
    return true;
}

void bq_h5_close(bq_h5 *h) {
    if (!h->path) return;
    bq_h5_detach(h);
    if (h->fd >= 0) close(h->fd);
    if (h->temp) unlink(h->temp);
    free(h->temp);
    free(h->path);
    h->temp = h->path = NULL;
    h->fd = -1;
}
