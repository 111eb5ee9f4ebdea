/* SPDX-License-Identifier: Apache-2.0 */
/* num.cuh - the functions of base/ and kernels/ with the same bits everywhere, for kernels, too: one source
 * for both.  They are declared `static`, which here also says that they run on the host and on the device. */
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
#include "kernels/order.h"
#include "kernels/quadratic.h"
#include "kernels/refine.h"
#include "kernels/rounding.h"
#include "kernels/route.h"
#include "kernels/smooth.h"
#include "kernels/tuned.h"
#include "kernels/sparse.h"
#undef static

#endif
