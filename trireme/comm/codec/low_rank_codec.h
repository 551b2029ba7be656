// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// LowRankCodec: a buffer seen as a matrix M, sent as P and Q with M ~ P Q^T, both of a few columns.
// For the gradients of weight matrices, with error feedback. One power iteration per use: P = M Q,
// made orthonormal, then Q = M^T P; the Q of one use is where the next one starts, so that it
// follows a matrix that changes slowly. Source: Vogels et al., "PowerSGD", NeurIPS 2019.
//
// Here "components" is what is elsewhere the rank of the approximation.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "trireme/comm/codec/codec.h"

namespace trireme {

struct LowRankOptions {
  int components = 4;
  // Of the matrix; the last row may be cut short. 0: about as many as columns. The gradient of a
  // weight matrix wants the rows of that matrix.
  std::int64_t rows = 0;
  std::uint64_t seed = 0;  // of the first Q; the same on all ranks
};

struct MatrixShape {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t count = 0;  // elements, in row-major order; the last row may be shorter
};

// Ratio: count / (components x (rows + cols)). Where anything is not finite, everything decodes to
// NaN, and the next use starts from the Q of the last good one.
//
// Layout: P by columns, Q by columns, f32.
class LowRankCodec final : public Codec {
 public:
  // For buffers of count elements only. Throws ConfigError.
  explicit LowRankCodec(std::int64_t count, const LowRankOptions& options = {});

  std::string name() const override;
  // Throws ShapeError for any count but that of construction.
  std::size_t encoded_bytes(std::int64_t count) const override;
  std::int64_t granularity() const override { return 0; }
  void encode(std::span<const float> values, std::span<std::byte> encoded,
              std::span<float> lost = {}) override;
  void decode(std::span<const std::byte> encoded, std::span<float> values) const override;

  // The steps of encode() and decode(), for a sum over ranks that adds between them: P and Q are
  // linear in M. p has p_size() elements, q has q_size().
  std::size_t p_size() const;
  std::size_t q_size() const;
  void project(std::span<const float> values, std::span<float> p) const;
  void project_back(std::span<const float> values, std::span<const float> p,
                    std::span<float> q) const;
  // values = P Q^T.
  void expand(std::span<const float> p, std::span<const float> q, std::span<float> values) const;
  // rest = values less P Q^T, all 0 where P or Q is not finite; rest may be the memory of values.
  void subtract(std::span<const float> values, std::span<const float> p, std::span<const float> q,
                std::span<float> rest) const;
  // Makes the columns of P orthonormal; those that depend on the others become 0.
  void orthonormalize(std::span<float> p) const;
  // The Q from which the next use starts. Columns of 0 start anew from their first value. A Q that
  // is not finite is not taken.
  void keep(std::span<const float> q);

  // Part of a checkpoint, and the same on all ranks of a sum.
  std::span<float> start() { return start_; }

 private:
  std::size_t components() const { return static_cast<std::size_t>(options_.components); }
  void draw_column(std::size_t component);

  const LowRankOptions options_;
  const MatrixShape shape_;
  std::vector<float> start_;  // Q by columns
  std::vector<float> p_;      // scratch of encode()
  std::vector<float> q_;
};

}  // namespace trireme
