// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/group_arguments.h"

#include <fmt/format.h>

#include <cstddef>
#include <numeric>
#include <string_view>

#include "trireme/base/error.h"

namespace trireme::detail {
namespace {

void check_buffer(const ConstBuffer& buffer, std::string_view what) {
  if (buffer.count < 0 || (buffer.data == nullptr && buffer.count > 0)) {
    throw_error<ShapeError>("{}: a buffer of {} elements at {}", what, buffer.count,
                            fmt::ptr(buffer.data));
  }
}

void check_op(ReduceOp op, DType dtype, std::string_view what) {
  const bool integer =
      dtype == DType::kI8 || dtype == DType::kU8 || dtype == DType::kI32 || dtype == DType::kI64;
  if (op == ReduceOp::kMean && integer) {
    throw_error<ShapeError>("{}: a mean of {} is no {}; sum and divide, or use a float", what,
                            dtype_name(dtype), dtype_name(dtype));
  }
}

void check_root(const Caller& caller, int root, std::string_view what) {
  if (root < 0 || root >= caller.size) {
    throw_error<ShapeError>("{}: root {} is no rank of a group of {}", what, root, caller.size);
  }
}

void check_counts(const Caller& caller, Counts counts, std::string_view what) {
  if (counts.size() != static_cast<std::size_t>(caller.size)) {
    throw_error<ShapeError>("{}: {} counts for a group of {}", what, counts.size(), caller.size);
  }
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] < 0) {
      throw_error<ShapeError>("{}: a count of {} for rank {}", what, counts[i], i);
    }
  }
}

void check_same_kind(const ConstBuffer& input, const ConstBuffer& output, std::string_view what) {
  check_buffer(input, what);
  check_buffer(output, what);
  if (input.dtype != output.dtype) {
    throw_error<ShapeError>("{}: an input of {} and an output of {}", what, dtype_name(input.dtype),
                            dtype_name(output.dtype));
  }
  if (input.cuda_device != output.cuda_device) {
    throw_error<ShapeError>(
        "{}: input and output lie in different memories (CUDA device {} and {})", what,
        input.cuda_device, output.cuda_device);
  }
}

std::int64_t total(Counts counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

// How a vector of blocks is cut: by the counts, or, without them, into equal blocks of the size of
// this rank's own one.
struct Cut {
  std::vector<Block> blocks;
  std::int64_t total = 0;
  std::uint64_t digest = 0;
};
Cut cut(const Caller& caller, std::int64_t own_count, Counts counts, std::string_view what) {
  if (counts.empty()) return {equal_blocks(caller.size, own_count), own_count * caller.size, 0};
  check_counts(caller, counts, what);
  const std::int64_t own = counts[static_cast<std::size_t>(caller.rank)];
  if (own != own_count) {
    throw_error<ShapeError>("{}: the block of rank {} has {} elements and its count is {}", what,
                            caller.rank, own_count, own);
  }
  return {blocks_of(counts), total(counts), digest_of(counts)};
}

void check_whole(const ConstBuffer& whole, const Cut& cut, std::string_view what) {
  if (whole.count != cut.total) {
    throw_error<ShapeError>("{}: the blocks of {} ranks have {} elements together, the buffer {}",
                            what, cut.blocks.size(), cut.total, whole.count);
  }
}

Collective vector_collective(CollectiveKind kind, const ConstBuffer& input, const Buffer& output,
                             Cut cut) {
  Collective collective;
  collective.signature.kind = kind;
  collective.signature.dtype = input.dtype;
  collective.signature.count = cut.total;
  collective.signature.counts_digest = cut.digest;
  collective.input = input;
  collective.output = output;
  collective.blocks = std::move(cut.blocks);
  return collective;
}

Collective in_place_collective(CollectiveKind kind, const Buffer& data) {
  Collective collective;
  collective.signature.kind = kind;
  collective.signature.dtype = data.dtype;
  collective.signature.count = data.count;
  collective.output = data;
  return collective;
}

}  // namespace

Collective barrier_of() { return {}; }

Collective all_reduce_of(const Buffer& data, ReduceOp op) {
  check_buffer(data, "all_reduce");
  check_op(op, data.dtype, "all_reduce");
  Collective collective = in_place_collective(CollectiveKind::kAllReduce, data);
  collective.signature.op = op;
  return collective;
}

Collective reduce_scatter_of(const Caller& caller, const ConstBuffer& input, const Buffer& output,
                             ReduceOp op, Counts counts) {
  constexpr std::string_view kWhat = "reduce_scatter";
  check_same_kind(input, output, kWhat);
  check_op(op, input.dtype, kWhat);
  Cut blocks = cut(caller, output.count, counts, kWhat);
  check_whole(input, blocks, kWhat);
  Collective collective =
      vector_collective(CollectiveKind::kReduceScatter, input, output, std::move(blocks));
  collective.signature.op = op;
  return collective;
}

Collective all_gather_of(const Caller& caller, const ConstBuffer& input, const Buffer& output,
                         Counts counts) {
  constexpr std::string_view kWhat = "all_gather";
  check_same_kind(input, output, kWhat);
  Cut blocks = cut(caller, input.count, counts, kWhat);
  check_whole(output, blocks, kWhat);
  return vector_collective(CollectiveKind::kAllGather, input, output, std::move(blocks));
}

