// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/train/bench/product_rates.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "trireme/base/error.h"
#include "trireme/ops/kernels/matrix_product.h"
#include "trireme/ops/onednn.h"
#include "trireme/ops/tensor_view.h"
#include "trireme/train/bench/timing.h"

namespace trireme {
namespace {

// Ours, pair by pair.
void multiply_by_ours(const at::Tensor& a, const at::Tensor& b, const at::Tensor& out) {
  const std::int64_t pairs = a.dim() == 2 ? 1 : a.size(0);
  for (std::int64_t i = 0; i < pairs; ++i) {
    const auto one = [&](const at::Tensor& t) { return t.dim() == 2 ? t : t.select(0, i); };
    const at::Tensor to = one(out);
    ops::matrix_product(
        ops::view_of(one(a)), ops::view_of(one(b)),
        {.out = to.data_ptr(), .element = ops::element_of(to), .stride = to.size(1)});
  }
}

constexpr ProductEngine kEngines[] = {
    {"trireme", multiply_by_ours},
    {"oneDNN", [](const at::Tensor& a, const at::Tensor& b,
                  const at::Tensor& out) { ops::multiply(a, b, {}, out); }},
};

struct Operands {
  at::Tensor a, b, out;
};

// [batch, rows, columns], or [rows, columns] without a batch; a transposed one is a view.
at::Tensor matrices(std::int64_t batch, std::int64_t rows, std::int64_t columns, bool transposed,
                    at::ScalarType dtype) {
  const at::Tensor stored =
      at::empty({batch, transposed ? columns : rows, transposed ? rows : columns}, at::kFloat)
          .uniform_(-1.0, 1.0)
          .to(dtype);
  const at::Tensor view = transposed ? stored.transpose(1, 2) : stored;
  return batch == 1 ? view.squeeze(0) : view;
}

Operands operands(const MatrixProduct& p, at::ScalarType dtype) {
  const at::Tensor a = matrices(p.batch, p.m, p.k, p.a_transposed, dtype);
  const at::Tensor b = matrices(p.batch, p.k, p.n, p.b_transposed, dtype);
  const at::Tensor out = p.batch == 1 ? at::empty({p.m, p.n}, a.options())
                                      : at::empty({p.batch, p.m, p.n}, a.options());
  return {a, b, out};
}

// A rate of wrong results is worth nothing: a scattering of elements against f64. The error of a
// sum in f32 and of rounding its end is below this share of the sum of its terms' sizes.
void verify(const MatrixProduct& p, const Operands& all, std::string_view engine) {
  constexpr std::int64_t kSamples = 13;
  const double tolerance = all.out.scalar_type() == at::kBFloat16 ? 0x1p-8 : 1e-5;
  for (std::int64_t sample = 0; sample < kSamples; ++sample) {
    const std::int64_t pair = sample * 31 % p.batch;
    const std::int64_t row = sample * 7919 % p.m, column = sample * 104729 % p.n;
    const auto one = [&](const at::Tensor& t) { return p.batch == 1 ? t : t.select(0, pair); };
    const at::Tensor terms =
        one(all.a).select(0, row).to(at::kDouble) * one(all.b).select(1, column).to(at::kDouble);
    const double expected = terms.sum().item<double>(), size = terms.abs().sum().item<double>();
    const double got = one(all.out).select(0, row).select(0, column).item<double>();
    if (!(std::abs(got - expected) <= tolerance * size)) {
      throw_error<Error>("{} multiplies {} wrongly: {} at ({}, {}) where {} is right", engine,
                         p.shape(), got, row, column, expected);
    }
  }
}

ProductRate measure(const MatrixProduct& product, at::ScalarType dtype, const BenchTiming& timing,
                    std::span<const ProductEngine> engines) {
  const Operands all = operands(product, dtype);
  ProductRate best{.product = product, .flops_per_s = 0, .engine = {}};
  for (const ProductEngine& engine : engines) {
    const auto run = [&] { engine.multiply(all.a, all.b, all.out); };
    run();
    verify(product, all, engine.name);
    const double rate = product.flops() / spread_of(time_runs(run, timing)).median;
    if (rate > best.flops_per_s) {
      best.flops_per_s = rate;
      best.engine = engine.name;
    }
  }
  return best;
}

}  // namespace

std::span<const ProductEngine> product_engines() { return kEngines; }

std::vector<ProductRate> measure_product_rates(const std::vector<MatrixProduct>& products,
                                               at::ScalarType dtype, const BenchTiming& timing,
                                               std::span<const ProductEngine> engines) {
  const at::NoGradGuard no_grad;
  std::vector<ProductRate> rates;
  for (const MatrixProduct& product : products) {
    const auto same = std::find_if(rates.begin(), rates.end(), [&](const ProductRate& rate) {
      return rate.product.shape() == product.shape();
    });
    rates.push_back(same == rates.end() ? measure(product, dtype, timing, engines) : *same);
    rates.back().product = product;
  }
  return rates;
}

double seconds_at_rates(const std::vector<ProductRate>& rates) {
  double seconds = 0;
  for (const ProductRate& rate : rates) seconds += rate.seconds();
  return seconds;
}

}  // namespace trireme
