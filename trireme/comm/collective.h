// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// One operation as data: what a rank asks of an engine, and the part of it on which all ranks must
// agree.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trireme/comm/buffer.h"
#include "trireme/comm/group.h"

namespace trireme {

struct PartialReduction;

enum class CollectiveKind : std::uint8_t {
  kBarrier,
  kAllReduce,
  kReduceScatter,
  kAllGather,
  kBroadcast,
  kReduce,
  kGather,
  kScatter,
  kAllToAll,
};

// What every rank must call alike at one place in a group's order. Travels between ranks as it is:
// fixed size, no padding.
struct Signature {
  std::uint64_t sequence = 0;
  // Elements: of the data (all_reduce, broadcast, reduce), of the whole vector of blocks
  // (reduce_scatter, all_gather, gather, scatter), -1 for all_to_all, whose counts are pairs' own.
  std::int64_t count = 0;
  // Of the counts of the blocks, when they are not all equal, or of the sizes of coalesced buffers;
  // 0 otherwise.
  std::uint64_t counts_digest = 0;
  std::int32_t root = -1;
  CollectiveKind kind = CollectiveKind::kBarrier;
  ReduceOp op = ReduceOp::kSum;
  DType dtype = DType::kF32;
  std::uint8_t unused = 0;

  bool operator==(const Signature&) const = default;
};
static_assert(sizeof(Signature) == 32);

// A rank's place in a vector of blocks, in elements. Groups make vectors without gaps; engines that
// are built from others use the offsets, too.
struct Block {
  std::int64_t offset = 0;
  std::int64_t count = 0;
};

// Which memory a kind uses:
//   kBarrier                none
//   kAllReduce, kBroadcast  output, in place
//   kReduce                 output, in place; written at the root only
//   kReduceScatter          input (blocks by rank), output (own block)
//   kAllGather              input (own block), output (blocks by rank)
//   kGather                 input (own block), output (blocks by rank; root only)
//   kScatter                input (blocks by rank; root only), output (own block)
//   kAllToAll               input (send_blocks by rank), output (blocks by rank: what each sends)
// Where input is this rank's block of output, or the other way around, nothing has to be copied.
struct Collective {
  Signature signature;
  ConstBuffer input;
  Buffer output;
  // By rank. What the ranks have for others has the same offsets on all of them, but for kAllToAll.
  std::vector<Block> blocks;
  std::vector<Block> send_blocks;  // by rank; kAllToAll only
  // kReduceScatter inside a larger tree; see reduction_tree.h. Outlives the call.
  const PartialReduction* partial = nullptr;
  // What the user called, where this is one step of it. Outlives the call.
  const Signature* origin = nullptr;

  // What ranks compare and what errors name.
  const Signature& identity() const { return origin != nullptr ? *origin : signature; }
};

// n equal blocks of count elements; blocks of the given counts. Without gaps.
std::vector<Block> equal_blocks(int n, std::int64_t count);
std::vector<Block> blocks_of(Counts counts);
// Digest of counts that differ, 0 when all are equal.
std::uint64_t digest_of(Counts counts);

// "all_reduce"
std::string kind_name(CollectiveKind kind);
// "all_reduce(sum of 1024 x f32)", "broadcast(4 x i64 from rank 2)", "barrier()". The root is a
// rank of the group.
std::string describe(const Signature& signature);

// Where the operation's buffers lie: a CUDA device's number or kHostMemory.
int device_of(const Collective& collective);

// One message between two ranks. The sequence counts the messages between the same ranks in the
// same direction under the same tag, from 0.
struct MessageKey {
  int peer = 0;  // the other rank of the group
  int tag = 0;
  std::uint64_t sequence = 0;
};

}  // namespace trireme
