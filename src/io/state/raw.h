/* raw.h - whole transfers at an offset of a file, and seals.  No HDF5 here; any thread may call. */
#ifndef BQ_RAW_H
#define BQ_RAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Through interruptions and the 2 GiB limit of one call.  False: errno says why (EIO when the file ends
 * early, ENOSPC when the system takes nothing more). */
bool bq_raw_read(int fd, void *data, size_t bytes, int64_t offset);
bool bq_raw_write(int fd, const void *data, size_t bytes, int64_t offset);

/* XXH3 of the first size bytes of a file.  False: errno. */
bool bq_raw_hash(int fd, int64_t size, uint64_t *value);

/* What was written is on disk: 0, or errno. */
int bq_raw_sync(int fd);

/* Claim the bytes [0, size) on disk now, where the file system can, so that a full disk shows before the
 * work. False: errno. */
bool bq_raw_reserve(int fd, int64_t size);

#define BQ_SEAL 40 /* bytes of a seal */

/* A seal ends a file: what is before it is whole exactly if its size and XXH3 agree.  HDF5 readers ignore it.
 * The tag is the caller's.  docs/formats.md has the bytes.
 *   append   over the first size bytes, which are read back.  False: errno
 *   check    is there a seal of the right size, and if every, do all bytes agree?  size: of what is sealed */
bool bq_seal_append(int fd, int64_t size, uint64_t tag);
bool bq_seal_check(int fd, bool every, int64_t *size, uint64_t *tag);

#endif
