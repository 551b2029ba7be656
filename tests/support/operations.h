// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Operations of Group as data, and what they do to plain vectors: the model that every engine is
// held to, by tables of operations and by random ones.
//
//   Operation operation{Kind::kAllReduce};
//   operation.counts = {517};
//   const Case scene = model(operation, 3);  // memory of 3 ranks before and after
//
// run_operation.h runs them on a group.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/reference_tree.h"
#include "trireme/base/dtype.h"
#include "trireme/comm/group.h"

namespace trireme::testing {

constexpr DType kDTypes[] = {DType::kF32, DType::kF64, DType::kBF16, DType::kF16,
                             DType::kI8,  DType::kU8,  DType::kI32,  DType::kI64};
constexpr ReduceOp kReduceOps[] = {ReduceOp::kSum, ReduceOp::kMean, ReduceOp::kMin, ReduceOp::kMax,
                                   ReduceOp::kProduct};

inline bool is_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF64 || dtype == DType::kBF16 ||
         dtype == DType::kF16;
}
inline bool is_defined(ReduceOp op, DType dtype) {
  return op != ReduceOp::kMean || is_float(dtype);
}

enum class Kind : std::uint8_t {
  kAllReduce,
  kAllReduceMany,
  kReduceScatter,
  kAllGather,
  kBroadcast,
  kBroadcastMany,
  kReduce,
  kGather,
  kScatter,
  kAllToAll,
  kShift,  // send_recv with the neighbour at distance root
  kMessages,
  kBarrier,
};
constexpr int kNumKinds = 13;

inline std::string_view kind_name(Kind kind) {
  constexpr std::string_view kNames[kNumKinds] = {
      "all_reduce", "all_reduce of many", "reduce_scatter", "all_gather",
      "broadcast",  "broadcast of many",  "reduce",         "gather",
      "scatter",    "all_to_all",         "send_recv",      "messages",
      "barrier"};
  return kNames[static_cast<std::size_t>(kind)];
}

struct MessagePlan {
  int from = 0;
  int to = 0;
  int tag = 0;
  std::int64_t count = 0;
};

struct Operation {
  Kind kind = Kind::kBarrier;
  DType dtype = DType::kF32;
  ReduceOp op = ReduceOp::kSum;
  int root = 0;
  // Elements: of the data; of each buffer, for many; of each rank's block; of what the rank sends,
  // for a shift; of what rank i sends to rank j at i n + j, for all_to_all.
  std::vector<std::int64_t> counts;
  bool even = false;      // counts are equal and not given to the call
  bool in_place = false;  // reduce_scatter and all_gather
  bool work = false;      // as Work; messages: all under way at once, received from the last tag on
  std::uint32_t shared = 0;  // bit r: rank r has its memory from allocate_shared()
  int number = 0;            // its data is its own
  std::vector<MessagePlan> messages;
};

inline std::string describe(const Operation& operation) {
  std::string text = std::string(kind_name(operation.kind)) + " of " +
                     std::string(dtype_name(operation.dtype)) + ", op " +
                     std::to_string(static_cast<int>(operation.op)) + ", root " +
                     std::to_string(operation.root) + ", counts";
  for (const std::int64_t count : operation.counts) text += " " + std::to_string(count);
  for (const MessagePlan& message : operation.messages) {
    text += " " + std::to_string(message.from) + ">" + std::to_string(message.to) + "#" +
            std::to_string(message.tag) + ":" + std::to_string(message.count);
  }
  if (operation.even) text += ", even";
  if (operation.in_place) text += ", in place";
  if (operation.work) text += ", as Work";
  return text + ", shared " + std::to_string(operation.shared) + ", number " +
         std::to_string(operation.number);
}

// Memory of one rank that the operation uses. What works in place has no input.
struct Image {
  Bytes input;
  Bytes output;
};

struct Case {
  Operation operation;
  std::vector<Image> before;  // by rank
  std::vector<Image> after;
};

