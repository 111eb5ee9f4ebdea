/* A build without NCCL: messages go through the host. */
#include "comm/nccl.h"

bq_nccl *bq_nccl_open(const bq_comm *comm, bq_dev *dev) {
    (void)comm, (void)dev;
    return NULL;
}
void bq_nccl_close(bq_nccl *nccl) { (void)nccl; }
void bq_nccl_start(bq_nccl *nccl) { (void)nccl; }
void bq_nccl_send(bq_nccl *nccl, int replica, const float *data, int64_t count) {
    (void)nccl, (void)replica, (void)data, (void)count;
}
void bq_nccl_receive(bq_nccl *nccl, int replica, float *data, int64_t count) {
    (void)nccl, (void)replica, (void)data, (void)count;
}
void bq_nccl_end(bq_nccl *nccl) { (void)nccl; }
void bq_nccl_poll(bq_nccl *nccl) { (void)nccl; }
