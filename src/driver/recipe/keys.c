/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/recipe/keys.h"

#include "io/out/export.h"

#include <stddef.h>
#include <string.h>

#define AT           BQ_AT
#define QUOTE(text)  #text
#define TEXT(number) QUOTE(number)

static const bq_choice inputs[] = {{"fp", BQ_INPUTS_FP}, {"qt", BQ_INPUTS_QT}, {"mix", BQ_INPUTS_MIX}, {0}};
const bq_choice bq_compute_choices[] = {{"f32", BQ_COMPUTE_F32},       {"fp16x2", BQ_COMPUTE_FP16X2},
                                        {"bf16x3", BQ_COMPUTE_BF16X3}, {"tf32", BQ_COMPUTE_TF32},
                                        {"bf16", BQ_COMPUTE_BF16},     {0}};
static const bq_choice exact_computes[] = {{"f32", BQ_COMPUTE_F32}, {"fp16x2", BQ_COMPUTE_FP16X2}, {0}};
static const bq_choice angles[] = {{"hf", BQ_ANGLES_HF}, {"exact", BQ_ANGLES_EXACT}, {0}};
static const bq_choice scales[] = {{"f32", BQ_F32},      {"bf16", BQ_BF16},    {"f16", BQ_F16},
                                   {"e8m0", BQ_F8_E8M0}, {"e4m3", BQ_F8_E4M3}, {0}};
static const bq_choice floats[] = {{"e2m1", BQ_E2M1}, {"e2m3", BQ_E2M3}, {"e3m2", BQ_E3M2},
                                   {"e4m3", BQ_E4M3}, {"e5m2", BQ_E5M2}, {0}};
static const bq_choice grids[] = {
    {"aimet", BQ_GRID_AIMET}, {"absmax", BQ_GRID_ABSMAX}, {"torchao", BQ_GRID_TORCHAO}, {0}};
static const bq_choice zeros[] = {{"int", BQ_ZERO_CODE}, {"float", BQ_ZERO_FLOAT}, {0}};
const bq_choice bq_power_choices[] = {{"even", BQ_POWER_EVEN},
                                      {"floor", BQ_POWER_FLOOR},
                                      {"ceil", BQ_POWER_CEIL},
                                      {"rceil", BQ_POWER_RCEIL},
                                      {0}};
static const bq_choice outers[] = {{"shared", BQ_OUTER_SHARED}, {"none", BQ_OUTER_NONE}, {0}};

static const bq_key calibration_keys[] = {
    {"tokens", BQ_KEY_PATH, AT(bq_recipe, calibration.tokens), .value = "", .unhashed = true,
     .help =
         "Tokens file; a text (.txt) for a model whose tokens are bytes. Needed unless every pass is `rtn`."},
    {"samples", BQ_KEY_I64, AT(bq_recipe, calibration.samples), .value = "128", .min = 1, .max = 1 << 24,
     .help = "How many samples."},
    {"length", BQ_KEY_I64, AT(bq_recipe, calibration.length), .value = "2048", .min = 1, .max = 1 << 20,
     .help = "Tokens of a sample."},
    {"offset", BQ_KEY_I64, AT(bq_recipe, calibration.offset), .value = "0", .max = 1e15,
     .help = "First token. Samples follow each other without gaps."},
    {0}};
static const bq_scope calibration = {"calibration", "The text that the passes see.", calibration_keys, 0};

static const bq_choice starved[] = {
    {"blend", BQ_STARVED_BLEND}, {"rtn", BQ_STARVED_RTN}, {"all_tokens", BQ_STARVED_ALL}, {0}};
const char *bq_starved_name(bq_starved s) { return starved[s].name; }

static const bq_key experts_keys[] = {
    {"starved", BQ_KEY_CHOICE, AT(bq_recipe, experts.starved), .value = "blend", .choice = starved,
     .help =
         "What is done for an expert that gets fewer than `least` tokens. `blend`: tokens spread evenly "
         "over all of the layer fill it up to `least`, so its Gram matrix is H + lambda H_layer. "
         "`all_tokens`: it is calibrated with the layer's tokens alone. `rtn`: it is rounded to nearest, and "
         "only passes that need no data run."},
    {"least", BQ_KEY_I64, AT(bq_recipe, experts.least), .value = "512", .max = 1e9,
     .help = "Below so many tokens an expert is starved. The log says how many are."},
    {"most", BQ_KEY_I64, AT(bq_recipe, experts.most), .value = "65536", .min = 1, .max = 1e9,
     .help = "An expert is calibrated with so many of its tokens at most, spread evenly. It bounds memory."},
    {0}};
