/* SPDX-License-Identifier: Apache-2.0 */
#include "block/model/hadamard.h"

#include "base/die.h"

static bool is_prime(int q) {
    bool prime = q > 1;
    for (int d = 2; d * d <= q; d++) prime &= q % d != 0;
    return prime;
}

static bool is_power(int64_t n) { return n > 0 && (n & (n - 1)) == 0; }

/* The prime q that gives a Paley matrix of that order; rest: q mod 4.  0: there is none. */
static int prime_of(int order, int *rest) {
    int one = order - 1, two = order / 2 - 1;
    if (order < 4 || order % 4) return 0;
    *rest = 3;
    if (one % 4 == 3 && is_prime(one)) return one;
    *rest = 1;
    return two % 4 == 1 && is_prime(two) ? two : 0;
}

bool bq_hadamard_has(int order) {
    int rest;
    return order <= BQ_HADAMARD_ORDER && prime_of(order, &rest);
}

/* Write n as `count` orders times a power of two; smaller orders are tried first. */
static bool split(int64_t n, int count, bq_hadamard *h) {
    h->power = n;
    if (count == 0) return is_power(n);
    for (int order = 12; order <= BQ_HADAMARD_ORDER; order += 4) {
        if (n % order || is_power(order) || !bq_hadamard_has(order)) continue;
        if (!split(n / order, count - 1, h)) continue;
        h->order[count - 1] = order;
        return true;
    }
    return false;
}

bool bq_hadamard_of(int64_t n, bq_hadamard *h) {
    *h = (bq_hadamard){.n = n};
    for (int count = 0; count <= BQ_HADAMARD_FACTORS && n > 0; count++) {
        h->factors = count;
        if (split(n, count, h)) return true;
    }
    return false;
}

/* chi(x) for x = 0 ... q - 1. */
static void characters(int q, int8_t chi[BQ_HADAMARD_ORDER]) {
    for (int x = 0; x < q; x++) chi[x] = (int8_t)(x ? -1 : 0);
    for (int x = 1; x < q; x++) chi[x * x % q] = 1;
}

/* Entry (i, j) of the conference matrix of q. */
static int conference(int q, const int8_t *chi, int i, int j) {
    if (i == 0) return j > 0;
    if (j == 0) return chi[q - 1];
    return chi[(i - j + q) % q];
}

void bq_hadamard_factor(int order, int8_t *m) {
    static const int filled[2][2] = {{1, 1}, {1, -1}}, empty[2][2] = {{1, -1}, {-1, -1}};
    int8_t chi[BQ_HADAMARD_ORDER];
    int rest = 0, q = order <= BQ_HADAMARD_ORDER ? prime_of(order, &rest) : 0;
    BQ_CHECK(q, "no Paley matrix of order %d", order);
    characters(q, chi);
    for (int i = 0; i < order; i++) {
        for (int j = 0; j < order; j++) {
            int c = rest == 3 ? conference(q, chi, i, j) : conference(q, chi, i / 2, j / 2);
            if (rest == 3)
                c += i == j;
            else
                c = c ? c * filled[i % 2][j % 2] : empty[i % 2][j % 2];
            m[i * order + j] = (int8_t)c;
        }
    }
}
