// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <cstdint>

#include "trireme/base/random.h"
#include "trireme/nn/layer.h"
#include "trireme/nn/parameter_memory.h"
#include "trireme/nn/transformer.h"

namespace trireme::nn {
namespace {

constexpr double kDeviation = 0.02;  // Radford et al. 2018, 4.1

// Where the elements of a part lie in the whole parameter: runs of `length`, one every `stride`.
struct Runs {
  std::int64_t length, stride, first;
};

Runs runs_of(const RoledParameter& parameter) {
  const at::IntArrayRef shape = parameter.tensor.sizes();
  const ParameterPart& part = parameter.part;
  if (part.dim < 0) return {parameter.tensor.numel(), 0, 0};
  const auto inner = c10::multiply_integers(shape.slice(static_cast<std::size_t>(part.dim) + 1));
  return {part.size * inner, part.whole * inner, part.begin * inner};
}

// Element i of the stream for element i of the whole parameter, f32, in their order.
at::Tensor normal_like(const RoledParameter& parameter, const RandomStream& stream,
                       double deviation) {
  constexpr std::int64_t kGrain = 4096;
  const Runs runs = runs_of(parameter);
  const at::Tensor values = at::empty(parameter.tensor.sizes(), at::kFloat);
  float* out = values.data_ptr<float>();
  at::parallel_for(0, values.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t element = runs.first + i / runs.length * runs.stride + i % runs.length;
      out[i] = static_cast<float>(deviation * stream.normal(static_cast<std::uint64_t>(element)));
    }
  });
  return values;
}

}  // namespace

void initialize(TransformerImpl& model, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  give_memory(model);
  const double residual_deviation =
      kDeviation / std::sqrt(2.0 * static_cast<double>(model.config().layers));
  for (const RoledParameter& parameter : parameters_with_roles(model)) {
    at::Tensor tensor = parameter.tensor;
    const RandomStream stream(seed, parameter.name);
    switch (parameter.role) {
      case ParameterRole::kEmbedding:
      case ParameterRole::kMatrix:
        tensor.copy_(normal_like(parameter, stream, kDeviation));
        break;
      case ParameterRole::kResidualMatrix:
        tensor.copy_(normal_like(parameter, stream, residual_deviation));
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