static const bq_scope experts = {"experts", "Of models with experts: the tokens that calibrate each of them.",
                                 experts_keys, 0};

static const bq_key scheme_keys[] = {
    {"bits", BQ_KEY_BITS, AT(bq_scheme, element), .value = "4", .min = 1, .max = 8, .choice = floats,
     .help = "Bits of a code: 4 bits are -8 ... 7; 1 bit needs zero points. Or a float: `e4m3` is FP8, "
             "`e2m1` FP4. `adascale`, `autoround`, `omniquant`, `hqq` and `lpbq` take integers alone."},
    {"group", BQ_KEY_GROUP, AT(bq_scheme, group), .value = "-1", .max = 1 << 20,
     .help = "Columns that share a scale; -1: a whole row (per channel)."},
    {"rows", BQ_KEY_I64, AT(bq_scheme, rows), .value = "1", .min = -1, .max = 1 << 20, .brief = true,
     .help =
         "Rows that share a scale, of floats and symmetric integers: 128 with `group` 128 makes tiles, -1 "
         "with `group` -1 one scale for a matrix. Their grids cover the weights, by the rule `absmax` or "
         "`torchao`: `clip` has no effect. Only with `rtn` and `gptq`."},
    {"symmetric", BQ_KEY_BOOL, AT(bq_scheme, symmetric), .value = "true",
     .help = "False: each scale has a zero point, so that the codes cover just the values there are."},
    {"zero", BQ_KEY_CHOICE, AT(bq_scheme, zero), .value = "int", .choice = zeros, .brief = true,
     .help =
         "What zero points are, where `symmetric` is false. `int`: the code of 0, which is on every grid. "
         "`float`: the value of the code 0 (with 4 bits the ninth), of the type of scales; grids need not "
         "hold 0 (tinygemm, HQQ). Outputs that hold it are `safetensors` and `gguf`; with `hqq` it keeps "
         "its whole gain."},
    {"scale", BQ_KEY_CHOICE, AT(bq_scheme, scale), .value = "f32", .choice = scales,
     .help = "Type that scales are rounded to before codes are made. Of floats also `e8m0`, a power of two "
             "(MX), and `e4m3`, which is FP8 times a float that the matrices with one input share (NVFP4)."},
    {"grid", BQ_KEY_CHOICE, AT(bq_scheme, grid), .value = "aimet", .choice = grids,
     .help = "Of symmetric grids, what a step is for weights from lo to hi: with 4 bits max(hi / 7, -lo / 8) "
             "(`aimet`), or max(-lo, hi) / 7.5 (`absmax`: llm-compressor, Quark, GPTQModel). `adascale` "
             "takes the first alone. `torchao`: as `absmax`, but codes are made with the reciprocal of the "
             "scale, which changes codes of values halfway between two; also of grids with zero points, and "
             "of floats in blocks (NVFP4 and MX as torchao makes them)."},
    {"eps", BQ_KEY_REAL, AT(bq_scheme, eps), .value = "1.1920928955078125e-7", .min = 1.17e-38, .max = 1,
     .brief = true,
     .help =
         "The least scale, with `grid` `torchao` or `zero` `float`. torchao has this, for `intx` and 8da4w "
         "1.1754944e-38."},
    {"mx_scale", BQ_KEY_CHOICE, AT(bq_scheme, power), .value = "even", .choice = bq_power_choices,
     .brief = true,
     .help =
         "With `scale` `e8m0`, which power of two a block gets from its largest value a. `floor`: OCP's, "
         "that below a, over that of the element's largest number; values above that number are clipped. "
         "`even`: the same with a rounded first. `ceil`: the power above a. `rceil`: the least with which "
         "nothing is clipped."},
    {"outer", BQ_KEY_CHOICE, AT(bq_scheme, levels), .value = "shared", .choice = outers, .brief = true,
     .help =
         "With `scale` `e4m3`: `shared`: scales are multiplied by a float that the matrices with one input "
         "share. `none`: they are FP8 numbers themselves (torchao's NVFP4 with one level)."},
    {0}};
