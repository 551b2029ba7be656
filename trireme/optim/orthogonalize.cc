// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/orthogonalize.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>

#include "trireme/ops/kernels/matrix_product.h"
#include "trireme/ops/kernels/tasks.h"
#include "trireme/ops/memory/memory_ledger.h"
#include "trireme/optim/gradient_norm.h"
#include "trireme/optim/kernels.h"

namespace trireme::optim::detail {
namespace {

constexpr int kIterations = 5;
constexpr float kA = 3.4445F, kB = -4.7750F, kC = 2.0315F;
constexpr double kLeastNorm = 1e-7;
constexpr std::int64_t kGrain = 16384;

class Workspace {
 public:
  explicit Workspace(std::int64_t elements) {
    const MemoryScope scope(MemoryCategory::kWorkspace);
    values_ = at::empty({elements}, at::kFloat);
  }
  float* get() const { return values_.data_ptr<float>(); }

 private:
  at::Tensor values_;
};

ops::MatrixView matrix(const float* values, std::int64_t rows, std::int64_t columns) {
  return {values, ops::Element::kF32, rows, columns, columns, 1};
}

void product(const ops::MatrixView& left, const ops::MatrixView& right, float* out) {
  ops::matrix_product(left, right, {.out = out, .stride = right.columns});
}

// to = a x + b y.
void combine_all(float a, const float* x, float b, const float* y, std::int64_t count, float* to) {
  ops::run_ranges(count, kGrain, [&](std::int64_t begin, std::int64_t end) {
    combine(a, x + begin, b, y + begin, end - begin, to + begin);
  });
}

}  // namespace

void orthogonalize(std::int64_t rows, std::int64_t columns, float* values) {
  const std::int64_t count = rows * columns;
  if (count == 0) return;
  const double norm = global_norm(at::from_blob(values, {count}, at::kFloat));
  const auto scale = static_cast<float>(1.0 / (norm + kLeastNorm));
  combine_all(scale, values, 0.0F, values, count, values);
  // X X^T of the smaller side: of tall matrices X is the transpose.
  const bool tall = rows > columns;
  const std::int64_t m = std::min(rows, columns);
  const Workspace gram(m * m), square(m * m), next(count);
  const ops::MatrixView x = matrix(values, rows, columns);
  const ops::MatrixView s = matrix(gram.get(), m, m);
  for (int i = 0; i < kIterations; ++i) {
    // S = X X^T, P = b S + c S S, X = a X + P X.
    if (tall) {
      product(x.transposed(), x, gram.get());
    } else {
      product(x, x.transposed(), gram.get());
    }
    product(s, s, square.get());
    combine_all(kB, gram.get(), kC, square.get(), m * m, gram.get());
    if (tall) {
      product(x, s, next.get());
    } else {
      product(s, x, next.get());
    }
    combine_all(kA, values, 1.0F, next.get(), count, values);
  }
}

}  // namespace trireme::optim::detail
