/* SPDX-License-Identifier: Apache-2.0 */
#include "simt.h"

extern "C" {
#include "mirror.h"
}

void mirror_schedule(int which) { simt::schedule = (simt::order)which; }
