/* SPDX-License-Identifier: Apache-2.0 */
/* source.h - a model as blocks: io's tensors become block's matrices.  */
#ifndef BQ_SOURCE_H
#define BQ_SOURCE_H

#include "block/passes/pass.h"
#include "block/model/rope.h"
#include "driver/load/rotated.h"
#include "driver/load/rounded.h"
#include "io/tokens.h"
#include "io/in/weights.h"

typedef struct {
    char dir[4096];
    bq_arch arch, dense;  /* the layout of blocks; with experts also that of blocks without, */
    bq_arch core, expert; /* and of the units of those with them: core, expert 0 */
    bq_weights *weights;
    bq_rotated *rotated; /* NULL: the tensors are those of the files */
    bq_rounded rounded;  /* what embedding and head are rounded to, for those who ask for it */
} bq_source;

/* Read configuration and headers of a model of any kind (io/in/weights.h).  Every tensor that the
 * configuration implies must be there, with its shape and a float type.  BQ_OK, or BQ_DATA after one message;
 * close also takes a zeroed struct.  Local.  */
int bq_source_open(bq_source *src, const char *path);
void bq_source_close(bq_source *src);
/* The layout of block b, of its first unit, and of the unit that the model's other blocks may have, too: that
 * from which room for any unit is pushed. */
const bq_arch *bq_source_arch(const bq_source *src, int b);
const bq_arch *bq_source_core(const bq_source *src, int b);
const bq_arch *bq_source_first(const bq_source *src);
/* The layouts of all units, without schemes. */
void bq_source_layouts(const bq_source *src, bq_layouts *layouts);

/* What a tensor is, by its name, in the layout of its block. */
bq_tensor_id bq_source_id(const bq_source *src, const char *tensor);

/* From now on the tensors are those of the transformed model, and embedding and head have the recipe's
 * schemes.  src must not move until close.  BQ_OK, or BQ_USAGE after one message.  */
int bq_source_transform(bq_source *src, const bq_recipe *recipe);

/* Hash what changes results: the bytes of the weights and the model's numbers, without transforms.  Refuses
 * NaN and Inf in weights (BQ_DATA). cache: file that keeps hashes of unchanged shards, or NULL.  */
int bq_source_fingerprint(const bq_source *src, const char *cache, uint64_t *hash);

/* Read block b's tensors into blk (pushed before); those of a unit of it, whose layout is arch. */
void bq_source_block(const bq_source *src, bq_dev *dev, int b, bq_block *blk);
void bq_source_unit(const bq_source *src, bq_dev *dev, int b, const bq_arch *arch, bq_block *blk);
/* The same without the weights of linears, whose contents are undefined then: norms, biases and what else a
 * block has. */
void bq_source_vectors(const bq_source *src, bq_dev *dev, int b, const bq_arch *arch, bq_block *blk);

/* The first unit of block b in pieces that fit a buffer, in order, until visit returns false. visit gets the
 * tensor's name, the first row of the piece, and its place in blk. piece_most: values of the largest piece,
 * at most; rotated: the recipe has transforms. */
typedef bool bq_source_visit(void *ctx, const char *name, int64_t first, bq_mat to);
void bq_source_pieces(const bq_source *src, int b, const bq_block *blk, bq_source_visit *visit, void *ctx);
int64_t bq_source_piece_most(const bq_arch *arch, bool rotated);

/* Host bytes to read a block or the head for a GPU; on the host pieces are read in place.  */
size_t bq_source_need(const bq_arch *arch, bool rotated);

/* Rows [first, first + to.rows) of a tensor as the run uses it, host f32; rotated ones in whole heads.  */
void bq_source_rows(const bq_source *src, const char *name, int64_t first, bq_mat to);

/* Start to read the first unit of block b into the page cache, in the background; or the unit whose layout is
 * arch.  Does nothing beyond the last block. */
void bq_source_prefetch(const bq_source *src, int b);
void bq_source_prefetch_unit(const bq_source *src, int b, const bq_arch *arch);

/* Embeddings of T tokens, host (T, H), read row by row: the table is never in memory.  rounded: by the
 * recipe's scheme.  */
void bq_source_embed(const bq_source *src, const int32_t *ids, bool rounded, bq_mat out);

/* The final norm (1, H) and the output head (V, H), which is the embedding where they are tied.  rounded: the
 * head by the recipe's scheme.  head_name: of the tensor with its rows, the embedding unless the model has
 * another one or a rotation makes one.  tied: are tensor and scheme those of the embedding?  */
void bq_source_head(const bq_source *src, bq_dev *dev, bool rounded, bq_mat norm, bq_mat head);
const char *bq_source_head_name(const bq_source *src);
bool bq_source_tied(const bq_source *src);

/* Push a workspace for T tokens (bq_work_push) for a whole block or a core, and fill its rotary tables.  */
void bq_source_work(const bq_source *src, const bq_arch *arch, bq_angles angles, bq_dev *dev, int64_t tokens,
                    bool train, bq_work *work);

/* source_vocabulary.c. check_tokens refuses (BQ_DATA) tokens of another tokenizer than the model's (on rank 0
 * only), ids that the model does not have, and fewer than `need` tokens from `offset` on. same_tokenizer
 * refuses two files of different tokenizers. check_length warns if texts are longer than the model's
 * positions; name: of the length.  */
int bq_source_check_tokens(const bq_source *src, const char *path, const bq_tokens *t, int64_t offset,
                           int64_t need);
int bq_source_same_tokenizer(const char *path, const bq_tokens *t, const char *other_path,
                             const bq_tokens *other);
void bq_source_check_length(const bq_source *src, const char *name, int64_t length);

#endif