const bq_scope bq_scheme_keys = {"bits.decoder, bits.linears.NAME, bits.auto.schemes.N",
                                 "How a matrix becomes integers.", scheme_keys, sizeof(bq_scheme)};

static const bq_choice integer_scales[] = {{"f32", BQ_F32}, {"bf16", BQ_BF16}, {"f16", BQ_F16}, {0}};
static const bq_key vocabulary_keys[] = {
    {"bits", BQ_KEY_INT, AT(bq_scheme, element), .value = "16", .min = 2, .max = 8, .other = 16,
     .help = "Bits of a code; 16: the values as they are."},
    {"group", BQ_KEY_GROUP, AT(bq_scheme, group), .value = "-1", .max = 1 << 20, .help = "As for linears."},
    {"symmetric", BQ_KEY_BOOL, AT(bq_scheme, symmetric), .value = "true", .help = "As for linears."},
    {"scale", BQ_KEY_CHOICE, AT(bq_scheme, scale), .value = "f32", .choice = integer_scales,
     .help = "As for linears. `gptq` and `gguf` need `f16`."},
    {"grid", BQ_KEY_CHOICE, AT(bq_scheme, grid), .value = "aimet", .choice = grids,
     .help = "As for linears."},
    {0}};
static const bq_scope vocabulary = {
    "bits.embedding, bits.lm_head",
    "Embedding and head are rounded to nearest, as by the pass `rtn`, while they are read, after transforms. "
    "The passes and `fp` read the original; `rtn`, the result and the outputs have them rounded. So a "
    "finished run need not be made again for other bits: `blockq run` then writes the outputs and evaluates "
    "anew. A head that the model ties to the embedding becomes a matrix of its own where the two objects "
    "differ. `compressed-tensors` and `gptq` hold a quantized head, `gguf` and `safetensors` both.",
    vocabulary_keys, sizeof(bq_scheme)};

#define LINEAR(i, name, blurb)                                                                               \
    { name, BQ_KEY_OBJECT, AT(bq_recipe, bits.linear[i]), "{}", LIKE_DECODER, .help = blurb }
#define LIKE_DECODER .scope = &bq_scheme_keys, .like = offsetof(bq_recipe, bits.decoder)
static const bq_key linears_keys[] = {LINEAR(0, "q_proj", "Query."),
                                      LINEAR(1, "k_proj", "Key."),
                                      LINEAR(2, "v_proj", "Value."),
                                      LINEAR(3, "o_proj", "Output of attention."),
                                      LINEAR(4, "gate_proj", "Gate of the MLP."),
                                      LINEAR(5, "up_proj", "Up projection."),
                                      LINEAR(6, "down_proj", "Down projection."),
                                      LINEAR(7, "qkv_proj", "Query, key and value in one matrix (Phi-3)."),
                                      LINEAR(8, "gate_up_proj", "Gate and up in one matrix (Phi-3)."),
                                      LINEAR(9, "q_a_proj", "Of latent attention (DeepSeek-V3): to q_a."),
                                      LINEAR(10, "q_b_proj", "Query from q_a."),
                                      LINEAR(11, "kv_a_proj_with_mqa", "To kv_a, and the key with RoPE."),
                                      LINEAR(12, "kv_b_proj", "Key and value from kv_a."),
                                      LINEAR(13, "w1", "Gate of an expert (Mixtral)."),
                                      LINEAR(14, "w2", "Down projection of an expert (Mixtral)."),
                                      LINEAR(15, "w3", "Up projection of an expert (Mixtral)."),
                                      {0}};
const char *bq_linear_name(int i) { return linears_keys[i].name; }

static const bq_scope linears = {
    "bits.linears",
    "Matrices that differ from `bits.decoder`; keys left out are as there. The model must have the name.",
    linears_keys, 0};

