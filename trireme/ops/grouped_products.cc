// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/grouped_products.h"

#include <ATen/ops/empty.h>

#include <type_traits>
#include <vector>

#include "trireme/ops/deferred_gradients.h"
#include "trireme/ops/device_kernels.h"
#include "trireme/ops/kernels/matrix_product.h"
#include "trireme/ops/parameter_gradient.h"
#include "trireme/ops/tensor_view.h"

namespace trireme::ops::detail {
namespace {

using Kind = Epilogue::Kind;

template <class Pointer>
Pointer moved(Pointer memory, std::int64_t elements, Element element) {
  using Byte = std::conditional_t<std::is_same_v<Pointer, void*>, char, const char>;
  return memory == nullptr ? nullptr
                           : static_cast<Byte*>(memory) + elements * element_bytes(element);
}

// The epilogue of the rows from `first` on, for an expert; all its matrices lie alike.
Epilogue at_rows(Epilogue epilogue, std::int64_t first, std::int64_t expert) {
  const std::int64_t skipped = first * epilogue.stride;
  epilogue.out = moved(epilogue.out, skipped, epilogue.element);
  epilogue.second_out = moved(epilogue.second_out, skipped, epilogue.element);
  epilogue.first_in = moved(epilogue.first_in, skipped, epilogue.element);
  epilogue.second_in = moved(epilogue.second_in, skipped, epilogue.element);
  epilogue.bias = moved(epilogue.bias, expert * epilogue.stride, epilogue.element);
  return epilogue;
}

// A group and its first row.
struct GroupPlace {
  std::int64_t expert, first, rows;
};

// weight [E, M, K] of which each group's left rows are multiplied by an expert's matrix, transposed
// or not, through an epilogue that is of all rows.
void multiply_groups(const at::Tensor& left, const at::Tensor& weight, bool transposed,
                     const RowsByExpert& groups, const Epilogue& epilogue) {
  std::vector<Product> products;
  for_each_group(groups, [&](std::int64_t expert, std::int64_t first, std::int64_t rows) {
    const MatrixView matrix = view_of(weight.select(0, expert));
    products.push_back({view_of(left.narrow(0, first, rows)),
                        transposed ? matrix.transposed() : matrix,
                        at_rows(epilogue, first, expert)});
  });
  matrix_products(products);
}

// The groups with rows in rounds, none of which has an expert twice: the first of each expert, the
// second, and so on.
std::vector<std::vector<GroupPlace>> rounds_of(const RowsByExpert& groups, std::int64_t experts) {
  std::vector<std::size_t> seen(static_cast<std::size_t>(experts), 0);
  std::vector<std::vector<GroupPlace>> rounds;
  for_each_group(groups, [&](std::int64_t expert, std::int64_t first, std::int64_t rows) {
    const std::size_t round = seen[static_cast<std::size_t>(expert)]++;
    if (round == rounds.size()) rounds.emplace_back();
    rounds[round].push_back({expert, first, rows});
  });
  return rounds;
}

// The same into a matrix of its own, which this makes.
at::Tensor product(const at::Tensor& left, const at::Tensor& weight, bool transposed,
                   const RowsByExpert& groups, Epilogue epilogue) {
  at::Tensor out = rows_like(left, weight.size(transposed ? 1 : 2));
  epilogue.out = out.data_ptr();
  epilogue.element = element_of(out);
  epilogue.stride = out.size(1);
  multiply_groups(left, weight, transposed, groups, epilogue);
  return out;
}

}  // namespace

at::Tensor rows_like(const at::Tensor& rows, std::int64_t columns) {
  return at::empty({rows.size(0), columns}, rows.options().requires_grad(false));
}

at::Tensor grouped_times_transposed(const at::Tensor& left, const at::Tensor& weight,
                                    const RowsByExpert& groups, const Epilogue& epilogue) {
  return product(left, weight, true, groups, epilogue);
}

at::Tensor grouped_times(const at::Tensor& left, const at::Tensor& weight,
                         const RowsByExpert& groups, const Epilogue& epilogue) {
  return product(left, weight, false, groups, epilogue);
}

void add_grouped_product(const at::Tensor& left, const at::Tensor& weight,
                         const RowsByExpert& groups, at::Tensor& out) {
  if (out.scalar_type() != at::kFloat) {
    out.add_(grouped_times(left, weight, groups, {}));
    return;
  }
  multiply_groups(
      left, weight, false, groups,
      {.kind = Kind::kAdd, .out = out.data_ptr(), .element = Element::kF32, .stride = out.size(1)});
}

Epilogue epilogue_with_bias(const at::Tensor& bias) {
  return {.bias = bias.defined() ? bias.data_ptr() : nullptr};
}

at::Tensor grouped_matrix_gradient(const at::Tensor& weight, const at::Tensor& y_grad,
                                   const at::Tensor& x, const RowsByExpert& groups) {
  return now_or_later(weight, {y_grad, x}, [weight, y_grad, x, groups] {
    return grouped_matrix_gradient_now(weight, y_grad, x, groups);
  });
}

at::Tensor grouped_matrix_gradient_now(const at::Tensor& weight, const at::Tensor& y_grad,
                                       const at::Tensor& x, const RowsByExpert& groups) {
  GradientSum sum(weight);
  const std::int64_t elements = weight.size(1) * weight.size(2);
  for (const auto& round : rounds_of(groups, weight.size(0))) {
    std::vector<Product> products;
    for (const auto& [expert, first, rows] : round) {
      products.push_back({view_of(y_grad.narrow(0, first, rows)).transposed(),
                          view_of(x.narrow(0, first, rows)),
                          {.kind = Kind::kAdd,
                           .out = sum.data() + expert * elements,
                           .element = Element::kF32,
                           .stride = weight.size(2)}});
    }
    matrix_products(products);
  }
  return sum.finish();
}

at::Tensor grouped_bias_gradient(const at::Tensor& bias, const at::Tensor& y_grad,
                                 const RowsByExpert& groups) {
  if (!bias.defined()) return {};
  return now_or_later(bias, {y_grad}, [bias, y_grad, groups] {
    GradientSum sum(bias);
    for_each_group(groups, [&](std::int64_t expert, std::int64_t first, std::int64_t rows) {
      add_column_sums(bias.device(), view_of(y_grad.narrow(0, first, rows)),
                      sum.data() + expert * bias.size(1));
    });
    return sum.finish();
  });
}

}  // namespace trireme::ops::detail
