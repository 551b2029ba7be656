// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/internal/dual_pipe_v.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <deque>
#include <utility>

#include "trireme/base/check.h"
#include "trireme/plan/internal/index.h"

namespace trireme::plan {
namespace {

enum class Pass { kForward, kBackward, kBackwardInput, kOldestWeight };

// One pass of the rank's chunk 0 (on the way down the ranks) or 1 (on the way up).
struct Piece {
  Pass pass;
  int chunk;
};

struct Phase {
  int times;
  std::vector<Piece> pieces;
};

constexpr Piece kF0{Pass::kForward, 0};
constexpr Piece kF1{Pass::kForward, 1};
constexpr Piece kB0{Pass::kBackward, 0};
constexpr Piece kB1{Pass::kBackward, 1};
constexpr Piece kI0{Pass::kBackwardInput, 0};
constexpr Piece kI1{Pass::kBackwardInput, 1};
constexpr Piece kW{Pass::kOldestWeight, 0};  // of the I that has waited longest, of either chunk

// p ranks, at least 2p micro-batches. A rank far from the turn of the V starts with more forwards
// of chunk 0; one at the turn starts at once on both chunks. At the end half of the backwards leave
// their W, which fill the time that ranks far from the turn would wait.
std::vector<Phase> phases_of(int ranks, int rank, int micro_batches) {
  const int to_turn = ranks - 1 - rank;
  const int last_pairs = rank + 1;
  const int whole = last_pairs / 2;  // of the last pairs, these leave no W
  const bool odd = last_pairs % 2 != 0;
  return {
      {2 * to_turn, {kF0}},       {rank + 1, {kF0, kF1}},
      {to_turn, {kI1, kW, kF1}},  {micro_batches - ranks - to_turn, {kF0, kB1, kF1, kB0}},
      {to_turn, {kB1, kF1, kB0}}, {whole, {kB1, kB0}},
      {odd ? 1 : 0, {kB1, kI0}},  {last_pairs - whole - (odd ? 1 : 0), {kI1, kI0}},
      {to_turn, {kW, kI0}},       {last_pairs, {kW}},
  };
}

class RankWriter {
 public:
  RankWriter(int ranks, int rank, int micro_batches)
      : stages_{rank, 2 * ranks - 1 - rank}, micro_batches_(micro_batches) {}

  void write(const Piece& piece) {
    const std::size_t chunk = index(piece.chunk);
    const int stage = stages_[chunk];
    switch (piece.pass) {
      case Pass::kForward:
        return add({Action::kForward, stage, forwards_[chunk]++});
      case Pass::kBackward:
        return add({Action::kBackward, stage, backwards_[chunk]++});
      case Pass::kBackwardInput:
        weights_.push_back({Action::kBackwardWeight, stage, backwards_[chunk]});
        return add({Action::kBackwardInput, stage, backwards_[chunk]++});
      case Pass::kOldestWeight:
        TRIREME_ASSERT(!weights_.empty(), "dualpipev: a W without its I");
        add(weights_.front());
        weights_.pop_front();
    }
  }

  std::vector<Instruction> finish() {
    TRIREME_ASSERT(weights_.empty(), "dualpipev: an I without its W");
    return std::move(instructions_);
  }

 private:
  // The pattern is for more micro-batches than there may be: those that there are not are left out.
  void add(const Instruction& instruction) {
    if (instruction.micro_batch < micro_batches_) instructions_.push_back(instruction);
  }

  // Constant after construction.
  std::array<int, 2> stages_;
  int micro_batches_;

  std::array<int, 2> forwards_{};   // so far, of each chunk
  std::array<int, 2> backwards_{};  // B or I
  std::deque<Instruction> weights_;
  std::vector<Instruction> instructions_;
};

}  // namespace

std::vector<std::vector<Instruction>> dual_pipe_v(int ranks, int micro_batches) {
  std::vector<std::vector<Instruction>> of_rank;
  for (int rank = 0; rank < ranks; ++rank) {
    RankWriter writer(ranks, rank, micro_batches);
    for (const Phase& phase : phases_of(ranks, rank, std::max(micro_batches, 2 * ranks))) {
      for (int time = 0; time < phase.times; ++time) {
        for (const Piece& piece : phase.pieces) writer.write(piece);
      }
    }
    of_rank.push_back(writer.finish());
  }
  return of_rank;
}

}  // namespace trireme::plan