static const bq_key bits_keys[] = {
    {"decoder", BQ_KEY_OBJECT, AT(bq_recipe, bits.decoder), .value = "{}", .scope = &bq_scheme_keys,
     .help = "Every linear of every decoder block."},
    {"linears", BQ_KEY_OBJECT, .value = "{}", .scope = &linears, .help = "Exceptions by name."},
    {"auto", BQ_KEY_OBJECT, AT(bq_recipe, bits.mixed), .value = "{}", .scope = &bq_mixed_keys, .brief = true,
     .help = "Schemes among which the program chooses for each site of each block."},
    {"schemes", BQ_KEY_PATH, AT(bq_recipe, bits.schemes), .value = "", .unhashed = true, .brief = true,
     .help =
         "A file with schemes of single sites of blocks, as `auto` writes it (docs/mixed-precision.md); it "
         "may be edited. What it leaves out is as in the keys above."},
    {"embedding", BQ_KEY_OBJECT, AT(bq_recipe, bits.embedding), .value = "{}", .scope = &vocabulary,
     .unhashed = true, .help = "The embedding."},
    {"lm_head", BQ_KEY_OBJECT, AT(bq_recipe, bits.lm_head), .value = "{}", .scope = &vocabulary,
     .unhashed = true, .help = "The head."},
    {"activations", BQ_KEY_OBJECT, AT(bq_recipe, bits.activations), .value = "16",
     .scope = &bq_activations_keys, .bare = true, .unhashed = true,
     .help =
         "What the inputs of linears are rounded to; 16: as they are. For evaluation and for outputs that "
         "can say it; passes see it in phases with `activations`."},
    {"kv", BQ_KEY_OBJECT, AT(bq_recipe, bits.kv), .value = "16", .scope = &bq_cache_keys, .bare = true,
     .unhashed = true,
     .help =
         "What engines keep keys, after RoPE, and values in; 16: as they are. For evaluation, which rounds "
         "every key and value, and for outputs that can say it; not for latent attention."},
    {0}};
static const bq_scope bits = {
    "bits",
    "Norms, biases and routers keep the type they have. `\"preset\": \"W4A16\"` beside "
    "these keys stands for those of a scheme by name, as far as they are not given: "
    "[schemes.md](schemes.md).",
    bits_keys, 0};

static const bq_choice transforms[] = {{"rotate", BQ_TRANSFORM_ROTATE}, {0}};
static const bq_choice rotations[] = {{"hadamard", BQ_ROTATE_HADAMARD}, {"randomized", BQ_ROTATE_RANDOMIZED},
                                      {"block", BQ_ROTATE_BLOCK},       {"orthogonal", BQ_ROTATE_ORTHOGONAL},
                                      {"none", BQ_ROTATE_NONE},         {0}};
static const bq_key learn_keys[] = {
    {"steps", BQ_KEY_I64, AT(bq_transform, learn.steps), .value = "0", .max = 1e6,
     .help = "Steps of training; 0: the rotations stay as they are. SpinQuant takes 100."},
    {"batch", BQ_KEY_I64, AT(bq_transform, learn.batch), .value = "8", .min = 1, .max = 1 << 24,
     .help = "Calibration samples of a step, at most. The next step takes the ones behind them."},
    {"lr", BQ_KEY_REAL, AT(bq_transform, learn.lr), .value = "0.03", .max = 1,
     .help = "The angle in radians by which the first step turns a basis vector (root mean square). It falls "
             "linearly to 0."},
    {0}};
static const bq_scope learn = {"transforms.N.learn",
                               "SpinQuant: before the phases `r1` and `r2` are trained, so that rounding all "
                               "weights to nearest with the "
                               "schemes of `bits` moves the outputs of the blocks least. docs/rotations.md "
                               "has more. Not for models with "
                               "experts.",
                               learn_keys, 0};
static const bq_key transform_keys[] = {
    {"transform", BQ_KEY_CHOICE, AT(bq_transform, kind), .choice = transforms, .help = "Which transform."},
    {"r1", BQ_KEY_CHOICE, AT(bq_transform, r1), .value = "hadamard", .choice = rotations,
     .help = "Basis of the residual stream. `hadamard`, if the hidden size has one (2^n times an order of "
             "Paley's: 576 = 36 x 16); `randomized`: with signs from `seed`; `block`: of a smaller size, "
             "along the diagonal; `orthogonal`: random, of any size, slower to load."},
    {"r1_block", BQ_KEY_I64, AT(bq_transform, r1_block), .value = "0", .max = 1 << 20,
     .help = "Size of a block, a divisor of the hidden size, with `r1` `block`."},
    {"r2", BQ_KEY_CHOICE, AT(bq_transform, r2), .value = "none", .choice = rotations,
     .help = "Basis of each value head, between v_proj and o_proj."},
    {"r2_block", BQ_KEY_I64, AT(bq_transform, r2_block), .value = "0", .max = 1 << 20,
     .help = "The same for `r2`: a divisor of the head size."},
    {"learn", BQ_KEY_OBJECT, .value = "{}", .scope = &learn, .brief = true,
     .help = "Training `r1` and `r2`, which start as these keys say."},
    {0}};
