/* SPDX-License-Identifier: Apache-2.0 */
/* raw.h - whole transfers at an offset of a file, hashes and seals, without HDF5.  Any thread may call.
 * All calls are local; their time and bytes are counted (base/meter.h). */
#ifndef BQ_RAW_H
#define BQ_RAW_H

#include "base/hash.h"

/* Read or write all bytes, through signals and the limit of 2 GiB of one call.  On false errno has the
 * reason (EIO when the file ends early, ENOSPC when the system takes no more). */
bool bq_raw_read(int fd, void *data, size_t bytes, int64_t offset);
bool bq_raw_write(int fd, const void *data, size_t bytes, int64_t offset);

/* XXH3 of the first size bytes of a file; with its SHA-256.  On false errno has the reason. */
bool bq_raw_hash(int fd, int64_t size, uint64_t *value);
bool bq_raw_hash_both(int fd, int64_t size, bq_file_hash *value);

/* fsync: 0, or errno. */
int bq_raw_sync(int fd);

/* Claim space for the bytes [0, size) now, so that a full disk shows before the work.  False only if the
 * system says that there is no room (errno); a file system that cannot claim space gives true. */
bool bq_raw_reserve(int fd, int64_t size);

#define BQ_SEAL 40 /* bytes of a seal */

/* A seal ends a file: the file is whole if the seal's size and XXH3 agree with what is before it.  HDF5
 * readers ignore it.  The tag is the caller's.  docs/files.md has the bytes.
 *   append   seal the first size bytes, which are read back.  On false errno has the reason
 *   check    is there a seal for the file's size?  every: do all bytes agree, too?  *size: bytes before the
 * seal */
bool bq_seal_append(int fd, int64_t size, uint64_t tag);
bool bq_seal_check(int fd, bool every, int64_t *size, uint64_t *tag);

#endif
