// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// broadcast, all_gather, gather, scatter, all_to_all.
//
// What a rank has for others is cut into slices. It copies the current slice into its half, at a
// place for each piece; barrier; whoever wants it copies it out, while the next slice is copied
// into the other half. A piece that several ranks want (broadcast, all_gather) is copied in once.
// As many barriers as the largest piece has slices.
//
// In an all_to_all only sender and receiver know the size of a piece, and both only think so: the
// first slices travel with what the rank sends to and expects of every other. After the first
// barrier every rank has all of these, finds the pairs that differ, and knows how many slices the
// largest piece has.
//
// Direct, where what the ranks have for others can be reached: whoever wants a piece copies it from
// where it is, between two barriers; the ranks of an all_to_all tell where each piece begins with
// its size.

#include <algorithm>
#include <cstring>
#include <vector>

#include "trireme/comm/shm/shm_copy.h"
#include "trireme/comm/shm/shm_operation.h"

namespace trireme {
namespace {

// Output from this size on goes past the caches, which it does not fit. Two ranks, 64 MiB, busy
// machine, middle of five medians in turn: all_gather 9.3 ms, and 12.4 ms through the caches;
// all_to_all 11.3 and 13.4 ms. Not so where the output was just read, as in an all_reduce: 11.9 ms,
// and 10.1 ms through the caches.
constexpr std::size_t kStreamBytes = std::size_t{4} << 20;

// From this rank's memory to its half.
struct Outgoing {
  const std::byte* from;
  std::size_t bytes;
  std::size_t place;
  std::size_t readers;
};
// From another rank's half to this rank's memory.
struct Incoming {
  std::byte* to;
  std::size_t bytes;
  int rank;
  std::size_t place;
  std::size_t offset = 0;  // in what the rank has, where that can be reached
};

class Move {
 public:
  explicit Move(ShmOperation& operation)
      : operation_(operation),
        collective_(operation.collective()),
        rank_(operation.rank()),
        size_(operation.size()) {}

  void broadcast();
  void all_gather();
  void gather();
  void scatter();
  void all_to_all();

 private:
  struct PairCount {
    std::int64_t sends;
    std::int64_t expects;
    std::int64_t offset;  // elements, of what is sent, in the input
  };

  const Block& block(int rank) const { return collective_.blocks[static_cast<std::size_t>(rank)]; }
  std::size_t block_bytes(int rank) const {
    return static_cast<std::size_t>(block(rank).count) * dtype_bytes(collective_.signature.dtype);
  }
  std::size_t largest_block() const;
  std::size_t offset_of(int rank) const {
    return static_cast<std::size_t>(block(rank).offset) * dtype_bytes(collective_.signature.dtype);
  }
  std::byte* output_block(int rank) const {
    return element(collective_.output, block(rank).offset);
  }
  const std::byte* input_block(int rank) const {
    return element(collective_.input, block(rank).offset);
  }
  int root() const { return collective_.signature.root; }
  // Where a piece stands among those for single ranks.
  std::size_t place(int from, int to) const {
    return header_bytes_ + static_cast<std::size_t>((to - from - 1 + size_) % size_) * slice_bytes_;
  }

  void cut(std::size_t largest, std::size_t most);
  void run();
  // What this rank has for others lies at `data`. True when it was done that way.
  bool ran_directly(const void* data, std::size_t bytes, std::size_t largest);
  void copy_directly();
  void find_pieces();
  std::int64_t largest_pair() const;
  void copy_in(std::size_t slice);
  void copy_out(std::size_t slice);
  void publish_counts();
  void check_counts() const;
  PairCount pair_count(int of, int with) const;