static const bq_scope transform = {
    "transforms.N, transform: rotate",
    "The same function in another basis, in which the weights have fewer outliers: the norms' gains move "
    "into the matrices, and these are rotated, with nothing left to do when the model is used. A head that "
    "was the embedding becomes a matrix of its own, in the exported model too.",
    transform_keys, sizeof(bq_transform)};

static const bq_key pass_keys[] = {{"pass", BQ_KEY_CHOICE, AT(bq_pass, kind), .row = bq_pass_kind_choice,
                                    .help = "Which pass; it decides which other keys there are."},
                                   {0}};
static const bq_scope pass = {"phases.N.passes.N", "A pass.", pass_keys, sizeof(bq_pass)};

static const bq_key phase_keys[] = {
    {"name", BQ_KEY_NAME, AT(bq_phase, name), .value = "", .max = 31, .unhashed = true,
     .help = "For log and tables; the last pass's name if left out."},
    {"inputs", BQ_KEY_CHOICE, AT(bq_phase, inputs), .value = "mix", .choice = inputs,
     .help = "What a block is trained on: the original model's stream (`fp`), the quantized one's (`qt`), or "
             "each element from one of them (`mix`, AIMET's way). Targets are always the original's. Passes "
             "that do not train see the quantized stream with `qt` and `mix`, those that prepare "
             "(smoothquant, autosmoothquant, awq) with `qt` alone."},
    {"mix", BQ_KEY_REAL, AT(bq_phase, mix), .value = "0.5", .max = 1,
     .help = "Share of elements from the quantized stream, with `inputs` `mix`."},
    {"activations", BQ_KEY_BOOL, AT(bq_phase, activations), .value = "false", .brief = true,
     .help =
         "True: the passes and the quantized stream see the inputs of linears rounded as "
         "`bits.activations` says; targets do not. A gradient goes through the rounding as it is. Not with "
         "scales that are measured after the passes."},
    {"compute", BQ_KEY_CHOICE, AT(bq_phase, compute), .value = "f32", .choice = bq_compute_choices,
     .help = "How the passes and the quantized stream multiply matrices: in f32; as exactly on tensor cores, "
             "each float as the sum of two fp16 (`fp16x2`: GPUs; with AMX floats are multiplied as in f32); "
             "each product of floats as three products of bf16, which leaves 2^-18 of it out (`bf16x3`: "
             "processors with AMX); or with "
             "operands rounded to 11 digits (`tf32`: GPUs), or to the 8 of bf16, as engines that serve "
             "models do (`bf16`: GPUs, AMX, AVX512_BF16). Sums are f32. A device takes the nearest way that "
             "it has and that is not less exact, at last f32; the log says so, and how far the outputs of "
             "the first block's linears are from f32's. FP32 outputs, factorizations and GPTQ's loop over "
             "columns are never less than f32, nor are Gram matrices on GPUs. Attention follows `bf16` and "
             "`tf32` on GPUs, in the passes and in the quantized stream. AdaScale with one scale a row "
             "multiplies by the codes, which `fp16x2` (GPUs, AMX) and `bf16` (GPUs) hold exactly, and by the "
             "scales after that. With AMX its steps are 1.15 to 1.3 times as fast as with f32."},
    {"passes", BQ_KEY_LIST, AT(bq_phase, pass), .min = 1, .max = BQ_PASSES, .scope = &pass,
     .variant = bq_pass_kind_scope, .inside = offsetof(bq_pass, options), .count = offsetof(bq_phase, npass),
     .help = "Applied to a block in this order."},
    {0}};
static const bq_scope phase = {"phases.N", "One walk over the blocks.", phase_keys, sizeof(bq_phase)};

