/* num.cuh - the functions of base/ that have the same bits everywhere, for kernels, too: one source, one
 * meaning.  They are static, which here also says where they run. */
#ifndef BQ_NUM_CUH
#define BQ_NUM_CUH

#include <cuda_runtime.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

extern "C" {
#include "base/mat.h"
}

#define static static __host__ __device__
#include "base/num.h"
#include "base/power.h"
#include "base/rng.h"
#include "kernels/grid.h"
#include "kernels/quadratic.h"
#include "kernels/smooth.h"
#undef static

#endif
