/* SPDX-License-Identifier: Apache-2.0 */
#include "block/model/rope.h"

#include <math.h>

#define PI 3.14159265358979323846

/* A frequency is computed in double, and with `narrow` rounded to float32 after every operation.  Sums,
 * products and quotients of two floats that are computed in double and then rounded to float32 are those of
 * float32, since 2 * 24 + 2 <= 53 (Figueroa, 1995). */
static double keep(double x) { return x; }
static double narrow(double x) { return (double)(float)x; }
typedef double (*rounding)(double);

static double llama3(const bq_rope *r, rounding f, double freq) {
    double wavelength = f(f(2 * PI) / freq);
    if (wavelength < r->original / r->high) return freq;
    double low = f(freq / r->factor);
    if (wavelength > r->original / r->low) return low;
    double smooth = f(f(f(r->original / wavelength) - r->low) / f(r->high - r->low));
    return f(f(f(f(1 - smooth) * freq) / r->factor) + f(smooth * freq));
}

/* The (fractional) index of the frequency that turns so often in the original length. */
static double turning(const bq_rope *r, double turns) {
    return (double)r->dim * log(r->original / (turns * 2 * PI)) / (2 * log(r->theta));
}

/* Frequencies above the ramp are kept, those below it divided. */
static double yarn(const bq_rope *r, rounding f, double power, int64_t i) {
    double lo = turning(r, r->high), hi = turning(r, r->low);
    if (r->truncate) lo = floor(lo), hi = ceil(hi);
    lo = fmax(lo, 0), hi = fmin(hi, (double)(r->dim - 1));
    if (lo == hi) hi += 0.001;
    double ramp = fmin(fmax(f(f((double)i - f(lo)) / f(hi - lo)), 0), 1), kept = f(1 - ramp);
    return f(f(f(1 / f(r->factor * power)) * f(1 - kept)) + f(f(1 / power) * kept));
}

void bq_rope_frequencies(const bq_rope *rope, bq_angles compat, int64_t tokens, double *freq) {
    rounding f = compat == BQ_ANGLES_HF ? narrow : keep;
    const double *ext = tokens <= (int64_t)rope->original ? rope->short_factor : rope->long_factor;
    for (int64_t i = 0; i < rope->dim / 2; i++) {
        double power = f(pow(rope->theta, f((double)(2 * i) / (double)rope->dim)));
        if (rope->kind == BQ_ROPE_LONG) power = f(f(ext[i]) * power);
        freq[i] = f(1 / power);
        if (rope->kind == BQ_ROPE_LINEAR) freq[i] = f(freq[i] / rope->factor);
        if (rope->kind == BQ_ROPE_LLAMA3) freq[i] = llama3(rope, f, freq[i]);
        if (rope->kind == BQ_ROPE_YARN) freq[i] = yarn(rope, f, power, i);
    }
}

void bq_rope_table(const bq_rope *rope, bq_angles compat, int64_t tokens, bq_mat cos_out, bq_mat sin_out) {
    double freq[BQ_ROPE_MAX];
    bq_rope_frequencies(rope, compat, tokens, freq);
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t i = 0; i < rope->dim / 2; i++) {
            double angle = (double)t * freq[i];
            if (compat == BQ_ANGLES_HF) angle = narrow(angle);
            double c = cos(angle), s = sin(angle);
            if (compat == BQ_ANGLES_HF)
                c = narrow(c), s = narrow(s); /* rounded before the factor, as in transformers */
            *(float *)bq_mat_at(cos_out, t, i) = (float)(c * rope->attention);
            *(float *)bq_mat_at(sin_out, t, i) = (float)(s * rope->attention);
        }
}
