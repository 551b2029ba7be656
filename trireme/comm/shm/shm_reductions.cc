// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// all_reduce and reduce of S bytes on n ranks.
//
// The data is cut into segments that fit the cache, each segment into n parts; rank r reduces part
// r. A segment passes through three stages, each one barrier after the other:
//   copy in    every rank copies the parts that others reduce into its half; its own part it will
//              read where it is
//   reduce     rank r reads part r of all ranks, in tree order, into its data and its half
//   copy out   every rank copies the other ranks' reduced parts into its data; in a reduce only
//              the root does, and the others' results go to their halves alone
// Between two barriers a rank does stage 3 of segment s - 2, stage 2 of s - 1 and stage 1 of s, so
// m segments take m + 1 barriers. The half holds the input of s in the places of the others' parts
// and the result of s - 1 in the place of its own. The caller's memory is read once and written
// once.
//
// Direct, where all ranks' data can be reached: one barrier; rank r reads part r of all ranks' data
// where it is, in tree order, and writes the result to all of them, or to the root's in a reduce;
// one barrier. Nothing is copied.
//
// Small: every rank copies all of its data in; one barrier; every rank that wants the result
// reduces everything.

#include <algorithm>
#include <vector>

#include "trireme/comm/reduction_tree.h"
#include "trireme/comm/shm/shm_copy.h"
#include "trireme/comm/shm/shm_operation.h"

namespace trireme {
namespace {

// What a rank reduces before it hands it out to the others: stays in the fastest cache meanwhile.
constexpr std::size_t kDirectBlockBytes = 8 << 10;

// Elements [begin, begin + count).
struct Range {
  std::int64_t begin = 0;
  std::int64_t count = 0;
};

// How the data is cut up.
class Cuts {
 public:
  Cuts(const Buffer& data, int ranks)
      : ranks_(ranks),
        element_bytes_(static_cast<std::int64_t>(dtype_bytes(data.dtype))),
        total_(data.count),
        place_bytes_(round_down_to_line(
            std::min(ShmHalf::kBytes / static_cast<std::size_t>(ranks), kMostPlaceBytes))) {
    // Segments of one size, so that the last is not a crumb that costs a barrier.
    const std::int64_t largest = static_cast<std::int64_t>(place_bytes_) / element_bytes_ * ranks;
    segments_ = std::max<std::int64_t>(1, (total_ + largest - 1) / largest);
    part_ = round_to_line((total_ + segments_ * ranks - 1) / (segments_ * ranks));
  }

  std::int64_t segments() const { return segments_; }
  // Part `part` of segment `segment`; the last ones may be short or empty.
  Range range(std::int64_t segment, int part) const {
    const std::int64_t begin = std::min(total_, (segment * ranks_ + part) * part_);
    return {begin, std::min(part_, total_ - begin)};
  }
  std::size_t bytes(const Range& range) const {
    return static_cast<std::size_t>(range.count * element_bytes_);
  }
  // Where a part stands in a half.
  std::size_t place(int part) const { return place_bytes_ * static_cast<std::size_t>(part); }

 private:
  std::int64_t round_to_line(std::int64_t elements) const {
    const std::int64_t line = static_cast<std::int64_t>(kCacheLineBytes) / element_bytes_;
    return (elements + line - 1) / line * line;
  }

  int ranks_;
  std::int64_t element_bytes_;
  std::int64_t total_;
  std::size_t place_bytes_;
  std::int64_t segments_ = 1;
  std::int64_t part_ = 0;
};

class Reduction {
 public:
  explicit Reduction(ShmOperation& operation)
      : operation_(operation),
        data_(operation.collective().output),
        cuts_(data_, operation.size()),
        inputs_(static_cast<std::size_t>(operation.size())) {}

  void run() {
    const std::int64_t segments = cuts_.segments();
    for (std::int64_t s = 0; s <= segments; ++s) {
      if (s >= 2) copy_out(s - 2);
      if (s >= 1) reduce(s - 1);
      if (s < segments) copy_in(s);
      operation_.meet();
    }
    copy_out(segments - 1);
  }

  void run_direct() {
    const auto element_bytes = static_cast<std::int64_t>(dtype_bytes(data_.dtype));
    const auto block = static_cast<std::int64_t>(kDirectBlockBytes) / element_bytes;
    const Range part = own_part();
    for (std::int64_t at = 0; at < part.count; at += block) {
      const std::int64_t begin = part.begin + at;
      reduce_directly(begin * element_bytes, std::min(block, part.count - at));
    }
    const auto bytes = static_cast<std::size_t>(part.count * element_bytes);
    operation_.count_sent(data_.bytes() - bytes + bytes * readers());
    operation_.meet();
  }