inline std::int64_t sum_of(const std::vector<std::int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

// Bytes of counts[first, last).
inline std::size_t extent(const Operation& operation, std::size_t first, std::size_t last) {
  std::int64_t count = 0;
  for (std::size_t i = first; i < last; ++i) count += operation.counts[i];
  return static_cast<std::size_t>(count) * dtype_bytes(operation.dtype);
}

inline Bytes part_of(const Bytes& bytes, std::size_t offset, std::size_t size) {
  const auto first = bytes.begin() + static_cast<std::ptrdiff_t>(offset);
  return {first, first + static_cast<std::ptrdiff_t>(size)};
}
inline void put_at(Bytes& bytes, std::size_t offset, const Bytes& part) {
  std::copy(part.begin(), part.end(), bytes.begin() + static_cast<std::ptrdiff_t>(offset));
}
inline Bytes untouched(std::size_t size) { return Bytes(size, std::byte{0xee}); }

namespace detail {

inline Bytes data_of(const Operation& operation, int rank, std::int64_t count) {
  return distinct_data(operation.number * 37 + rank, count, operation.dtype);
}

// Operations on data in place, all of one size.
inline void model_in_place(Case& scene, int n) {
  const Operation& operation = scene.operation;
  std::vector<Bytes> inputs;
  for (int rank = 0; rank < n; ++rank) {
    inputs.push_back(data_of(operation, rank, sum_of(operation.counts)));
    scene.before[static_cast<std::size_t>(rank)].output = inputs.back();
  }
  scene.after = scene.before;
  const auto root = static_cast<std::size_t>(operation.root);
  const bool moves = operation.kind == Kind::kBroadcast || operation.kind == Kind::kBroadcastMany;
  const Bytes result =
      moves ? inputs[root] : reference_reduce(inputs, operation.dtype, operation.op);
  if (operation.kind == Kind::kReduce) {
    scene.after[root].output = result;
    return;
  }
  for (Image& image : scene.after) image.output = result;
}

inline void model_reduce_scatter(Case& scene, int n) {
  const Operation& operation = scene.operation;
  std::vector<Bytes> inputs;
  inputs.reserve(static_cast<std::size_t>(n));
  for (int rank = 0; rank < n; ++rank) {
    inputs.push_back(data_of(operation, rank, sum_of(operation.counts)));
  }
  const Bytes result = reference_reduce(inputs, operation.dtype, operation.op);
  for (std::size_t rank = 0; rank < inputs.size(); ++rank) {
    const std::size_t offset = extent(operation, 0, rank);
    const Bytes block = part_of(result, offset, extent(operation, rank, rank + 1));
    Image& before = scene.before[rank];
    if (operation.in_place) {
      before.output = inputs[rank];
      scene.after[rank] = before;
      put_at(scene.after[rank].output, offset, block);
    } else {
      before = {inputs[rank], untouched(block.size())};
      scene.after[rank] = {inputs[rank], block};
    }
  }
}

// Blocks to and from a whole.
inline void model_moves(Case& scene, int n) {
  const Operation& operation = scene.operation;
  const auto ranks = static_cast<std::size_t>(n);
  const Bytes whole = data_of(operation, n, sum_of(operation.counts));
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    const bool is_root = static_cast<int>(rank) == operation.root;
    const std::size_t offset = extent(operation, 0, rank);
    const Bytes block = part_of(whole, offset, extent(operation, rank, rank + 1));
    Image& before = scene.before[rank];
    if (operation.kind == Kind::kScatter) {
      before = {is_root ? whole : untouched(whole.size()), untouched(block.size())};
      scene.after[rank] = {before.input, block};
    } else {
      const bool gets = operation.kind == Kind::kAllGather || is_root;
      before = {operation.in_place ? Bytes() : block, untouched(whole.size())};
      if (operation.in_place) put_at(before.output, offset, block);
      scene.after[rank] = {before.input, gets ? whole : before.output};
    }
  }
}

inline void model_all_to_all(Case& scene, int n) {
  const Operation& operation = scene.operation;
  std::size_t pair = 0;
  for (int from = 0; from < n; ++from) {
    for (int to = 0; to < n; ++to, ++pair) {
      const Bytes block = data_of(operation, from * n + to, operation.counts[pair]);
      Bytes& input = scene.before[static_cast<std::size_t>(from)].input;
      input.insert(input.end(), block.begin(), block.end());
      Bytes& output = scene.after[static_cast<std::size_t>(to)].output;
      output.insert(output.end(), block.begin(), block.end());
    }
  }
}

inline void model_messages(Case& scene, int n) {
  const Operation& operation = scene.operation;
  std::vector<MessagePlan> messages = operation.messages;
  for (int rank = 0; operation.kind == Kind::kShift && rank < n; ++rank) {
    messages.push_back(
        {rank, (rank + operation.root) % n, 0, operation.counts[static_cast<std::size_t>(rank)]});
  }
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const Bytes data = data_of(operation, static_cast<int>(i), messages[i].count);
    Bytes& input = scene.before[static_cast<std::size_t>(messages[i].from)].input;
    input.insert(input.end(), data.begin(), data.end());
    Bytes& output = scene.after[static_cast<std::size_t>(messages[i].to)].output;
    output.insert(output.end(), data.begin(), data.end());
  }
}

}  // namespace detail

// What the operation does in a group of n.
inline Case model(const Operation& operation, int n) {
  Case scene{operation, std::vector<Image>(static_cast<std::size_t>(n)), {}};
  scene.after.resize(scene.before.size());
  switch (operation.kind) {
    case Kind::kAllReduce:
    case Kind::kAllReduceMany:
    case Kind::kReduce:
    case Kind::kBroadcast:
    case Kind::kBroadcastMany:
      detail::model_in_place(scene, n);
      return scene;
    case Kind::kReduceScatter:
      detail::model_reduce_scatter(scene, n);
      return scene;
    case Kind::kAllGather:
    case Kind::kGather:
    case Kind::kScatter:
      detail::model_moves(scene, n);
      return scene;
    case Kind::kAllToAll:
      detail::model_all_to_all(scene, n);
      break;
    case Kind::kShift:
    case Kind::kMessages:
      detail::model_messages(scene, n);
      break;
    case Kind::kBarrier:
      return scene;
  }
  for (std::size_t rank = 0; rank < scene.before.size(); ++rank) {
    scene.before[rank].output = untouched(scene.after[rank].output.size());
    scene.after[rank].input = scene.before[rank].input;
  }
  return scene;
}

}  // namespace trireme::testing
