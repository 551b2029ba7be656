// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a rank's shard holds of some of the parameters, for methods that look at parameters one by
// one. Internal to the optimizers.
//
//   const ParameterParts parts(shard.pieces(), parameters, kShardBlock, every);
//   parts.for_each([&](const ParameterPart& part) { ... });          // on the pool's threads
//   at::zeros({parts.elements()});                                   // state: an element for each
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "trireme/optim/moment.h"
#include "trireme/optim/optimizer.h"
#include "trireme/optim/shard.h"

namespace trireme::optim {

// Elements of one parameter, inside of one piece.
struct ParameterPart {
  std::size_t parameter = 0;  // its place in the space
  std::size_t piece = 0;
  std::int64_t begin = 0;  // in the flat buffer
  std::int64_t count = 0;
  std::int64_t in_piece = 0;
  std::int64_t in_state = 0;  // where they begin where all parts lie one after the other
};

// Constant after construction.
class ParameterParts {
 public:
  // Of the parameters that choose() takes, the parts in the pieces (in the order of the elements),
  // cut at multiples of unit of the flat buffer: the parts are the same however it is sharded,
  // where unit divides kShardBlock.
  ParameterParts(const std::vector<ShardPiece>& pieces,
                 const std::vector<OptimizerParameter>& parameters, std::int64_t unit,
                 const std::function<bool(const OptimizerParameter&)>& choose);

  const std::vector<ParameterPart>& all() const { return parts_; }
  std::int64_t elements() const { return elements_; }
  // A moment of elements() elements, as checkpoints see it.
  OptimizerState state_of(const Moment& moment) const;

  // Calls f once for each part, on the pool's threads, without denormals.
  void for_each(const std::function<void(const ParameterPart&)>& f) const;

 private:
  std::vector<ParameterPart> parts_;
  std::vector<std::string> names_;  // of all parameters that were chosen
  std::int64_t elements_ = 0;
};

}  // namespace trireme::optim
