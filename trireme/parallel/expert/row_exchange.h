// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Rows that leave for other ranks and rows that come from them, with a gradient that goes the other
// way.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "trireme/nn/mixture.h"

namespace trireme {

class Group;

namespace detail {

// x: rows [M, C], send_rows[j] of them for rank j, in the order of the ranks; receive_rows[i] come
// from rank i. Returns those, in that order. Gradient: x, by the same exchange the other way.
// Collective over the group, forward and backward, blocking; the group outlives the backward pass.
// Any dtype that travels; on the CPU. Throws CommError, ShapeError.
at::Tensor exchange_rows(const at::Tensor& x_MC, const std::vector<std::int64_t>& send_rows,
                         const std::vector<std::int64_t>& receive_rows, Group& group);

// nn::ExpertExchange of a layer whose experts are spread as experts_of_rank() says. Groups come by
// rank, then by expert. Collective and blocking as above.
nn::DispatchedRows dispatch_rows(const at::Tensor& rows_MC,
                                 const std::vector<std::int64_t>& rows_of_expert, Group& group);

}  // namespace detail
}  // namespace trireme
