// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// all_reduce, reduce and reduce_scatter by messages.
//
// The data is in n blocks, one for each rank to reduce: its owner. Steps of one slice per block
// pass through
//   scatter   every rank sends every other the slice that it owns, and receives its own of all
//   combine   the owner combines what it has and what it got, in the order of the tree
//   gather    all_reduce: the owner sends the result to all; reduce: to the root
// with the next step being scattered meanwhile. Small data travels with the greetings: every rank
// that wants a result combines it by itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "trireme/comm/message/message_state.h"
#include "trireme/comm/message/slices.h"
#include "trireme/comm/reduction_tree.h"

namespace trireme {

// Lives as long as the engine, for its scratch memory.
class Reduction {
 public:
  explicit Reduction(MessageState& state);

  void run(const Collective& collective, const Deadline& deadline);

 private:
  // A vector of somebody's inputs.
  struct Input {
    TreeNode node;
    int rank;
    std::size_t vector;  // of those of that rank
  };

  void plan(const Collective& collective);
  void plan_inputs();
  bool is_owner(int rank) const { return slices_.block(rank).count > 0; }
  std::size_t num_vectors(int rank) const {
    return partial_->inputs[static_cast<std::size_t>(rank)].size();
  }
  bool wants_result(int rank) const;

  void run_small(const Deadline& deadline);
  void run_slices(const Deadline& deadline);
  void scatter(Flight& flight, std::int64_t step, std::byte* incoming);
  void combine(std::int64_t step, const std::byte* incoming, std::byte* reduced);
  void gather(Flight& flight, std::int64_t step, std::byte* reduced);

  std::span<const std::byte> input(std::size_t vector, const Block& slice) const;
  std::span<std::byte> data(const Block& slice) const;
  // Where the result of a slice of this rank's block goes, as output number `output`.
  std::byte* result(std::size_t output, const Block& slice, std::byte* reduced) const;
  // Combines count elements; find(input) is where those of an input are.
  template <class Find, class Out>
  void reduce(std::int64_t count, Find find, Out out);

  MessageState& state_;
  PartialReduction whole_;  // of one vector per rank
  std::unique_ptr<Memory::Scratch> incoming_[kStepsUnderWay];
  std::unique_ptr<Memory::Scratch> reduced_[kStepsUnderWay];

  // Of the collective under way.
  const Collective* collective_ = nullptr;
  const PartialReduction* partial_ = nullptr;
  ConstBuffer in_;
  Slices slices_;
  std::vector<Input> inputs_;              // from left to right
  std::vector<std::size_t> first_vector_;  // of each rank, among those of all
  // Of each output: the first of its inputs_, and one behind the last.
  std::vector<std::pair<std::size_t, std::size_t>> of_output_;
  std::vector<TreeNode> nodes_;      // of inputs_
  std::vector<const void*> places_;  // of inputs_
};

}  // namespace trireme
