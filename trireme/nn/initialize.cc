// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <cmath>

#include "trireme/base/random.h"
#include "trireme/nn/parameter_role.h"
#include "trireme/nn/transformer.h"

namespace trireme::nn {
namespace {

constexpr double kDeviation = 0.02;  // Radford et al. 2018, 4.1

// Element i of the stream, f32, in the parameter's order of elements.
at::Tensor normal_like(const at::Tensor& parameter, const RandomStream& stream, double deviation) {
  constexpr std::int64_t kGrain = 4096;
  const at::Tensor values = at::empty(parameter.sizes(), at::kFloat);
  float* out = values.data_ptr<float>();
  at::parallel_for(0, values.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      out[i] = static_cast<float>(deviation * stream.normal(static_cast<std::uint64_t>(i)));
    }
  });
  return values;
}

}  // namespace

void initialize(TransformerImpl& model, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  const double residual_deviation =
      kDeviation / std::sqrt(2.0 * static_cast<double>(model.config().layers));
  for (auto& [name, tensor, role] : parameters_with_roles(model)) {
    switch (role) {
      case ParameterRole::kEmbedding:
      case ParameterRole::kMatrix:
        tensor.copy_(normal_like(tensor, RandomStream(seed, name), kDeviation));
        break;
      case ParameterRole::kResidualMatrix:
        tensor.copy_(normal_like(tensor, RandomStream(seed, name), residual_deviation));
        break;
      case ParameterRole::kNormWeight:
        tensor.fill_(1.0);
        break;
      case ParameterRole::kBias:
        tensor.fill_(0.0);
        break;
    }
  }
}

}  // namespace trireme::nn
