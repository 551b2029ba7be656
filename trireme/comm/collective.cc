// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/collective.h"

#include <fmt/core.h>
#include <xxhash.h>

#include <algorithm>

namespace trireme {
namespace {

std::string_view reduce_name(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return "sum";
    case ReduceOp::kMean:
      return "mean";
    case ReduceOp::kMin:
      return "min";
    case ReduceOp::kMax:
      return "max";
    case ReduceOp::kProduct:
      return "product";
  }
  return "?";
}

}  // namespace

std::vector<Block> equal_blocks(int n, std::int64_t count) {
  std::vector<Block> blocks(static_cast<std::size_t>(n));
  std::int64_t offset = 0;
  for (Block& block : blocks) {
    block = {offset, count};
    offset += count;
  }
  return blocks;
}

std::vector<Block> blocks_of(Counts counts) {
  std::vector<Block> blocks;
  blocks.reserve(counts.size());
  std::int64_t offset = 0;
  for (const std::int64_t count : counts) {
    blocks.push_back({offset, count});
    offset += count;
  }
  return blocks;
}

std::uint64_t digest_of(Counts counts) {
  const bool equal =
      std::adjacent_find(counts.begin(), counts.end(), std::not_equal_to<>()) == counts.end();
  return equal ? 0 : XXH3_64bits(counts.data(), counts.size_bytes()) | 1;
}

int device_of(const Collective& collective) {
  switch (collective.signature.kind) {
    case CollectiveKind::kBarrier:
      return kHostMemory;
    case CollectiveKind::kAllReduce:
    case CollectiveKind::kBroadcast:
    case CollectiveKind::kReduce:
    case CollectiveKind::kScatter:
      return collective.output.cuda_device;
    case CollectiveKind::kReduceScatter:
    case CollectiveKind::kAllGather:
    case CollectiveKind::kGather:
    case CollectiveKind::kAllToAll:
      return collective.input.cuda_device;
  }
  return kHostMemory;
}

std::string kind_name(CollectiveKind kind) {
  switch (kind) {
    case CollectiveKind::kBarrier:
      return "barrier";
    case CollectiveKind::kAllReduce:
      return "all_reduce";
    case CollectiveKind::kReduceScatter:
      return "reduce_scatter";
    case CollectiveKind::kAllGather:
      return "all_gather";
    case CollectiveKind::kBroadcast:
      return "broadcast";
    case CollectiveKind::kReduce:
      return "reduce";
    case CollectiveKind::kGather:
      return "gather";
    case CollectiveKind::kScatter:
      return "scatter";
    case CollectiveKind::kAllToAll:
      return "all_to_all";
  }
  return "?";
}

std::string describe(const Signature& signature) {
  if (signature.kind == CollectiveKind::kBarrier) return "barrier()";
  std::string text = kind_name(signature.kind) + "(";
  const bool reduces = signature.kind == CollectiveKind::kAllReduce ||
                       signature.kind == CollectiveKind::kReduceScatter ||
                       signature.kind == CollectiveKind::kReduce;
  if (reduces) text += fmt::format("{} of ", reduce_name(signature.op));
  if (signature.count >= 0) text += fmt::format("{} x ", signature.count);
  text += dtype_name(signature.dtype);
  if (signature.counts_digest != 0) {
    text += fmt::format(" in blocks of digest {:016x}", signature.counts_digest);
  }
  if (signature.root >= 0) {
    const bool from =
        signature.kind == CollectiveKind::kBroadcast || signature.kind == CollectiveKind::kScatter;
    text += fmt::format(" {} rank {}", from ? "from" : "to", signature.root);
  }
  return text + ")";
}

}  // namespace trireme
