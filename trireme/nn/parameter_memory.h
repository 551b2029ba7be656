// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Layers whose parameters have shapes before they have memory: a model of which a rank will keep a
// part can be built where it does not fit.
//
//   const auto model = [&] {
//     const nn::ParametersWithoutMemory later;
//     return nn::Transformer(config);
//   }();
//   const auto cut = parallelize(*model, tp, plan);  // keeps parts, gives them memory
//   nn::initialize(*model, seed);                    // gives it to what is whole
#pragma once

#include <ATen/core/Tensor.h>

namespace torch::nn {
class Module;
}

namespace trireme::nn {

// Applies to layers of nn/ that this thread builds while it lives. May nest.
class ParametersWithoutMemory {
 public:
  ParametersWithoutMemory();
  ~ParametersWithoutMemory();
  ParametersWithoutMemory(const ParametersWithoutMemory&) = delete;
  ParametersWithoutMemory& operator=(const ParametersWithoutMemory&) = delete;

 private:
  const bool before_;
};

// Uninitialised f32 on the CPU, or, while a ParametersWithoutMemory lives, a tensor of that shape
// all of whose elements lie in the same place. What a layer registers.
at::Tensor new_parameter(at::IntArrayRef shape);

// Whether the tensor's elements have each their own place.
bool has_memory(const at::Tensor& parameter);

// Uninitialised memory for all parameters that have none; nothing happens to others.
void give_memory(torch::nn::Module& module);

}  // namespace trireme::nn