Collective broadcast_of(const Caller& caller, const Buffer& data, int root) {
  check_buffer(data, "broadcast");
  check_root(caller, root, "broadcast");
  Collective collective = in_place_collective(CollectiveKind::kBroadcast, data);
  collective.signature.root = root;
  return collective;
}

Collective reduce_of(const Caller& caller, const Buffer& data, int root, ReduceOp op) {
  check_buffer(data, "reduce");
  check_op(op, data.dtype, "reduce");
  check_root(caller, root, "reduce");
  Collective collective = in_place_collective(CollectiveKind::kReduce, data);
  collective.signature.op = op;
  collective.signature.root = root;
  return collective;
}

Collective gather_of(const Caller& caller, const ConstBuffer& input, const Buffer& output, int root,
                     Counts counts) {
  constexpr std::string_view kWhat = "gather";
  check_root(caller, root, kWhat);
  const bool has_output = caller.rank == root;
  check_buffer(input, kWhat);
  if (has_output) check_same_kind(input, output, kWhat);
  Cut blocks = cut(caller, input.count, counts, kWhat);
  if (has_output) check_whole(output, blocks, kWhat);
  Collective collective = vector_collective(CollectiveKind::kGather, input,
                                            has_output ? output : Buffer{}, std::move(blocks));
  collective.signature.root = root;
  return collective;
}

Collective scatter_of(const Caller& caller, const ConstBuffer& input, const Buffer& output,
                      int root, Counts counts) {
  constexpr std::string_view kWhat = "scatter";
  check_root(caller, root, kWhat);
  const bool has_input = caller.rank == root;
  check_buffer(output, kWhat);
  if (has_input) check_same_kind(input, output, kWhat);
  Cut blocks = cut(caller, output.count, counts, kWhat);
  if (has_input) check_whole(input, blocks, kWhat);
  Collective collective = vector_collective(
      CollectiveKind::kScatter, has_input ? input : ConstBuffer{}, output, std::move(blocks));
  collective.signature.dtype = output.dtype;
  collective.signature.root = root;
  return collective;
}

Collective all_to_all_of(const Caller& caller, const ConstBuffer& input, const Buffer& output) {
  constexpr std::string_view kWhat = "all_to_all";
  check_same_kind(input, output, kWhat);
  if (input.count != output.count || input.count % caller.size != 0) {
    throw_error<ShapeError>(
        "all_to_all: an input of {} and an output of {} elements are not {} equal blocks each; "
        "give counts",
        input.count, output.count, caller.size);
  }
  const std::vector<std::int64_t> counts(static_cast<std::size_t>(caller.size),
                                         input.count / caller.size);
  return all_to_all_of(caller, input, output, counts, counts);
}

Collective all_to_all_of(const Caller& caller, const ConstBuffer& input, const Buffer& output,
                         Counts send_counts, Counts receive_counts) {
  constexpr std::string_view kWhat = "all_to_all";
  check_same_kind(input, output, kWhat);
  check_counts(caller, send_counts, kWhat);
  check_counts(caller, receive_counts, kWhat);
  const auto own = static_cast<std::size_t>(caller.rank);
  if (send_counts[own] != receive_counts[own]) {
    throw_error<ShapeError>("all_to_all: rank {} sends {} elements to itself and receives {}",
                            caller.rank, send_counts[own], receive_counts[own]);
  }
  if (total(send_counts) != input.count || total(receive_counts) != output.count) {
    throw_error<ShapeError>(
        "all_to_all: counts of {} and {} elements for an input of {} and an output of {}",
        total(send_counts), total(receive_counts), input.count, output.count);
  }
  Collective collective;
  collective.signature.kind = CollectiveKind::kAllToAll;
  collective.signature.dtype = input.dtype;
  collective.signature.count = -1;
  collective.input = input;
  collective.output = output;
  collective.send_blocks = blocks_of(send_counts);
  collective.blocks = blocks_of(receive_counts);
  return collective;
}

void check_message(const Caller& caller, const char* what, const ConstBuffer& data, int peer,
                   int tag) {
  check_buffer(data, what);
  if (peer < 0 || peer >= caller.size) {
    throw_error<ShapeError>("{}: {} is no rank of a group of {}", what, peer, caller.size);
  }
  if (tag < 0) throw_error<ShapeError>("{}: a tag of {}; tags are not negative", what, tag);
}

void check_coalesced(const char* what, std::span<const Buffer> buffers) {
  for (const Buffer& buffer : buffers) {
    check_buffer(buffer, what);
    if (buffer.dtype != buffers[0].dtype || buffer.cuda_device != buffers[0].cuda_device) {
      throw_error<ShapeError>(
          "{}: buffers that travel as one are of one dtype and in one memory, not {} and {} (CUDA "
          "device {} and {})",
          what, dtype_name(buffers[0].dtype), dtype_name(buffer.dtype), buffers[0].cuda_device,
          buffer.cuda_device);
    }
  }
}

}  // namespace trireme::detail
