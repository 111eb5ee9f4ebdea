/* SPDX-License-Identifier: Apache-2.0 */
#include "io/state/mpio.h"

#include "base/clock.h"
#include "base/die.h"
#include "base/meter.h"
#include "comm/heartbeat.h"
#include "io/files.h"
#include "io/state/h5.h"

#include <hdf5.h>
#include <stdlib.h>

/* MPI counts with an int, so a transfer must be smaller. */
enum { PIECE = 1 << 28 }; /* floats */

struct bq_mpio {
    const bq_comm *comm;
    char *path;
    hid_t file, data, space;
    hsize_t hidden;
};

bool bq_mpio_built(void) { return true; }

static int64_t must(const char *path, const char *what, int64_t result) {
    char text[BQ_WHY];
    BQ_CHECK(result >= 0, "%s of '%s' by MPI-IO failed: %s", what, path, bq_h5_reason(text));
    return result;
}

bq_mpio *bq_mpio_open(const bq_comm *comm, const char *path, const char *name) {
    bq_h5_init();
    bq_mpio *m = calloc(1, sizeof *m);
    BQ_CHECK(m, "no memory for a stream file");
    m->comm = comm;
    m->path = bq_text_copy(path);
    hid_t plist = must(path, "open", H5Pcreate(H5P_FILE_ACCESS));
    must(path, "open", H5Pset_fapl_mpio(plist, comm->stage, MPI_INFO_NULL));
    must(path, "open", H5Pset_libver_bounds(plist, H5F_LIBVER_EARLIEST, H5F_LIBVER_LATEST));
    bq_comm_stage_barrier(comm);
    bq_heartbeat_within("MPI_File_open");
    m->file = must(path, "open", H5Fopen(path, H5F_ACC_RDWR, plist));
    m->data = must(path, "open", H5Dopen2(m->file, name, H5P_DEFAULT));
    m->space = must(path, "open", H5Dget_space(m->data));
    hsize_t shape[3];
    BQ_CHECK(H5Sget_simple_extent_ndims(m->space) == 3, "'%s' of '%s' is no stream", name, path);
    must(path, "open", H5Sget_simple_extent_dims(m->space, shape, NULL));
    m->hidden = shape[2];
    must(path, "open", H5Pclose(plist));
    bq_heartbeat_within(NULL);
    return m;
}

/* Write or read a sample in pieces; time and bytes are counted.  Negative: it failed.  Transfers are
 * independent, as the default property list says. */
static herr_t move(bq_mpio *m, int64_t sample, int64_t tokens, float *data, bool write) {
    double start = bq_seconds();
    hsize_t step = PIECE / m->hidden ? PIECE / m->hidden : 1, end = (hsize_t)tokens;
    herr_t code = 0;
    for (hsize_t at = 0; at < end && code >= 0; at += step) {
        const hsize_t n = end - at < step ? end - at : step, from[3] = {(hsize_t)sample, at, 0};
        const hsize_t count[3] = {1, n, m->hidden}, values = n * m->hidden;
        hid_t memory = must(m->path, "selection", H5Screate_simple(1, &values, NULL));
        must(m->path, "selection", H5Sselect_hyperslab(m->space, H5S_SELECT_SET, from, NULL, count, NULL));
        float *piece = data + at * m->hidden;
        if (bq_fault("mpio"))
            code = -1;
        else if (write)
            code = H5Dwrite(m->data, H5T_NATIVE_FLOAT, memory, m->space, H5P_DEFAULT, piece);
        else
            code = H5Dread(m->data, H5T_NATIVE_FLOAT, memory, m->space, H5P_DEFAULT, piece);
        if (code >= 0) *(write ? &bq_spent.written : &bq_spent.read) += (int64_t)(values * sizeof *data);
        H5Sclose(memory);
    }
    bq_spent.files += bq_seconds() - start;
    return code;
}

void bq_mpio_write(bq_mpio *m, int64_t sample, int64_t tokens, const float *data) {
    must(m->path, "write", move(m, sample, tokens, (float *)data, true));
}

bool bq_mpio_read(bq_mpio *m, int64_t sample, int64_t tokens, float *data) {
    return move(m, sample, tokens, data, false) >= 0;
}

void bq_mpio_sync(bq_mpio *m) {
    bq_comm_stage_barrier(m->comm);
    double start = bq_seconds();
    bq_heartbeat_within("MPI_File_sync");
    must(m->path, "sync", H5Fflush(m->file, H5F_SCOPE_GLOBAL));
    bq_heartbeat_within(NULL);
    bq_spent.files += bq_seconds() - start;
}

void bq_mpio_close(bq_mpio *m) {
    bq_comm_stage_barrier(m->comm);
    bq_heartbeat_within("MPI_File_close");
    must(m->path, "close", H5Sclose(m->space));
    must(m->path, "close", H5Dclose(m->data));
    must(m->path, "close", H5Fclose(m->file));
    bq_heartbeat_within(NULL);
    free(m->path);
    free(m);
}
