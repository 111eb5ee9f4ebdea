/* SPDX-License-Identifier: Apache-2.0 */
#include "io/state/h5_strict.h"

#include "base/die.h"
#include "io/state/raw.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Sizes of structures; those of nodes are the library's defaults. */
enum { LEAF = 8, BRANCH = 32, ENTRY = 40, SUPER = 96, MAX_LEVEL = 8, CONTINUATION = 16 };

uint64_t bq_h5_number(const uint8_t *at, size_t bytes) {
    uint64_t value = 0;
    while (bytes-- > 0) value = value << 8 | at[bytes];
    return value;
}

static uint64_t u16(const uint8_t *at) { return bq_h5_number(at, 2); }
static uint64_t u32(const uint8_t *at) { return bq_h5_number(at, 4); }
static uint64_t u64(const uint8_t *at) { return bq_h5_number(at, 8); }

bool bq_h5_broken(bq_h5 *h, const char *what) {
    return bq_h5_refuse(h, "damaged, or no HDF5 file that is read here: %s breaks the rules", what);
}

static bool too_new(bq_h5 *h) {
    return bq_h5_refuse(h, "in a newer HDF5 format than is read here: write it with libver='earliest' "
                           "(h5py), or make it by tools/prepare.py");
}

static bool load(bq_h5 *h, uint64_t at, size_t bytes, void *to) {
    if (at > (uint64_t)h->size || bytes > (uint64_t)h->size - at)
        return bq_h5_refuse(h, "its structure reaches beyond the end of the file");
    return bq_raw_read(h->fd, to, bytes, (int64_t)at) || bq_h5_refuse(h, "read failed: %s", strerror(errno));
}

bool bq_h5_load_super(bq_h5 *h) {
    static const char signature[8] = "\x89HDF\r\n\x1a\n";
    uint8_t s[SUPER];
    if (h->size < SUPER) return bq_h5_refuse(h, "not an HDF5 file");
    if (!load(h, 0, sizeof s, s)) return false;
    if (memcmp(s, signature, sizeof signature)) return bq_h5_refuse(h, "not an HDF5 file");
    if (s[8] != 0) return too_new(h);
    if (s[9] || s[10] || s[12] || u32(s + 20) || s[13] != 8 || s[14] != 8 || u16(s + 16) != LEAF / 2 ||
        u16(s + 18) != BRANCH / 2 || u64(s + 24) != 0 || u64(s + 48) != UINT64_MAX)
        return bq_h5_broken(h, "its superblock");
    uint64_t end = u64(s + 40);
    if (end < SUPER || end > (uint64_t)h->size)
        return bq_h5_refuse(h, "cut short: %" PRId64 " bytes of %" PRIu64, h->size, end);
    h->size = (int64_t)end;
    h->root = u64(s + 64);
    return true;
}

/* May an object have a message of this type?  seen: the types that it had so far. */
static bool is_known(bq_h5 *h, uint64_t type, uint32_t *seen) {
    const uint32_t repeated = 1u << 0 | 1u << BQ_H5_ATTRIBUTE | 1u << CONTINUATION; /* 0: an empty message */
    /* dataspace, type, fill value (two forms), external files, layout, group info, filters, comment, time
     * (old form), symbol table, time, reference count */
    const uint32_t once = 1u << 1 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 7 | 1u << 8 | 1u << 10 | 1u << 11 |
                          1u << 13 | 1u << 14 | 1u << 17 | 1u << 18 | 1u << 22;
    const uint32_t newer = 1u << 2 | 1u << 6 | 1u << 21; /* links and attributes in newer forms */
    uint32_t bit = type < 32 ? 1u << type : 0;
    if (bit & newer) return too_new(h);
    if (!(bit & (repeated | (once & ~*seen)))) return bq_h5_broken(h, "the kind of a message");
    *seen |= bit;
    return true;
}

bq_h5_part bq_h5_message(const bq_h5_object *o, unsigned type, size_t *from) {
    while (*from < o->bytes) {
        const uint8_t *m = o->data + *from;
        size_t bytes = u16(m + 2);
        *from += 8 + bytes;
        if (u16(m) == type) return (bq_h5_part){m + 8, bytes};
    }
    return (bq_h5_part){0};
}

/* Add one chunk of an object header, message by message. */
static bool add_chunk(bq_h5 *h, bq_h5_object *o, uint64_t at, uint64_t bytes, uint32_t *seen) {
    size_t i = o->bytes;
    if (bytes % 8 || bytes > sizeof o->data - i) return bq_h5_broken(h, "the size of an object header");
    if (!load(h, at, bytes, o->data + i)) return false;
    o->bytes += bytes;
    while (i < o->bytes) {
        const uint8_t *m = o->data + i;
        i += 8 + u16(m + 2);
        if (u16(m + 2) % 8 || i > o->bytes) return bq_h5_broken(h, "a message");
        if (m[4] & 2) return bq_h5_refuse(h, "a part of it is kept elsewhere (a named type, say)");
        if (!is_known(h, u16(m), seen)) return false;
    }
    return true;
}

