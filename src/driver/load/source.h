/* source.h - a model as blocks: where io's tensors meet block's matrices. */
#ifndef BQ_SOURCE_H
#define BQ_SOURCE_H

#include "block/passes/pass.h"
#include "block/model/rope.h"
#include "driver/load/rotated.h"
#include "io/tokens.h"
#include "io/in/weights.h"

typedef struct {
    char dir[4096];
    bq_arch arch, dense; /* the layout of blocks; with experts also that of blocks without */
    bq_weights *weights;
    bq_rotated *rotated; /* NULL: the tensors are those of the files */
} bq_source;

/* Read configuration and headers of a model of any kind (io/in/weights.h); every tensor that the
 * configuration promises must be there with its shape and a float type.  BQ_OK, or BQ_DATA after one message.
 * Local; close takes a zeroed struct. */
int bq_source_open(bq_source *src, const char *path);
void bq_source_close(bq_source *src);
/* Can blockq quantize this model, not only evaluate it?  BQ_OK, or BQ_DATA after one message. */
int bq_source_quantizes(const bq_source *src);
/* The layout of block b. */
const bq_arch *bq_source_arch(const bq_source *src, int b);

/* From here on the tensors are those of the model that the recipe's transforms make.  The struct must stay
 * where it is until close.  BQ_OK, or BQ_USAGE after one message. */
int bq_source_transform(bq_source *src, const bq_recipe *recipe);

/* Fingerprint of everything in the directory that changes results: weights' bytes and the model's numbers.
 * Finds NaN and Inf in weights (BQ_DATA).  cache: file that remembers hashes of unchanged shards, NULL for
 * none.  Transforms do not count. */
int bq_source_fingerprint(const bq_source *src, const char *cache, uint64_t *hash);

/* Read block b's tensors into blk (pushed before). */
void bq_source_block(const bq_source *src, bq_dev *dev, int b, bq_block *blk);

/* The same as pieces that fit a buffer, in order: visit gets a tensor's name, the first of its rows, and
 * where in blk they belong, until it returns false. */
typedef bool bq_source_visit(void *ctx, const char *name, int64_t first, bq_mat to);
void bq_source_pieces(const bq_source *src, int b, const bq_block *blk, bq_source_visit *visit, void *ctx);
/* Values of the largest piece, at most; rotated: the recipe has transforms. */
int64_t bq_source_piece_most(const bq_arch *arch, bool rotated);

/* Host bytes to read a block or the head for a device that is not the host; there pieces are read in place.
 */
size_t bq_source_need(const bq_arch *arch, bool rotated);

/* Rows [first, first + to.rows) of a tensor as the run has it, host f32; what is rotated is read in whole
 * heads (rotated.h). */
void bq_source_rows(const bq_source *src, const char *name, int64_t first, bq_mat to);

/* Block b is wanted next: its tensors' bytes are read in the background, into the page cache, where they stay
 * in the checkpoint's type while memory lasts.  Nothing beyond the last block. */
void bq_source_prefetch(const bq_source *src, int b);

/* Embeddings of T tokens, host (T, H): rows are read one by one, the table is never held. */
void bq_source_embed(const bq_source *src, const int32_t *ids, bq_mat out);

/* The final norm (1, H) and the output head (V, H); the embedding where they are (still) tied. */
void bq_source_head(const bq_source *src, bq_dev *dev, bq_mat norm, bq_mat head);

/* Push a workspace for T tokens (bq_work_push), with its rotary table. */
void bq_source_work(const bq_source *src, bq_angles angles, bq_dev *dev, int64_t tokens, bool train,
                    bq_work *work);

/* vocabulary.c.  Refuse (BQ_DATA) tokens of another tokenizer than the model's (on rank 0 alone), those whose
 * ids it does not have, or too few of them: `need` from `offset` on. */
int bq_source_check_tokens(const bq_source *src, const char *path, const bq_tokens *t, int64_t offset,
                           int64_t need);
/* Refuse (BQ_DATA) two files made by different tokenizers. */
int bq_source_same_tokenizer(const char *path, const bq_tokens *t, const char *other_path,
                             const bq_tokens *other);
/* Warn where texts are longer than the model's positions; name: of the length. */
void bq_source_check_length(const bq_source *src, const char *name, int64_t length);

#endif
