// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The bf16 copies of weights that compute, beside the f32 ones that an optimizer updates: how they
// are rounded.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "trireme/optim/optimizer_config.h"

namespace trireme::optim {

// The chances of a step's roundings, by the optimizer's number of steps.
std::uint32_t rounding_key(std::int64_t steps);

// copy, bf16 [n], becomes what an optimizer of that config has written in its step of that number,
// from 1 on, when it left these weights, f32 [n]: for who has them without the optimizer. begin:
// the first one's number in the whole buffer. On the CPU, contiguous. Throws ShapeError.
void round_weights(const OptimizerConfig& config, std::int64_t steps, std::int64_t begin,
                   const at::Tensor& weights, const at::Tensor& copy);

}  // namespace trireme::optim
