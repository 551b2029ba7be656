// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Sums over whole parameters that several ranks hold in parts. Internal to the optimizers.
//
//   ParameterSums sums(parameters, 2);
//   parts.for_each([&](const ParameterPart& part) { sums.set(part, {of_weights, of_step}); });
//   sums.exchange(group);
//   sums.of(parameter, 0);
//
// A sum is made of leaves, one for each block of the flat buffer that the parameter touches, in f64
// and in one tree; who holds the blocks does not show in its bits. What travels: 8 bytes for each
// sum and 4096 elements.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "trireme/optim/optimizer.h"
#include "trireme/optim/parameter_parts.h"

namespace trireme::optim {

class ParameterSums {
 public:
  // kinds: sums of each parameter.
  ParameterSums(const std::vector<OptimizerParameter>& parameters, std::size_t kinds);

  void clear();
  // The leaves of a part, which lies inside of one block. Different parts from any threads.
  void set(const ParameterPart& part, std::initializer_list<double> leaves);
  // All ranks' leaves are here. Collective, blocking; null: nothing to do.
  void exchange(Group* group);
  double of(std::size_t parameter, std::size_t kind) const;

 private:
  struct Leaves {
    std::int64_t first_block, begin, count;
  };

  std::size_t kinds_;
  std::vector<Leaves> leaves_;  // by parameter
  std::vector<double> sums_;    // by leaf, then by kind
};

}  // namespace trireme::optim
