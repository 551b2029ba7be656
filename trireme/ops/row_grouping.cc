// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ops/row_grouping.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/sort.h>

#include <algorithm>
#include <numeric>
#include <tuple>

#include "trireme/ops/kernels/row_kernels.h"

namespace trireme::ops {
namespace {

RowGrouping group_on_cpu(const at::Tensor& indices) {
  const std::int64_t count = indices.numel();
  const auto* index = indices.data_ptr<std::int64_t>();
  RowGrouping groups{at::empty({count}, indices.options()),
                     at::empty({count + 1}, indices.options()),
                     at::empty({count}, indices.options())};
  auto* order = groups.order.data_ptr<std::int64_t>();
  auto* starts = groups.starts.data_ptr<std::int64_t>();
  auto* targets = groups.targets.data_ptr<std::int64_t>();
  std::iota(order, order + count, std::int64_t{0});
  std::stable_sort(order, order + count,
                   [&](std::int64_t a, std::int64_t b) { return index[a] < index[b]; });
  std::int64_t number = 0;
  const auto none =
      std::find_if(order, order + count, [&](std::int64_t row) { return index[row] != kNoRow; });
  for (std::int64_t i = none - order; i < count; ++i) {
    if (number > 0 && targets[number - 1] == index[order[i]]) continue;
    starts[number] = i;
    targets[number++] = index[order[i]];
  }
  starts[number] = count;
  groups.starts = groups.starts.narrow(0, 0, number + 1);
  groups.targets = groups.targets.narrow(0, 0, number);
  return groups;
}

}  // namespace

RowGrouping group_by_index(const at::Tensor& indices, std::int64_t rows) {
  if (indices.is_cpu()) return group_on_cpu(indices);
  const auto [sorted, order] =
      at::sort(indices.view({-1}), /*stable=*/true, 0, /*descending=*/false);
  const at::Tensor bounds = at::arange(rows + 1, indices.options());
  return {order, at::searchsorted(sorted, bounds), bounds.narrow(0, 0, rows)};
}

RowGrouping group_by_position(const at::Tensor& indices) {
  const std::int64_t rows = indices.numel(), tokens = indices.size(-1);
  const std::int64_t repeats = tokens == 0 ? 0 : rows / tokens;
  const at::Tensor order = at::arange(rows, indices.options()).view({repeats, tokens});
  return {order.t().contiguous().view({-1}), at::arange(tokens + 1, indices.options()) * repeats,
          at::arange(tokens, indices.options())};
}

}  // namespace trireme::ops
