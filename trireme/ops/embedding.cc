// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/embedding.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace trireme::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Positions of a list of indices, grouped by index: those of group g are positions[starts[g]] up to
// positions[starts[g + 1] - 1], ascending.
struct Groups {
  std::vector<std::int64_t> positions;
  std::vector<std::size_t> starts;
};

Groups group_by_index(const std::int64_t* indices, std::int64_t count) {
  Groups groups;
  groups.positions.resize(static_cast<std::size_t>(count));
  std::iota(groups.positions.begin(), groups.positions.end(), std::int64_t{0});
  std::stable_sort(groups.positions.begin(), groups.positions.end(),
                   [&](std::int64_t a, std::int64_t b) { return indices[a] < indices[b]; });
  for (std::size_t i = 0; i < groups.positions.size(); ++i) {
    if (i == 0 || indices[groups.positions[i]] != indices[groups.positions[i - 1]]) {
      groups.starts.push_back(i);
    }
  }
  groups.starts.push_back(groups.positions.size());
  return groups;
}

template <class Value>
void add_rows(const Groups& groups, const std::int64_t* indices, const Value* gradients,
              std::int64_t width, Value* weight_gradient) {
  using Wide = at::opmath_type<Value>;
  const auto count = static_cast<std::int64_t>(groups.starts.size()) - 1;
  at::parallel_for(0, count, 16, [&](std::int64_t begin, std::int64_t end) {
    std::vector<Wide> sum(static_cast<std::size_t>(width));
    for (auto g = static_cast<std::size_t>(begin); g < static_cast<std::size_t>(end); ++g) {
      std::fill(sum.begin(), sum.end(), Wide(0));
      for (std::size_t i = groups.starts[g]; i < groups.starts[g + 1]; ++i) {
        const Value* row = gradients + groups.positions[i] * width;
        for (std::int64_t c = 0; c < width; ++c) {
          sum[static_cast<std::size_t>(c)] += static_cast<Wide>(row[c]);
        }
      }
      Value* out = weight_gradient + indices[groups.positions[groups.starts[g]]] * width;
      for (std::int64_t c = 0; c < width; ++c) {
        out[c] = static_cast<Value>(sum[static_cast<std::size_t>(c)]);
      }
    }
  });
}

struct CpuEmbedding : torch::autograd::Function<CpuEmbedding> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& weight,
                            const at::Tensor& indices) {
    context->save_for_backward({indices});
    context->saved_data["rows"] = weight.size(0);
    return at::embedding(weight, indices);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::Tensor indices = context->get_saved_variables()[0].contiguous();
    const at::Tensor gradient = gradients[0].contiguous();
    const auto width = gradient.size(-1);
    at::Tensor weight_gradient =
        at::zeros({context->saved_data["rows"].toInt(), width}, gradient.options());
    const auto* index = indices.data_ptr<std::int64_t>();
    const Groups groups = group_by_index(index, indices.numel());
    AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, gradient.scalar_type(), "trireme::ops::embedding",
                                   [&] {
                                     add_rows(groups, index, gradient.data_ptr<scalar_t>(), width,
                                              weight_gradient.data_ptr<scalar_t>());
                                   });
    return {weight_gradient, at::Tensor()};
  }
};

}  // namespace

at::Tensor embedding(const at::Tensor& weight_VC, const at::Tensor& indices) {
  return weight_VC.is_cpu() ? CpuEmbedding::apply(weight_VC, indices)
                            : at::embedding(weight_VC, indices);
}

}  // namespace trireme::ops
