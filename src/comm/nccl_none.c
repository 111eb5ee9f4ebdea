/* SPDX-License-Identifier: Apache-2.0 */
/* A build without NCCL: open returns NULL, and all messages go through the host. */
#include "comm/nccl.h"

bq_nccl *bq_nccl_open(const bq_comm *comm, bq_dev *dev) { return (void)comm, (void)dev, NULL; }
bq_nccl *bq_nccl_open_depth(const bq_comm *comm, bq_dev *dev) { return bq_nccl_open(comm, dev); }
void bq_nccl_close(bq_nccl *nccl) { (void)nccl; }
void bq_nccl_start(bq_nccl *nccl) { (void)nccl; }
void bq_nccl_send(bq_nccl *nccl, int peer, const float *data, int64_t count) {
    (void)nccl, (void)peer, (void)data, (void)count;
}
void bq_nccl_receive(bq_nccl *nccl, int peer, float *data, int64_t count) {
    (void)nccl, (void)peer, (void)data, (void)count;
}
void bq_nccl_end(bq_nccl *nccl) { (void)nccl; }
void bq_nccl_join(bq_nccl *nccl) { (void)nccl; }
void bq_nccl_poll(bq_nccl *nccl) { (void)nccl; }
