// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/nn/dropout.h"

#include "trireme/base/error.h"
#include "trireme/ops/dropout.h"

namespace trireme::nn {

at::Tensor DropoutImpl::forward(const at::Tensor& x, const DropoutRows& rows, std::uint32_t place) {
  if (!rows.rows_BT.defined() || rows.config.share == 0) return x;
  return ops::dropout(x, {.share = rows.config.share,
                          .seed = rows.config.seed,
                          .place = place,
                          .rows_N = rows_hook_ ? rows_hook_(rows.rows_BT) : rows.rows_BT});
}

ParameterRole DropoutImpl::role(const std::string& parameter) const {
  throw_error<ShapeError>("dropout has no parameter {}", parameter);
}

}  // namespace trireme::nn
