/* device.h - this rank's device, and its matrices for code that reads and writes files.
 *
 * Where the device is the host a matrix stands for itself; else for a copy in host memory.  Local. */
#ifndef BQ_DEVICE_H
#define BQ_DEVICE_H

#include "comm/comm.h"
#include "driver/recipe/args.h"
#include "kernels/ops.h"

/* Open the device that the options name, one GPU after the other for the ranks of a node.  Returns as
 * bq_dev_open. */
int bq_device_open(bq_dev *dev, const bq_args *args, const bq_comm *comm, size_t mem);

/* Bytes of a GPU that are this rank's share; 0 where the options mean the cpu. */
size_t bq_device_memory(const bq_args *args, const bq_comm *comm);

/* *m becomes readable on the host, until bq_device_drop takes it. */
void bq_device_fetch(bq_dev *dev, bq_mat *m);
void bq_device_drop(bq_dev *dev, bq_mat *m);

/* Room on the host that fill takes back, with what m is to hold. */
bq_mat bq_device_room(const bq_dev *dev, bq_mat m);
void bq_device_fill(bq_dev *dev, bq_mat room, bq_mat m);

#endif
