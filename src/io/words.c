/* SPDX-License-Identifier: Apache-2.0 */
#include "io/words.h"

#include <string.h>

static const char llama3[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char qwen2[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

bool bq_words_find(const char *pattern, bq_words *rule) {
    static const char *const known[] = {
        [BQ_WORDS_GPT2] = gpt2, [BQ_WORDS_LLAMA3] = llama3, [BQ_WORDS_QWEN2] = qwen2};
    for (int i = 0; i < 3; i++)
        if (strcmp(pattern, known[i]) == 0) return *rule = (bq_words)i, true;
    return false;
}

static bool is_line(const bq_char *c) { return c->code == '\r' || c->code == '\n'; }
static bool is_other(const bq_char *c) { return !(c->class & (BQ_SPACE | BQ_LETTER | BQ_NUMBER)); }

/* The end of the characters from i on that have one of these classes. */
static int64_t run_of(const bq_char *c, int64_t i, int64_t end, unsigned classes) {
    while (i < end && c[i].class & classes) i++;
    return i;
}

static int64_t run_of_others(const bq_char *c, int64_t i, int64_t end) {
    while (i < end && is_other(c + i)) i++;
    return i;
}

/* Without case a long s stands for an s, too. */
static uint32_t lower(uint32_t code, bool any_case) {
    if (any_case && code == 0x17f) return 's';
    return any_case && code >= 'A' && code <= 'Z' ? code + 32 : code;
}

/* 's, 't, 're, 've, 'm, 'll, 'd: its end, or i. */
static int64_t contraction(const bq_char *c, int64_t i, int64_t end, bool any_case) {
    if (c[i].code != '\'' || i + 1 >= end) return i;
    const uint32_t a = lower(c[i + 1].code, any_case), b = i + 2 < end ? lower(c[i + 2].code, any_case) : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return i + 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return i + 3;
    return i;
}

/* \s+(?!\S)|\s+: all spaces up to the end, or all but the last before something else. */
static int64_t spaces(const bq_char *c, int64_t i, int64_t end) {
    const int64_t to = run_of(c, i, end, BQ_SPACE);
    return to < end && to > i + 1 ? to - 1 : to;
}

static int64_t next_gpt2(const bq_char *c, int64_t i, int64_t end) {
    const int64_t short_form = contraction(c, i, end, false), from = i + (c[i].code == ' ' && i + 1 < end);
    if (short_form > i) return short_form;
    if (c[from].class & BQ_LETTER) return run_of(c, from, end, BQ_LETTER);
    if (c[from].class & BQ_NUMBER) return run_of(c, from, end, BQ_NUMBER);
    if (is_other(c + from)) return run_of_others(c, from, end);
    return spaces(c, i, end);
}

static int64_t next_llama3(const bq_char *c, int64_t i, int64_t end, int numbers) {
    const int64_t short_form = contraction(c, i, end, true);
    if (short_form > i) return short_form;
    const int64_t from = i + !(is_line(c + i) || c[i].class & (BQ_LETTER | BQ_NUMBER));
    if (from < end && c[from].class & BQ_LETTER) return run_of(c, from, end, BQ_LETTER);
    if (c[i].class & BQ_NUMBER) {
        const int64_t to = run_of(c, i, end, BQ_NUMBER);
        return to < i + numbers ? to : i + numbers;
    }
    int64_t to = i + (c[i].code == ' ' && i + 1 < end);
    if (is_other(c + to)) {
        to = run_of_others(c, to, end);
        while (to < end && is_line(c + to)) to++;
        return to;
    }
    for (to = run_of(c, i, end, BQ_SPACE); to > i; to--) /* \s*[\r\n]+ ends behind the last line end */
        if (is_line(c + to - 1)) return to;
    return spaces(c, i, end);
}

int64_t bq_words_next(bq_words rule, bool digits, const bq_char *c, int64_t i, int64_t count) {
    if (digits) {
        if (c[i].class & BQ_NUMBER) return i + 1;
        int64_t to = i;
        while (to < count && !(c[to].class & BQ_NUMBER)) to++;
        count = to;
    }
    return rule == BQ_WORDS_GPT2 ? next_gpt2(c, i, count)
                                 : next_llama3(c, i, count, rule == BQ_WORDS_LLAMA3 ? 3 : 1);
}
