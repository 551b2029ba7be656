// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a parameter is for, told by the layer that owns it: decides its initial values and whether
// it decays.
#pragma once

namespace trireme::nn {

enum class ParameterRole {
  kEmbedding,       // a row for each token, position or expert: an embedding, the head, a router
  kMatrix,          // of a linear layer
  kResidualMatrix,  // of a projection back into the residual stream
  kNormWeight,
  kBias,
};

// Weight decay applies to matrices; norms and biases are free of it.
constexpr bool decays(ParameterRole role) {
  return role != ParameterRole::kNormWeight && role != ParameterRole::kBias;
}

// What muon takes for itself: matrices that map activations to activations.
constexpr bool is_hidden_matrix(ParameterRole role) {
  return role == ParameterRole::kMatrix || role == ParameterRole::kResidualMatrix;
}

}  // namespace trireme::nn
