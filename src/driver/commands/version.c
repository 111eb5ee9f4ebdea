/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/commands/version.h"

#include "comm/comm.h"
#include "driver/recipe/args.h"
#include "io/state/h5.h"
#include "io/state/mpio.h"
#include "kernels/ops.h"

void bq_version_print(FILE *out) {
    char mpi[BQ_LIBRARY], hdf5[16];
    bq_dev dev;
    bq_comm_library(mpi);
    bq_h5_library(hdf5);
    fprintf(out, "blockq " BQ_VERSION "%s%s\n", *bq_commit ? ", commit " : "", bq_commit);
    fprintf(out, "%s\nHDF5 %s, %s MPI-IO\n", mpi, hdf5, bq_mpio_built() ? "with" : "without");
    if (bq_dev_open(&dev, "cpu", 0, 0) == 0) fprintf(out, "%s\n", dev.name);
    bq_dev_close(&dev);
    if (bq_ops_cuda.close)
        fprintf(out, "CUDA, %d GPUs here\n", bq_cuda_devices());
    else
        fputs("without CUDA\n", out);
}
