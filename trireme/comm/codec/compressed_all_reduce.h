// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// CompressedAllReduce: the sum or mean over ranks of an f32 buffer that travels encoded. One object
// per buffer and for the whole run, because of what it remembers from step to step.
//
//   const auto exchange = make_compressed_all_reduce(*group, count, {.codec = Int8Compression{}});
//   for (...) {
//     ...
//     exchange->all_reduce(gradients, ReduceOp::kMean);  // nearly group->all_reduce(...)
//   }
//
// All ranks get the same bits, and these depend neither on the engine nor on the machine: what is
// decoded is added in the tree of reduction_tree.h. A world of one encodes and decodes, too, so
// that what compression costs in quality can be seen on one rank.
//
// With error feedback nothing is lost for good: what one exchange leaves out is added to the next.
// The rest that a rank owes is state(), which belongs to the checkpoint.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "trireme/comm/codec/codec.h"
#include "trireme/comm/codec/low_rank_codec.h"
#include "trireme/comm/codec/top_k_codec.h"
#include "trireme/comm/group.h"

namespace trireme {

struct Bf16Compression {};
struct Int8Compression {};
using TopKCompression = TopKOptions;
using LowRankCompression = LowRankOptions;

struct CompressionOptions {
  std::variant<Bf16Compression, Int8Compression, TopKCompression, LowRankCompression> codec;
  bool error_feedback = true;
};

struct CompressionState {
  // "residual": what this rank owes of its own values. "combined_residual": of the sums that this
  // rank sent to the others (bf16, int8). "start": where the next lowrank starts, the same on all
  // ranks.
  std::string_view name;
  std::span<float> values;
};

class CompressedAllReduce {
 public:
  virtual ~CompressedAllReduce() = default;

  // values becomes the kSum or kMean over the ranks of the group. Collective, in the order of the
  // group's operations, as if it were several of them. Blocking. Values that are not finite give
  // values that are not finite on all ranks, and no residual takes them in.
  //
  // Cost for n ranks and an encoding of E bytes: bf16, int8: 2 (n - 1) / n E in two exchanges.
  // topk: (n - 1) E in one. lowrank: an all_reduce of P and one of Q, which together are E.
  //
  // Errors: ShapeError when values are not as many as this was made for; those of the group, after
  // which this object, like the group, is of no more use.
  virtual void all_reduce(std::span<float> values, ReduceOp op = ReduceOp::kSum) = 0;

  virtual const Codec& codec() const = 0;
  // To be saved with a checkpoint and written back into an object made alike, on a group of the
  // same size. Empty where nothing is remembered.
  virtual std::vector<CompressionState> state() = 0;
};

// Moves no bytes. The group must outlive the object. All ranks give the same count and options.
// Throws ConfigError.
std::unique_ptr<CompressedAllReduce> make_compressed_all_reduce(Group& group, std::int64_t count,
                                                                const CompressionOptions& options);

}  // namespace trireme
