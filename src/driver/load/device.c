/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/load/device.h"

#include "base/die.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The number of the device that the options name, or this rank's. */
static int number_of(const bq_args *args, const bq_comm *comm) {
    const char *number = strchr(args->device, ':');
    return number ? atoi(number + 1) : comm->local;
}

size_t bq_device_memory(const bq_args *args, const bq_comm *comm) {
    int devices = bq_cuda_devices();
    if (devices == 0 || strncmp(args->device, "cpu", 3) == 0) return 0;
    int sharing = strchr(args->device, ':') ? comm->locals : (comm->locals + devices - 1) / devices;
    return bq_cuda_memory(number_of(args, comm)) / (size_t)sharing;
}

int bq_device_open(bq_dev *dev, const bq_args *args, const bq_comm *comm, size_t mem) {
    char name[64];
    snprintf(name, sizeof name, "%.*s:%d", (int)strcspn(args->device, ":"), args->device,
             number_of(args, comm));
    return bq_dev_open(dev, name, args->threads, mem);
}

bq_mat bq_device_room(const bq_dev *dev, bq_mat m) {
    if (dev->mem.place != BQ_DEVICE) return m;
    size_t bytes = (size_t)(m.rows * m.cols) * bq_type_size(m.type);
    bq_mat room = bq_mat_host(malloc(bytes + 1), m.rows, m.cols, m.type);
    BQ_CHECK(room.data, "no memory for a copy of %zu bytes of the device", bytes);
    return room;
}

void bq_device_fill(bq_dev *dev, bq_mat room, bq_mat m) {
    if (dev->mem.place != BQ_DEVICE) return;
    dev->op->put(dev, room, m);
    dev->op->wait(dev);
    free(room.data);
}

void bq_device_fetch(bq_dev *dev, bq_mat *m) {
    if (dev->mem.place != BQ_DEVICE || !m->data) return;
    bq_mat room = bq_device_room(dev, *m);
    dev->op->get(dev, *m, room);
    dev->op->wait(dev);
    *m = room;
}

void bq_device_drop(bq_dev *dev, bq_mat *m) {
    if (dev->mem.place != BQ_DEVICE) return;
    free(m->data);
    *m = (bq_mat){0};
}