  ShmOperation& operation_;
  const Collective& collective_;
  const int rank_;
  const int size_;
  std::vector<Outgoing> outgoing_;
  std::vector<Incoming> incoming_;
  std::size_t header_bytes_ = 0;
  std::size_t slice_bytes_ = 0;
  std::size_t slices_ = 1;
};

std::size_t Move::largest_block() const {
  std::size_t largest = 0;
  for (int rank = 0; rank < size_; ++rank) largest = std::max(largest, block_bytes(rank));
  return largest;
}

// Slices of one size, so that the last is not a crumb that costs a barrier.
void Move::cut(std::size_t largest, std::size_t most) {
  const std::size_t place_bytes = std::min(most, kMostPlaceBytes);
  slices_ = std::max<std::size_t>(1, (largest + place_bytes - 1) / place_bytes);
  slice_bytes_ = round_up_to_line((largest + slices_ - 1) / slices_);
}

void Move::copy_in(std::size_t slice) {
  const std::size_t begin = slice * slice_bytes_;
  for (const Outgoing& piece : outgoing_) {
    if (begin >= piece.bytes) continue;
    const std::size_t bytes = std::min(slice_bytes_, piece.bytes - begin);
    copy_bytes(operation_.own() + piece.place, piece.from + begin, bytes);
    operation_.count_sent(bytes * piece.readers);
  }
}

void Move::copy_out(std::size_t slice) {
  const std::size_t begin = slice * slice_bytes_;
  for (const Incoming& piece : incoming_) {
    if (begin >= piece.bytes) continue;
    const std::size_t bytes = std::min(slice_bytes_, piece.bytes - begin);
    const std::byte* from = operation_.published(piece.rank) + piece.place;
    if (piece.bytes >= kStreamBytes) {
      stream_bytes(piece.to + begin, from, bytes);
    } else {
      copy_bytes(piece.to + begin, from, bytes);
    }
  }
}

void Move::run() {
  for (std::size_t slice = 0; slice < slices_; ++slice) {
    copy_in(slice);
    operation_.meet();
    copy_out(slice);
  }
}

bool Move::ran_directly(const void* data, std::size_t bytes, std::size_t largest) {
  if (largest <= kSmallBytes || !operation_.may_be_direct()) return false;
  if (!operation_.meet_directly(data, bytes)) return false;
  copy_directly();
  return true;
}

void Move::copy_directly() {
  for (const Incoming& piece : incoming_) {
    if (piece.bytes == 0) continue;
    const std::byte* from = operation_.data(piece.rank) + piece.offset;
    if (piece.bytes >= kStreamBytes) {
      stream_bytes(piece.to, from, piece.bytes);
    } else {
      copy_bytes(piece.to, from, piece.bytes);
    }
  }
  for (const Outgoing& piece : outgoing_) operation_.count_sent(piece.bytes * piece.readers);
  operation_.meet();
}

void copy_unless_same(std::byte* to, const std::byte* from, std::size_t bytes) {
  if (to == from || bytes == 0) return;
  if (bytes >= kStreamBytes) {
    stream_bytes(to, from, bytes);
  } else {
    std::memcpy(to, from, bytes);
  }
}

void Move::broadcast() {
  const Buffer& data = collective_.output;
  auto* memory = static_cast<std::byte*>(data.data);
  cut(data.bytes(), ShmHalf::kBytes);
  if (rank_ == root()) {
    outgoing_.push_back({memory, data.bytes(), 0, operation_.others()});
  } else {
    incoming_.push_back({memory, data.bytes(), root(), 0});
  }
  if (ran_directly(memory, rank_ == root() ? data.bytes() : 0, data.bytes())) return;
  run();
}

void Move::all_gather() {
  cut(largest_block(), ShmHalf::kBytes);
  const auto* own = static_cast<const std::byte*>(collective_.input.data);
  outgoing_.push_back({own, block_bytes(rank_), 0, operation_.others()});
  for (int i = 1; i < size_; ++i) {
    const int from = (rank_ + i) % size_;
    incoming_.push_back({output_block(from), block_bytes(from), from, 0});
  }
  if (!ran_directly(own, block_bytes(rank_), largest_block())) run();
  copy_unless_same(output_block(rank_), own, block_bytes(rank_));
}

void Move::gather() {
  cut(largest_block(), ShmHalf::kBytes);
  const auto* own = static_cast<const std::byte*>(collective_.input.data);
  if (rank_ != root()) {
    outgoing_.push_back({own, block_bytes(rank_), 0, 1});
    if (!ran_directly(own, block_bytes(rank_), largest_block())) run();
    return;
  }
  for (int i = 1; i < size_; ++i) {
    const int from = (rank_ + i) % size_;
    incoming_.push_back({output_block(from), block_bytes(from), from, 0});
  }
  if (!ran_directly(nullptr, 0, largest_block())) run();
  copy_unless_same(output_block(rank_), own, block_bytes(rank_));
}

void Move::scatter() {
  cut(largest_block(),
      round_down_to_line(ShmHalf::kBytes / std::max<std::size_t>(1, operation_.others())));
  auto* own = static_cast<std::byte*>(collective_.output.data);
  if (rank_ != root()) {
    incoming_.push_back({own, block_bytes(rank_), root(), place(root(), rank_), offset_of(rank_)});
    if (!ran_directly(nullptr, 0, largest_block())) run();
    return;
  }
  for (int i = 1; i < size_; ++i) {
    const int to = (rank_ + i) % size_;
    outgoing_.push_back({input_block(to), block_bytes(to), place(rank_, to), 1});
  }
  std::size_t end = 0;
  for (int to = 0; to < size_; ++to) end = std::max(end, offset_of(to) + block_bytes(to));
  if (!ran_directly(collective_.input.data, end, largest_block())) run();
  copy_unless_same(own, input_block(rank_), block_bytes(rank_));
}

void Move::publish_counts() {
  for (int rank = 0; rank < size_; ++rank) {
    const Block& sent = collective_.send_blocks[static_cast<std::size_t>(rank)];
    const PairCount count{sent.count, block(rank).count, sent.offset};
    std::memcpy(operation_.own() + static_cast<std::size_t>(rank) * sizeof(count), &count,
                sizeof(count));
  }
}

Move::PairCount Move::pair_count(int of, int with) const {
  PairCount count;
  std::memcpy(&count, operation_.published(of) + static_cast<std::size_t>(with) * sizeof(count),
              sizeof(count));
  return count;
}

void Move::check_counts() const {
  for (int from = 0; from < size_; ++from) {
    for (int to = 0; to < size_; ++to) {
      const std::int64_t sent = pair_count(from, to).sends;
      const std::int64_t expected = pair_count(to, from).expects;
      if (sent != expected) {
        pair_mismatch_error(operation_.scope(), collective_.identity(), from, to, sent, expected);
      }
    }
  }
}

std::int64_t Move::largest_pair() const {
  std::int64_t largest = 0;
  for (int from = 0; from < size_; ++from) {
    for (int to = 0; to < size_; ++to) {
      if (from != to) largest = std::max(largest, pair_count(from, to).sends);
    }
  }
  return largest;
}

void Move::find_pieces() {
  for (Incoming& piece : incoming_) {
    piece.offset = static_cast<std::size_t>(pair_count(piece.rank, rank_).offset) *
                   dtype_bytes(collective_.signature.dtype);
  }
}

void Move::all_to_all() {
  header_bytes_ = round_up_to_line(static_cast<std::size_t>(size_) * sizeof(PairCount));
  const std::size_t others = std::max<std::size_t>(1, operation_.others());
  slice_bytes_ =
      round_down_to_line(std::min((ShmHalf::kBytes - header_bytes_) / others, kMostPlaceBytes));
  const std::size_t element_bytes = dtype_bytes(collective_.signature.dtype);
  for (int i = 1; i < size_; ++i) {
    const int to = (rank_ + i) % size_;
    const Block& piece = collective_.send_blocks[static_cast<std::size_t>(to)];
    outgoing_.push_back({element(collective_.input, piece.offset),
                         static_cast<std::size_t>(piece.count) * element_bytes, place(rank_, to),
                         1});
    const int from = (rank_ - i + size_) % size_;
    incoming_.push_back({output_block(from), block_bytes(from), from, place(from, rank_)});
  }
  publish_counts();
  copy_in(0);
  bool direct = false;
  if (operation_.may_be_direct()) {
    direct = operation_.meet_and_tell(collective_.input.data, collective_.input.bytes());
  } else {
    operation_.meet();
  }
  check_counts();
  const std::size_t largest = static_cast<std::size_t>(largest_pair()) * element_bytes;
  // Who has its first slices may be gone, and its input with it, unless the others reach for more.
  if (direct && largest > slice_bytes_) {
    operation_.reach(collective_.input.data);
    find_pieces();
    copy_directly();
  } else {
    copy_out(0);
    for (std::size_t slice = 1; slice * slice_bytes_ < largest; ++slice) {
      copy_in(slice);
      operation_.meet();
      copy_out(slice);
    }
  }
  const Block& own = collective_.send_blocks[static_cast<std::size_t>(rank_)];
  copy_unless_same(output_block(rank_), element(collective_.input, own.offset), block_bytes(rank_));
}

}  // namespace

void shm_move(ShmOperation& operation) {
  Move move(operation);
  switch (operation.signature().kind) {
    case CollectiveKind::kBroadcast:
      return move.broadcast();
    case CollectiveKind::kAllGather:
      return move.all_gather();
    case CollectiveKind::kGather:
      return move.gather();
    case CollectiveKind::kScatter:
      return move.scatter();
    default:
      return move.all_to_all();
  }
}

}  // namespace trireme
