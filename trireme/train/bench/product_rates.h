// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The best rates at which this machine does the matrix products of a step: each shape by each
// engine there is, measured now. The limit that a step and its operations are held against.
//
//   const auto rates = measure_product_rates(step_products(config, batch, tokens), at::kFloat, {});
//   const double least_seconds = seconds_at_rates(rates);
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <string_view>
#include <vector>

#include "trireme/comm/bench/runner.h"
#include "trireme/train/bench/step_products.h"

namespace trireme {

// One way to multiply matrices.
struct ProductEngine {
  std::string_view name;
  // out = a b, for one matrix or a batch of them; a and b may be transposed views. See
  // ops/onednn.h.
  void (*multiply)(const at::Tensor& a, const at::Tensor& b, const at::Tensor& out);
};

// All there are; a shape's rate is the best engine's.
std::span<const ProductEngine> product_engines();

struct ProductRate {
  MatrixProduct product;
  double flops_per_s = 0;   // median of repeated runs
  std::string_view engine;  // the fastest for this shape

  double seconds() const { return product.needed_flops() / flops_per_s; }  // of all its count
};

// One for each product, in order; equal shapes are measured once. Every engine's result is compared
// with products in f64 first: throws Error where one is wrong. On this process's threads.
std::vector<ProductRate> measure_product_rates(
    const std::vector<MatrixProduct>& products, at::ScalarType dtype, const BenchTiming& timing,
    std::span<const ProductEngine> engines = product_engines());

// The time of all of them, one after the other.
double seconds_at_rates(const std::vector<ProductRate>& rates);

}  // namespace trireme
