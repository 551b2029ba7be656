// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// How large blocks pass through the network: cut into slices, several slices under way at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "trireme/comm/collective.h"

namespace trireme {

// All slices of one step together: many times what a 10 Gbit/s link holds in its latency, small
// against a last-level cache.
constexpr std::size_t kStepBytes = 4 << 20;
// Steps whose slices travel to where they are combined while an earlier one is combined.
constexpr int kStepsUnderWay = 2;

// Blocks of one vector, each with an owner. Step s is slice s of every block; the blocks that are
// shorter than others have no more slices, or shorter ones, at the end.
class Slices {
 public:
  Slices() = default;
  Slices(std::vector<Block> blocks, std::int64_t longest_slice)
      : blocks_(std::move(blocks)), longest_slice_(std::max<std::int64_t>(1, longest_slice)) {
    std::int64_t longest_block = 0;
    for (const Block& block : blocks_) longest_block = std::max(longest_block, block.count);
    steps_ = (longest_block + longest_slice_ - 1) / longest_slice_;
  }

  std::int64_t steps() const { return steps_; }
  std::int64_t longest_slice() const { return longest_slice_; }
  const Block& block(int owner) const { return blocks_[static_cast<std::size_t>(owner)]; }
  // Elements of the vector.
  Block slice(std::int64_t step, int owner) const {
    const Block& whole = block(owner);
    const std::int64_t begin = std::min(whole.count, step * longest_slice_);
    return {whole.offset + begin, std::min(longest_slice_, whole.count - begin)};
  }

 private:
  std::vector<Block> blocks_;
  std::int64_t longest_slice_ = 1;
  std::int64_t steps_ = 0;
};

// count elements in `parts` blocks side by side, as equal as their borders, multiples of 16
// elements, allow.
inline std::vector<Block> even_parts(std::int64_t count, int parts) {
  constexpr std::int64_t kBorder = 16;
  const std::int64_t size = ((count + parts - 1) / parts + kBorder - 1) / kBorder * kBorder;
  std::vector<Block> blocks;
  blocks.reserve(static_cast<std::size_t>(parts));
  for (int part = 0; part < parts; ++part) {
    const std::int64_t begin = std::min(count, part * size);
    blocks.push_back({begin, std::min(size, count - begin)});
  }
  return blocks;
}

// scatter(s) starts what brings the slices of step s to their owners; combine(s) waits for that and
// combines; gather(s) starts what brings the results on, and finish(s) waits for that. Memory of
// step s may be used again in step s + kStepsUnderWay.
template <class Scatter, class Combine, class Gather, class Finish>
void pipeline(std::int64_t steps, Scatter scatter, Combine combine, Gather gather, Finish finish) {
  constexpr std::int64_t kAhead = kStepsUnderWay - 1;
  for (std::int64_t s = 0; s < steps + kAhead + 1; ++s) {
    if (s < steps) scatter(s);
    const std::int64_t arrived = s - kAhead;
    if (arrived >= 0 && arrived < steps) {
      combine(arrived);
      gather(arrived);
    }
    if (arrived >= 1) finish(arrived - 1);
  }
}

}  // namespace trireme
