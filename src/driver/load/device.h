/* SPDX-License-Identifier: Apache-2.0 */
/* device.h - this rank's device, and host copies of its matrices for files.  Where the device is the host, a
 * matrix is its own copy.  Local.  */
#ifndef BQ_DEVICE_H
#define BQ_DEVICE_H

#include "comm/comm.h"
#include "driver/recipe/args.h"
#include "kernels/ops.h"

/* Open the device that the options name; `cuda` gives the ranks of a node one GPU after the other.  Returns
 * as bq_dev_open. */
int bq_device_open(bq_dev *dev, const bq_args *args, const bq_comm *comm, size_t mem);

/* This rank's share of the bytes of a GPU; 0: the options mean the cpu.  */
size_t bq_device_memory(const bq_args *args, const bq_comm *comm);

/* Make *m a host copy, until drop frees it.  */
void bq_device_fetch(bq_dev *dev, bq_mat *m);
void bq_device_drop(bq_dev *dev, bq_mat *m);

/* Host memory for what m is to hold; fill copies it to m and frees it.  */
bq_mat bq_device_room(const bq_dev *dev, bq_mat m);
void bq_device_fill(bq_dev *dev, bq_mat room, bq_mat m);

#endif
