// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// RowChunks: what is computed row by row between two exchanges, some rows at a time, so that the
// exchange of some goes on while others are computed.
//
//   x0 ->  gather | f | scatter
//   x1 ->           gather | f | scatter      f of one chunk beside an exchange of another
//
// The backward pass is the same from the other end: autograd goes through what was made last first,
// and the two ends of an exchange are nodes of their own, of which the first begins it and the
// second waits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "trireme/parallel/tensor/token_rows.h"

namespace trireme::detail {

// Not thread-safe. Differentiable, collective over the group; exchanges go on on the group's own
// thread. Throws CommError.
class RowChunks {
 public:
  // chunks: at least 1, of nearly as many rows each.
  RowChunks(std::shared_ptr<TokenRows> tokens, int chunks)
      : tokens_(std::move(tokens)), chunks_(chunks) {}

  // Of rows [n, K], one row for each.
  using Rows = std::function<at::Tensor(const at::Tensor&)>;

  // leave(f(enter(x))), as TokenRows has them: all rows of x, or this rank's -> the same of the
  // sums over ranks, in x's shape or [n, C].
  at::Tensor enter_and_leave(const at::Tensor& x, const Rows& f) const;
  // leave(f(x)): all rows of x.
  at::Tensor leave(const at::Tensor& x, const Rows& f) const;

 private:
  std::shared_ptr<TokenRows> tokens_;
  int chunks_;
};

}  // namespace trireme::detail