static const bq_key output_keys[] = {
    {"format", BQ_KEY_CHOICE, AT(bq_output, format), .row = bq_format_choice, .row_help = bq_format_help,
     .help = ""},
    {"dir", BQ_KEY_NAME, AT(bq_output, dir), .value = "", .max = 63,
     .help = "Folder made in the run directory; the format's name if left out."},
    {"shard_bytes", BQ_KEY_I64, AT(bq_output, shard_bytes), .value = TEXT(BQ_SHARD_BYTES),
     .min = BQ_SHARD_MIN, .max = 1e15,
     .help = "Tensors in one file, at most; a larger tensor gets its own. Ranks write different files."},
    {"base_model", BQ_KEY_TEXT, AT(bq_output, base_model), .value = "", .max = BQ_BASE_MODEL - 1,
     .help = "The original's name, for the model card, as `org/name` on a hub; the last part of `model` if "
             "left out."},
    {"license", BQ_KEY_NAME, AT(bq_output, license), .value = "", .max = BQ_LICENSE - 1,
     .help = "The model's licence as a hub names it (`apache-2.0`), for the model card; if left out what the "
             "original's README.md says, or `other` where there is a file LICENSE."},
    {0}};
static const bq_scope output = {"outputs.N", "A model directory to write at the end.", output_keys,
                                sizeof(bq_output)};

static const bq_key evaluation_keys[] = {{"eval", BQ_KEY_CHOICE, AT(bq_evaluation, kind),
                                          .row = bq_eval_choice,
                                          .help = "Which evaluation; it decides which other keys there are."},
                                         {0}};
static const bq_scope evaluation = {"evals.N", "An evaluation.", evaluation_keys, sizeof(bq_evaluation)};

static const bq_key recipe_keys[] = {
    {"model", BQ_KEY_PATH, AT(bq_recipe, model), .unhashed = true,
     .help = "Directory with config.json and safetensors, as from the Hugging Face hub; or a GGUF file, "
             "the first one where it is in parts."},
    {"calibration", BQ_KEY_OBJECT, .value = "{}", .scope = &calibration, .help = "Samples of text."},
    {"experts", BQ_KEY_OBJECT, .value = "{}", .scope = &experts, .help = "Calibration of experts."},
    {"seed", BQ_KEY_SEED, AT(bq_recipe, seed), .value = "0", .help = "Of every random number."},
    {"bits", BQ_KEY_OBJECT, .value = "{}", .scope = &bits, .help = "Width of the codes."},
    {"rope", BQ_KEY_CHOICE, AT(bq_recipe, rope), .value = "hf", .choice = angles,
     .help = "Angles of the position embedding in float32 like transformers (`hf`), or in double."},
    {"reference_compute", BQ_KEY_CHOICE, AT(bq_recipe, reference), .value = "f32", .choice = exact_computes,
     .brief = true,
     .help = "How the original model's stream and targets are computed: as `compute` of a phase, but no way "
             "that is less exact than f32. A first pass that can make the targets itself does so where its "
             "phase computes in the same way."},
    {"transforms", BQ_KEY_LIST, AT(bq_recipe, transform), .value = "[]", .max = BQ_TRANSFORMS,
     .scope = &transform, .count = offsetof(bq_recipe, ntransform),
     .help = "Exact changes of the model before quantization. `fp` in the result is the changed model's."},
    {"segments", BQ_KEY_INT, AT(bq_recipe, segments), .value = "1", .min = 1, .max = 4096,
     .help = "Ranges of blocks inside which the quantized stream is chained; it starts anew from the "
             "original's at each head. Segments can run on different ranks."},
    {"sweeps", BQ_KEY_INT, AT(bq_recipe, sweeps), .value = "1", .min = 1, .max = 64,
     .help = "Rounds over the blocks. From the second on a segment starts from the quantized stream of the "
             "round before, and from its own result; one whose start has not changed is left as it is."},
    {"tolerance", BQ_KEY_REAL, AT(bq_recipe, tolerance), .value = "0", .max = 1,
     .help = "No more sweeps once no segment's start moved by more than this (relative L2 norm)."},
    {"phases", BQ_KEY_LIST, AT(bq_recipe, phase), .min = 1, .max = BQ_PHASES, .scope = &phase,
     .count = offsetof(bq_recipe, nphase), .help = "What is done, in this order."},
    {"distill", BQ_KEY_OBJECT, AT(bq_recipe, distill), .value = "{}", .scope = &bq_distill_keys,
     .brief = true, .unhashed = true,
     .help = "Training of all blocks together after the phases. A run whose phases are done need not repeat "
             "them for other values."},
    {"outputs", BQ_KEY_LIST, AT(bq_recipe, output), .value = "[]", .max = BQ_OUTPUTS, .scope = &output,
     .variant = bq_format_scope, .inside = offsetof(bq_output, options),
     .count = offsetof(bq_recipe, noutput), .unhashed = true,
     .help = "Models to write; `blockq export` writes more later."},
    {"eval", BQ_KEY_OBJECT, AT(bq_recipe, eval), .value = "{}", .scope = &bq_perplexity_object,
     .unhashed = true, .help = "Measuring the result."},
    {"evals", BQ_KEY_LIST, AT(bq_recipe, evals), .value = "[]", .max = BQ_EVALS, .scope = &evaluation,
     .variant = bq_eval_scope, .inside = offsetof(bq_evaluation, options),
     .count = offsetof(bq_recipe, nevals), .unhashed = true, .brief = true,
     .help = "Further evaluations of the original, of round to nearest and of the result. Their numbers are "
             "in the log and in result.json."},
    {0}};
