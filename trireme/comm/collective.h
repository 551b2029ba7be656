// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// One collective operation as data: what a rank asks of an engine, and the part of it on which all
// ranks must agree.
#pragma once

#include <cstdint>
#include <string>

#include "trireme/comm/buffer.h"
#include "trireme/comm/group.h"

namespace trireme {

enum class CollectiveKind : std::uint8_t { kBarrier, kAllReduce, kAllGather, kBroadcast };

// What every rank must call alike at one place in a group's order. Travels between ranks as it is:
// fixed size, no padding.
struct Signature {
  std::uint64_t sequence = 0;
  std::int64_t count = 0;  // elements of the input (all_gather), of the data (otherwise)
  std::int32_t root = -1;  // broadcast
  CollectiveKind kind = CollectiveKind::kBarrier;
  ReduceOp op = ReduceOp::kSum;
  DType dtype = DType::kF32;
  std::uint8_t unused = 0;

  bool operator==(const Signature&) const = default;
};
static_assert(sizeof(Signature) == 24);

struct Collective {
  Signature signature;
  ConstBuffer input;  // all_gather only
  Buffer data;        // all_reduce, broadcast: in place; all_gather: the output
};

// "all_reduce"
std::string kind_name(CollectiveKind kind);
// "all_reduce(sum of 1024 x f32)", "broadcast(4 x i64 from rank 2)", "barrier()"
std::string describe(const Signature& signature);

}  // namespace trireme
