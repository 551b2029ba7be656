// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// WholeMatrices: brings matrices that are cut among the ranks together, each on one rank, and what
// is computed of them back. Internal to the optimizers.
//
//   const WholeMatrices whole(space, matrices);   // numbers of parameters, ascending
//   std::vector<float> mine(whole.elements());    // this rank's part of all of them, in their
//   order whole.bring(mine, group); for (const Matrix& matrix : whole.owned()) f(matrix);
//   whole.give_back(mine, group);
//
// Each matrix has an owner: the largest first, each to the rank that has least so far. A rank sends
// what it holds of the matrices of others, and receives the rest of its own: of N ranks
// (N-1)/N of the elements in all, each way. Without a group, or alone, nothing is copied.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "trireme/optim/optimizer.h"

namespace trireme::optim {

struct Matrix {
  std::size_t parameter = 0;  // its place in the space
  std::int64_t rows = 0;
  std::int64_t columns = 0;  // all dims but the first
  float* values = nullptr;   // [rows, columns], contiguous
};

class WholeMatrices {
 public:
  // Throws ShapeError for a parameter of less than two dims.
  WholeMatrices(const OptimizerSpace& space, std::vector<std::size_t> matrices);

  // Of this rank's shard.
  std::int64_t elements() const { return elements_; }
  // The matrices that this rank owns, whole. mine: [elements()]. Collective, blocking. The matrices
  // stay until give_back() or release().
  std::vector<Matrix> bring(float* mine);
  // mine becomes this rank's part of what the owners have in their matrices now, which are gone
  // after. Collective, blocking.
  void give_back(float* mine);
  // Frees the matrices instead.
  void release() { owned_.reset(); }

 private:
  // Elements side by side of one matrix, that one rank holds.
  struct Run {
    std::size_t matrix = 0;
    std::int64_t in_matrix = 0;
    std::int64_t in_mine = 0;  // of the rank that holds them
    std::int64_t count = 0;
  };

  std::vector<Run> runs_of(const OptimizerSpace& space,
                           const std::vector<ShardPiece>& pieces) const;
  void deal(const OptimizerSpace& space);
  bool alone() const { return group_ == nullptr; }

  Group* group_;
  std::vector<std::size_t> matrices_;  // numbers of parameters
  std::vector<Matrix> shapes_;         // by matrix, without values
  std::vector<int> owners_;            // by matrix
  std::vector<std::int64_t> place_;    // by matrix: in its owner's buffer
  std::vector<Run> sent_;              // by owner, then by matrix: what this rank holds
  std::vector<std::int64_t> send_counts_;
  std::vector<Run> received_;  // by holder, then by matrix: what this rank owns
  std::vector<std::int64_t> receive_counts_;
  std::int64_t elements_ = 0;
  std::int64_t owned_elements_ = 0;
  at::Tensor owned_;  // f32 [owned_elements_], between bring() and give_back()
};

}  // namespace trireme::optim
