/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzzers do, for builds without clang: good inputs with some bytes changed, the same ones every
 * time.  A reader may take or refuse each, with one message for a refusal; sanitizers watch the rest. */
#include "refuse.h"

#include "base/rng.h"
#include "io/in/config.h"
#include "io/in/safetensors.h"

enum { ROUNDS = 20000, ROOM = 4096 };

static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"BF16\",\"shape\":[2,2]"
                             ",\"data_offsets\":[4,12]},"
                             "\"a\":{\"dtype\":\"I32\",\"shape\":[],\"data_offsets\":[0,4]}}";
static const char index_text[] =
    "{\"metadata\":{\"total_size\":8},\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}";
static const char config[] =
    "{\"model_type\":\"phi3\",\"hidden_size\":64,\"intermediate_size\":96,\"vocab_size\":97,\"num_hidden_"
    "layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"rms_norm_eps\":1e-05,\"sliding_window\":47,"
    "\"original_max_position_embeddings\":64,\"partial_rotary_factor\":0.25,\"rope_scaling\":{\"type\":"
    "\"su\","
    "\"short_factor\":[1,2],\"long_factor\":[3.5,4],\"attention_factor\":1.5,\"factor\":8}}";

static int read_header(const char *text, size_t bytes) {
    bq_safetensors s;
    int rc = bq_safetensors_parse(&s, "m", text, bytes, 8 + bytes + 12);
    if (rc == BQ_OK) {
        for (int i = 0; i < s.count; i++) assert_true(s.at[i].offset + s.at[i].bytes <= 8 + bytes + 12);
    }
    bq_safetensors_close(&s);
    return rc;
}

static int read_index(const char *text, size_t bytes) {
    json_t *map;
    int rc = bq_index_parse("i", text, bytes, &map);
    json_decref(map);
    return rc;
}

static int read_config(const char *text, size_t bytes) {
    bq_model m;
    int rc = bq_config_parse("c", text, bytes, &m);
    if (rc == BQ_OK)
        assert_true(m.heads % m.kv_heads == 0 && m.rope.dim >= 2 && m.rope.dim / 2 <= BQ_ROPE_MAX);
    return rc;
}

/* One to four edits: a byte, a bit, a cut, a doubled piece, a piece of JSON, a large number for a digit. */
static size_t mutate(uint32_t round, const char *from, size_t bytes, char *to) {
    static const char *const piece[] = {"{",    "}",    "[",    "]",  "\"",  ",",
                                        ":",    "null", "-1",   "0",  "1e9", "\\",
                                        "\xff", "\xc3", "true", "{}", "[[[", "9223372036854775807"};
    uint32_t r[4];
    memcpy(to, from, bytes);
    for (uint32_t k = 0; k <= round % 4; k++) {
        bq_philox((bq_rng_key){.seed = round}, k, r);
        size_t at = r[0] % (bytes + 1), n = strlen(piece[r[1] % 18]), size = r[3] % 32;
        switch (r[2] % 5) {
        case 0:
            if (at < bytes) to[at] = (char)r[1];
            break;
        case 1:
            if (at < bytes) to[at] = (char)(to[at] ^ 1 << r[1] % 8);
            break;
        case 2:
            if (size > bytes - at) size = bytes - at;
            memmove(to + at, to + at + size, bytes - at - size);
            bytes -= size;
            break;
        case 3:
            if (size > bytes - at) size = bytes - at;
            if (bytes + size > ROOM) break;
            memmove(to + at + size, to + at, bytes - at);
            bytes += size;
            break;
        default:
            if (bytes + n > ROOM) break;
            memmove(to + at + n, to + at, bytes - at);
            memcpy(to + at, piece[r[1] % 18], n);
            bytes += n;
        }
    }
    return bytes;
}

static int messages(const char *text) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, "bq: error: ")); at++) n++;
    return n;
}

/* The copy has no room behind it, so that a reader's first step too far is seen. */
static void walk(int (*reader)(const char *, size_t), const char *good) {
    char changed[ROOM], *said = NULL;
    size_t size, taken = 0;
    FILE *saved = stderr;
    assert_int_equal(reader(good, strlen(good)), BQ_OK);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        size_t bytes = mutate(round, good, strlen(good), changed);
        char *exact = malloc(bytes + !bytes);
        assert_non_null(exact);
        memcpy(exact, changed, bytes);
        stderr = open_memstream(&said, &size);
        int rc = reader(exact, bytes);
        fclose(stderr);
        stderr = saved;
        if (rc != BQ_OK && rc != BQ_DATA) fail_msg("round %u returned %d", round, rc);
        if (messages(said) != (rc == BQ_DATA)) fail_msg("round %u: %d, said: %s", round, rc, said);
        taken += rc == BQ_OK;
        free(said);
        free(exact);
    }
    assert_true(taken > ROUNDS / 100 &&
                taken < ROUNDS / 2); /* else the edits are too harsh, or nothing is checked */
}

static void headers(void **state) { (void)state, walk(read_header, header); }
static void indices(void **state) { (void)state, walk(read_index, index_text); }
static void configs(void **state) { (void)state, walk(read_config, config); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers),
        cmocka_unit_test(indices),
        cmocka_unit_test(configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