/* Each chunk takes room in o, so a continuation that leads back ends, too. */
bool bq_h5_load_object(bq_h5 *h, uint64_t at, bq_h5_object *o) {
    uint8_t head[16];
    uint32_t seen = 0;
    size_t from = 0;
    o->bytes = 0;
    if (!load(h, at, sizeof head, head)) return false;
    if (memcmp(head, "OHDR", 4) == 0) return too_new(h);
    if (head[0] != 1) return bq_h5_broken(h, "an object header");
    if (!add_chunk(h, o, at + sizeof head, u32(head + 8), &seen)) return false;
    for (bq_h5_part m; (m = bq_h5_message(o, CONTINUATION, &from)).at;) {
        if (m.bytes < 16) return bq_h5_broken(h, "a continuation");
        if (!add_chunk(h, o, u64(m.at), u64(m.at + 8), &seen)) return false;
    }
    return true;
}

/* Check that the name at an offset of the heap comes after *last; *last becomes it.  A key of a tree may be
 * equal. */
static bool rise(bq_h5 *h, const char **last, uint64_t place, bool key) {
    const struct bq_h5_group *g = h->group;
    if (place >= g->heap_bytes || !memchr(g->heap + place, 0, g->heap_bytes - place))
        return bq_h5_broken(h, "a name");
    int order = strcmp(*last, g->heap + place);
    if (order > 0 || (order == 0 && !key)) return bq_h5_broken(h, "the order of names");
    *last = g->heap + place;
    return true;
}

static bool add_leaf(bq_h5 *h, uint64_t at, const char **last) {
    struct bq_h5_group *g = h->group;
    uint8_t node[8 + LEAF * ENTRY];
    if (!load(h, at, sizeof node, node)) return false;
    uint64_t count = u16(node + 6);
    if (memcmp(node, "SNOD\1", 5) || count < 1 || count > LEAF) return bq_h5_broken(h, "a symbol node");
    for (const uint8_t *e = node + 8; count > 0; count--, e += ENTRY) {
        if (!rise(h, last, u64(e), false)) return false;
        if (g->count == BQ_H5_NAMES) return bq_h5_refuse(h, "more than %d names in a group", BQ_H5_NAMES);
        g->entry[g->count].name = *last;
        g->entry[g->count].at = u64(e + 8);
        g->entry[g->count++].hard = u32(e + 16) < 2;
    }
    return true;
}

/* Read a tree of names.  Each leaf adds a name or is refused, so a tree that leads back into itself ends.
 * level -1: the root, which may have any. */
static bool add_tree(bq_h5 *h, uint64_t at, int level, const char **last) {
    uint8_t node[24 + BRANCH * 16 + 8];
    if (!load(h, at, sizeof node, node)) return false;
    uint64_t count = u16(node + 6);
    if (memcmp(node, "TREE", 5) || node[5] > MAX_LEVEL || (level >= 0 && node[5] != level) ||
        count > BRANCH || (count == 0 && level >= 0))
        return bq_h5_broken(h, "a tree of names");
    if (count == 0) return true; /* an empty group */
    level = node[5];
    for (const uint8_t *key = node + 24;; key += 16, count--) { /* key, child, ..., key */
        if (!rise(h, last, u64(key), true)) return false;
        if (count == 0) return true;
        uint64_t child = u64(key + 8);
        if (!(level ? add_tree(h, child, level - 1, last) : add_leaf(h, child, last))) return false;
    }
}

bool bq_h5_load_group(bq_h5 *h, uint64_t at, const char *name) {
    uint8_t head[32];
    size_t from = 0;
    const char *last = "";
    if (!h->group) h->group = malloc(sizeof *h->group);
    BQ_CHECK(h->group, "no memory for a group of '%s'", h->path);
    struct bq_h5_group *g = h->group;
    g->count = 0;
    if (!bq_h5_load_object(h, at, &g->object)) return false;
    bq_h5_part m = bq_h5_message(&g->object, BQ_H5_SYMBOLS, &from);
    if (!m.at) return bq_h5_refuse(h, "'%s' is not a group", name);
    if (m.bytes < 16) return bq_h5_broken(h, "a symbol table");
    if (!load(h, u64(m.at + 8), sizeof head, head)) return false;
    g->heap_bytes = u64(head + 8);
    uint64_t unused = u64(head + 16); /* offset of the heap's first free piece; 1: none */
    if (memcmp(head, "HEAP\0", 5) || g->heap_bytes > sizeof g->heap ||
        (unused != 1 && unused >= g->heap_bytes))
        return bq_h5_broken(h, "a heap of names");
    return load(h, u64(head + 24), g->heap_bytes, g->heap) && add_tree(h, u64(m.at), -1, &last);
}