  void run_small() {
    copy_bytes(operation_.own(), data_.data, data_.bytes());
    operation_.meet();
    if (wanted_by(operation_.rank())) {
      for (int rank = 0; rank < operation_.size(); ++rank) input(rank) = operation_.published(rank);
      combine(data_.data, data_.count);
    }
    operation_.count_sent(data_.bytes() * readers());
  }

 private:
  bool wanted_by(int rank) const {
    const Signature& signature = operation_.signature();
    return signature.kind == CollectiveKind::kAllReduce || rank == signature.root;
  }
  // Other ranks that want the result.
  std::size_t readers() const {
    if (operation_.signature().kind == CollectiveKind::kAllReduce) return operation_.others();
    return wanted_by(operation_.rank()) ? 0 : 1;
  }
  const void*& input(int rank) { return inputs_[static_cast<std::size_t>(rank)]; }
  void combine(void* out, std::int64_t count) {
    reduce_tree(inputs_, out, count, data_.dtype, operation_.signature().op);
  }

  // One of n even parts, in whole cache lines.
  Range own_part() const {
    const auto line = static_cast<std::int64_t>(kCacheLineBytes / dtype_bytes(data_.dtype));
    const std::int64_t lines = (data_.count + line - 1) / line;
    const auto edge = [&](int rank) {
      return std::min(data_.count, lines * rank / operation_.size() * line);
    };
    const std::int64_t begin = edge(operation_.rank());
    return {begin, edge(operation_.rank() + 1) - begin};
  }

  void reduce_directly(std::int64_t byte, std::int64_t count) {
    for (int rank = 0; rank < operation_.size(); ++rank) input(rank) = operation_.data(rank) + byte;
    const bool all = operation_.signature().kind == CollectiveKind::kAllReduce;
    const int first = all ? operation_.rank() : operation_.signature().root;
    std::byte* out = operation_.data(first) + byte;
    combine(out, count);
    if (!all) return;
    const std::size_t bytes = static_cast<std::size_t>(count) * dtype_bytes(data_.dtype);
    for (int rank = 0; rank < operation_.size(); ++rank) {
      if (rank != first) copy_bytes(operation_.data(rank) + byte, out, bytes);
    }
  }

  void copy_in(std::int64_t segment) {
    std::byte* half = operation_.own();
    for (int part = 0; part < operation_.size(); ++part) {
      if (part == operation_.rank()) continue;
      const Range range = cuts_.range(segment, part);
      copy_bytes(half + cuts_.place(part), element(data_, range.begin), cuts_.bytes(range));
      operation_.count_sent(cuts_.bytes(range));
    }
  }

  void reduce(std::int64_t segment) {
    const Range range = cuts_.range(segment, operation_.rank());
    if (range.count == 0) return;
    const std::size_t place = cuts_.place(operation_.rank());
    std::byte* mine = element(data_, range.begin);
    for (int rank = 0; rank < operation_.size(); ++rank) {
      input(rank) = rank == operation_.rank() ? mine : operation_.published(rank) + place;
    }
    std::byte* half = operation_.own() + place;
    if (wanted_by(operation_.rank())) {
      combine(mine, range.count);
      if (readers() > 0) copy_bytes(half, mine, cuts_.bytes(range));
    } else {
      combine(half, range.count);
    }
    operation_.count_sent(cuts_.bytes(range) * readers());
  }

  void copy_out(std::int64_t segment) {
    if (!wanted_by(operation_.rank())) return;
    for (int part = 0; part < operation_.size(); ++part) {
      if (part == operation_.rank()) continue;
      const Range range = cuts_.range(segment, part);
      copy_bytes(element(data_, range.begin), operation_.published(part) + cuts_.place(part),
                 cuts_.bytes(range));
    }
  }

  ShmOperation& operation_;
  const Buffer& data_;
  const Cuts cuts_;
  std::vector<const void*> inputs_;  // of a reduction, by rank
};

}  // namespace

void shm_reduce(ShmOperation& operation) {
  Reduction reduction(operation);
  const Buffer& data = operation.collective().output;
  if (data.bytes() <= kSmallBytes) return reduction.run_small();
  if (operation.may_be_direct() && operation.meet_directly(data.data, data.bytes())) {
    return reduction.run_direct();
  }
  reduction.run();
}

}  // namespace trireme
