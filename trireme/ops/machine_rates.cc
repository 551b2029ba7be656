// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/machine_rates.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/ops/kernels/matrix_product.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/ops/onednn.h"
#include "trireme/ops/tensor_view.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;

// Rows x inner dim x columns of a product of a transformer layer. transposed: the right matrix is
// stored as a linear layer's weight is, else by rows.
struct Shape {
  std::int64_t m, k, n;
  bool transposed;
};
// The MLP's, forward and backward, then attention's projections, then a wider layer: those that
// reach the best rate come first, for there may be no time for all.
constexpr Shape kShapes[] = {{1024, 768, 3072, true},  {1024, 3072, 768, false},
                             {1024, 3072, 768, true},  {1024, 768, 3072, false},
                             {1024, 768, 768, true},   {1024, 768, 768, false},
                             {2048, 1024, 4096, true}, {2048, 1024, 4096, false}};

// Small whole numbers, so that every product is exact in both dtypes; distinct along rows and
// columns.
float left_value(std::int64_t row, std::int64_t inner) {
  return static_cast<float>((row * 3 + inner * 5) % 7 - 3);
}
float right_value(std::int64_t inner, std::int64_t column) {
  return static_cast<float>((inner * 2 + column * 3) % 5 - 2);
}

at::Tensor filled(std::int64_t rows, std::int64_t columns,
                  float (*value)(std::int64_t, std::int64_t)) {
  at::Tensor matrix = at::empty({rows, columns}, at::kFloat);
  float* out = matrix.data_ptr<float>();
  at::parallel_for(0, rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      for (std::int64_t c = 0; c < columns; ++c) {
        out[r * columns + c] = value(r, c);
      }
    }
  });
  return matrix;
}

// A rate of wrong results is worth nothing: compares a scattering of elements.
void verify(const Shape& shape, const at::Tensor& product) {
  constexpr std::int64_t kSamples = 61;
  for (std::int64_t sample = 0; sample < kSamples; ++sample) {
    const std::int64_t row = sample * 7919 % shape.m, column = sample * 104729 % shape.n;
    float expected = 0.0F;
    for (std::int64_t i = 0; i < shape.k; ++i) {
      expected += left_value(row, i) * right_value(i, column);
    }
    const at::Tensor rounded = at::full({}, expected, product.options());
    TRIREME_ASSERT(product[row][column].equal(rounded),
                   "a product of {} x {} x {} is {} at ({}, {}), not {}", shape.m, shape.k, shape.n,
                   product[row][column].item<float>(), row, column, expected);
  }
}

// Best rate of one product.
double best_rate(const Shape& shape, at::ScalarType dtype, std::chrono::milliseconds budget) {
  const at::Tensor a = filled(shape.m, shape.k, left_value).to(dtype);
  at::Tensor b = filled(shape.k, shape.n, right_value).to(dtype);
  b = shape.transposed ? b.t().contiguous().t() : b;
  const at::Tensor c = at::empty({shape.m, shape.n}, a.options());
  const auto by_onednn = [&] { ops::multiply(a, b, {}, c); };
  const auto by_ours = [&] {
    ops::matrix_product(ops::view_of(a), ops::view_of(b),
                        {.out = c.data_ptr(), .element = ops::element_of(c), .stride = shape.n});
  };
  const double flops = 2.0 * static_cast<double>(shape.m) * static_cast<double>(shape.k) *
                       static_cast<double>(shape.n);
  double best = 0.0;
  const auto measure = [&](const auto& product) {
    product();
    verify(shape, c);
    const auto end = Clock::now() + budget / 2;
    do {
      const auto start = Clock::now();
      product();
      const std::chrono::duration<double> seconds = Clock::now() - start;
      best = std::max(best, flops / seconds.count());
    } while (Clock::now() < end);
  };
  measure(by_onednn);
  measure(by_ours);
  return best;
}

// Elements of each of two f32 arrays: together three times the last cache where memory allows, and
// an eighth of the free memory at most.
std::int64_t stream_elements() {
  constexpr std::int64_t kLeastBytes = std::int64_t{64} << 20;
  const std::int64_t cache_bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
  const std::int64_t free_bytes =
      std::int64_t{sysconf(_SC_AVPHYS_PAGES)} * std::int64_t{sysconf(_SC_PAGESIZE)};
  const std::int64_t wanted = std::max(kLeastBytes, cache_bytes / 2 * 3);
  return std::min(wanted, std::max(kLeastBytes / 4, free_bytes / 16)) / 4;
}

}  // namespace

double measure_gemm_flops_per_s(at::ScalarType dtype, std::chrono::milliseconds budget) {
  if (dtype != at::kFloat && dtype != at::kBFloat16) {
    throw_error<ShapeError>("matrix products are measured in f32 or bf16, not in {}",
                            c10::toString(dtype));
  }
  const MemoryScope scope(MemoryCategory::kWorkspace);
  try {
    double best = 0.0;
    const auto end = Clock::now() + budget;
    for (const Shape& shape : kShapes) {
      best = std::max(best, best_rate(shape, dtype, budget / std::size(kShapes)));
      if (Clock::now() >= end) break;
    }
    return best;
  } catch (const dnnl::error& error) {
    throw_error<Error>("oneDNN cannot multiply matrices of {} on this processor: {}",
                       c10::toString(dtype), error.what());
  }
}

double measure_memory_bytes_per_s(std::chrono::milliseconds budget) {
  const std::int64_t count = stream_elements();
  const auto size = static_cast<std::size_t>(count);
  // Not initialised here: each page belongs to the thread that first writes it.
  const std::unique_ptr<float[]> a(new float[size]), b(new float[size]);
  const auto for_all = [&](const auto& body) {
    at::parallel_for(0, count, count / at::get_num_threads() + 1, body);
  };
  for_all([&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      a[static_cast<std::size_t>(i)] = static_cast<float>(i % 1024);
      b[static_cast<std::size_t>(i)] = 1.0F;
    }
  });
  double best = 0.0;
  int passes = 0;  // the sums stay exact for 2^24 - 1024 of them
  const auto finish = Clock::now() + budget;
  do {
    const auto start = Clock::now();
    for_all([&](std::int64_t begin, std::int64_t end) {
      float* __restrict sum = a.get();
      const float* __restrict summand = b.get();
      for (std::int64_t i = begin; i < end; ++i) {
        sum[i] += summand[i];
      }
    });
    const std::chrono::duration<double> seconds = Clock::now() - start;
    best = std::max(best, 3.0 * sizeof(float) * static_cast<double>(count) / seconds.count());
    ++passes;
  } while (Clock::now() < finish);
  TRIREME_CHECK_EQ(a[size - 1], static_cast<float>((count - 1) % 1024 + passes),
                   "the stream's sums");
  return best;
}

}  // namespace trireme
