/* SPDX-License-Identifier: Apache-2.0 */
/* products.h - scratch of products that are not computed in f32. */
#ifndef BQ_PRODUCTS_H
#define BQ_PRODUCTS_H

#include "block/model/quantized.h"
#include "driver/recipe/recipe.h"

/* Device bytes, the most that one product takes: of the reference alone; of all phases, too. */
size_t bq_products_reference(const bq_recipe *r, const bq_layouts *layouts);
size_t bq_products_need(const bq_recipe *r, const bq_layouts *layouts);

#endif
