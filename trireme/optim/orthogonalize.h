// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The nearest matrix with orthonormal rows or columns, nearly: what Muon steps along.
#pragma once

#include <cstdint>

namespace trireme::optim::detail {

// values [rows, columns], contiguous f32, in place: U S V^T becomes about U V^T, with singular
// values between 0.7 and 1.2 of what is not much smaller than the largest. Five steps of a
// Newton-Schulz iteration of fifth order (Jordan et al. 2024, "Muon: an optimizer for hidden layers
// in neural networks") of the matrix divided by its Frobenius norm. 20 rows columns m + 10 m^2 m
// additions and multiplications, m: the smaller side. Zeros stay zeros. Memory: twice the matrix,
// three times m^2. Blocks; runs on all of ops' threads, and the bits depend on their number not.
void orthogonalize(std::int64_t rows, std::int64_t columns, float* values);

}  // namespace trireme::optim::detail