const bq_scope bq_recipe_keys = {"The recipe", "Keys of the file.", recipe_keys, sizeof(bq_recipe)};

/* The shortest form that reads back: bounds are small integers or short decimals. */
static const char *number(double x, char text[32]) {
    snprintf(text, 32, x < 1e16 && x == (double)(int64_t)x ? "%.0f" : "%g", x);
    return text;
}

void bq_key_allowed(const bq_key *key, char *text, size_t size) {
    char low[32], high[32];
    number(key->min, low), number(key->max, high);
    switch (key->type) {
    case BQ_KEY_INT:
    case BQ_KEY_I64:
        if (key->other != 0)
            snprintf(text, size, "an integer from %s to %s, or %.0f", low, high, key->other);
        else if (key->min == key->max)
            snprintf(text, size, "%s in this version", low);
        else if (key->min + key->step == key->max)
            snprintf(text, size, "%s or %s", low, high);
        else
            snprintf(text, size, "an integer from %s to %s", low, high);
        return;
    case BQ_KEY_SEED: snprintf(text, size, "an integer from 0 to 2^63 - 1"); return;
    case BQ_KEY_GROUP: snprintf(text, size, "-1, or a multiple of 8 up to %s", high); return;
    case BQ_KEY_REAL: snprintf(text, size, "a number from %s to %s", low, high); return;
    case BQ_KEY_BOOL: snprintf(text, size, "true or false"); return;
    case BQ_KEY_PATH: snprintf(text, size, "a path of at most %d bytes", BQ_PATH_MAX - 1); return;
    case BQ_KEY_NAME:
        snprintf(text, size, "a name of at most %s letters, digits, '_', '-' or '.', not first a '.'", high);
        return;
    case BQ_KEY_TEXT: snprintf(text, size, "a text of at most %s bytes in one line", high); return;
    case BQ_KEY_OBJECT:
        if (key->bare) bq_key_allowed(key->scope->key, text, size);
        snprintf(text + (key->bare ? strlen(text) : 0), key->bare ? size - strlen(text) : size, "%san object",
                 key->bare ? "; or " : "");
        return;
    case BQ_KEY_LIST: snprintf(text, size, "a list of %s to %s objects", low, high); return;
    case BQ_KEY_BITS:
    case BQ_KEY_CHOICE: break;
    }
    size_t n = 0;
    bq_choice c;
    if (key->type == BQ_KEY_BITS)
        n = (size_t)snprintf(text, size,
                             key->other != 0 ? "an integer from %s to %s, %.0f, or "
                                             : "an integer from %s to %s, or ",
                             low, high, key->other);
    for (int i = 0; (c = bq_key_choice(key, i)).name && n < size; i++) {
        const char *joint = i == 0 ? "" : bq_key_choice(key, i + 1).name ? ", " : " or ";
        n += (size_t)snprintf(text + n, size - n, "%s\"%s\"", joint, c.name);
    }
}
