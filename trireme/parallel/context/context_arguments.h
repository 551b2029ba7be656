// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What every way of attention across ranks asks of its arguments.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "trireme/ops/attention.h"

namespace trireme {

class Group;

namespace detail {

// As ring_attention() says. Throws ShapeError that names the rank.
void check_context_attention(const at::Tensor& q_BTHD, const at::Tensor& k_BKTD,
                             const at::Tensor& v_BKTD, std::int64_t tokens,
                             const ops::AttentionMask& mask, const Group& cp);

}  // namespace detail
}  // namespace trireme
