// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Collectives of ranks that share memory, S bytes on n ranks. docs/collectives.md has the
// reasoning.
//
// all_reduce. The data is cut into segments that fit the cache, each segment into n parts; rank r
// reduces part r. A segment passes through three stages, each one barrier after the other:
//   copy in    every rank copies the parts that others reduce into its half; its own part it will
//              read where it is
//   reduce     rank r reads part r of all ranks, in tree order, into its data and its half
//   copy out   every rank copies the other ranks' reduced parts into its data
// Between two barriers a rank does stage 3 of segment s - 2, stage 2 of s - 1 and stage 1 of s, so
// m segments take m + 1 barriers. The half holds the input of s in the places of the others' parts
// and the result of s - 1 in the place of its own. The caller's memory is read once and written
// once.
//
// all_reduce, small: every rank copies all of its data in; one barrier; every rank reduces
// everything.
//
// broadcast, all_gather: whoever has data copies a segment in; barrier; the others copy it out,
// while the next segment is copied into the other half. m segments, m barriers.

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <vector>

#include "trireme/comm/engine.h"
#include "trireme/comm/reduction_tree.h"
#include "trireme/comm/shm/shm_segment.h"

namespace trireme {
namespace {

// Below this, one barrier with n times the reduction beats two barriers.
constexpr std::size_t kSmallBytes = 8 << 10;
constexpr std::size_t kCacheLineBytes = 64;

// Elements [begin, begin + count).
struct Range {
  std::int64_t begin = 0;
  std::int64_t count = 0;
};

std::byte* element(const Buffer& buffer, std::int64_t index) {
  return static_cast<std::byte*>(buffer.data) +
         static_cast<std::size_t>(index) * dtype_bytes(buffer.dtype);
}

void copy_bytes(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

// How an all_reduce is cut up.
class Cuts {
 public:
  Cuts(const Buffer& data, int ranks)
      : ranks_(ranks),
        element_bytes_(static_cast<std::int64_t>(dtype_bytes(data.dtype))),
        total_(data.count) {
    const std::size_t place = ShmHalf::kBytes / static_cast<std::size_t>(ranks);
    place_bytes_ = place / kCacheLineBytes * kCacheLineBytes;
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
  std::int64_t segments_ = 1;
  std::int64_t part_ = 0;
  std::size_t place_bytes_ = 0;
};

class ShmEngine final : public Engine {
 public:
  explicit ShmEngine(const GroupScope& scope)
      : scope_(scope), inputs_(static_cast<std::size_t>(scope.size())) {}

  std::string_view name() const override { return "shm"; }
  std::int64_t bytes_sent() const override { return bytes_sent_.load(std::memory_order_relaxed); }
  std::int64_t bytes_sent_between_hosts() const override { return 0; }
  void send(const MessageKey&, const ConstBuffer&, const Deadline&) override { unfinished(); }
  void receive(const MessageKey&, const Buffer&, const Deadline&) override { unfinished(); }
  void exchange(const MessageKey&, const ConstBuffer&, const MessageKey&, const Buffer&,
                const Deadline&) override {
    unfinished();
  }
  static void unfinished() { throw InternalError("not there yet"); }

  void run(const Collective& collective, const Deadline& deadline) override {
    if (!segment_) segment_ = std::make_unique<ShmSegment>(scope_, deadline);
    signature_ = collective.signature;
    compared_ = false;
    switch (signature_.kind) {
      case CollectiveKind::kBarrier:
        return meet(deadline);
      case CollectiveKind::kAllReduce:
        return collective.output.bytes() <= kSmallBytes ? small_all_reduce(collective.output, deadline)
                                                      : all_reduce(collective.output, deadline);
      case CollectiveKind::kAllGather:
        return all_gather(collective.input, collective.output, deadline);
      case CollectiveKind::kBroadcast:
        return broadcast(collective.output, deadline);
      default:
        unfinished();
    }
  }

 private:
  void meet(const Deadline& deadline);
  void small_all_reduce(const Buffer& data, const Deadline& deadline);
  void all_reduce(const Buffer& data, const Deadline& deadline);
  void copy_in(const Cuts& cuts, const Buffer& data, std::int64_t segment);
  void reduce(const Cuts& cuts, const Buffer& data, std::int64_t segment);
  void copy_out(const Cuts& cuts, const Buffer& data, std::int64_t segment);
  void all_gather(const ConstBuffer& input, const Buffer& output, const Deadline& deadline);
  void broadcast(const Buffer& data, const Deadline& deadline);

  void count_sent(std::size_t bytes) {
    bytes_sent_.fetch_add(static_cast<std::int64_t>(bytes), std::memory_order_relaxed);
  }
  std::size_t others() const { return static_cast<std::size_t>(scope_.size() - 1); }

  const GroupScope& scope_;
  std::unique_ptr<ShmSegment> segment_;  // made by the first operation
  std::vector<const void*> inputs_;      // of a reduction, by rank
  Signature signature_;
  bool compared_ = false;
  std::atomic<std::int64_t> bytes_sent_ = 0;
};

// One barrier. The first of an operation compares what the ranks ask for.
void ShmEngine::meet(const Deadline& deadline) {
  if (!compared_) segment_->own().signature = signature_;
  segment_->barrier(signature_, deadline);
  if (compared_) return;
  for (int rank = 0; rank < scope_.size(); ++rank) {
    const Signature theirs = segment_->published(rank).signature;
    if (theirs != signature_) mismatch_error(scope_, signature_, rank, theirs);
  }
  compared_ = true;
}

void ShmEngine::small_all_reduce(const Buffer& data, const Deadline& deadline) {
  copy_bytes(segment_->own().bytes, data.data, data.bytes());
  meet(deadline);
  for (int rank = 0; rank < scope_.size(); ++rank) {
    inputs_[static_cast<std::size_t>(rank)] = segment_->published(rank).bytes;
  }
  reduce_tree(inputs_, data.data, data.count, data.dtype, signature_.op);
  count_sent(data.bytes() * others());
}

void ShmEngine::all_reduce(const Buffer& data, const Deadline& deadline) {
  const Cuts cuts(data, scope_.size());
  const std::int64_t segments = cuts.segments();
  for (std::int64_t s = 0; s <= segments; ++s) {
    if (s >= 2) copy_out(cuts, data, s - 2);
    if (s >= 1) reduce(cuts, data, s - 1);
    if (s < segments) copy_in(cuts, data, s);
    meet(deadline);
  }
  copy_out(cuts, data, segments - 1);
}

void ShmEngine::copy_in(const Cuts& cuts, const Buffer& data, std::int64_t segment) {
  std::byte* half = segment_->own().bytes;
  for (int part = 0; part < scope_.size(); ++part) {
    if (part == scope_.rank) continue;
    const Range range = cuts.range(segment, part);
    const std::size_t bytes = static_cast<std::size_t>(range.count) * dtype_bytes(data.dtype);
    copy_bytes(half + cuts.place(part), element(data, range.begin), bytes);
    count_sent(bytes);
  }
}

void ShmEngine::reduce(const Cuts& cuts, const Buffer& data, std::int64_t segment) {
  const Range range = cuts.range(segment, scope_.rank);
  if (range.count == 0) return;
  const std::size_t place = cuts.place(scope_.rank);
  std::byte* mine = element(data, range.begin);
  for (int rank = 0; rank < scope_.size(); ++rank) {
    inputs_[static_cast<std::size_t>(rank)] =
        rank == scope_.rank ? mine : segment_->published(rank).bytes + place;
  }
  reduce_tree(inputs_, mine, range.count, data.dtype, signature_.op);
  const std::size_t bytes = static_cast<std::size_t>(range.count) * dtype_bytes(data.dtype);
  copy_bytes(segment_->own().bytes + place, mine, bytes);
  count_sent(bytes * others());
}

void ShmEngine::copy_out(const Cuts& cuts, const Buffer& data, std::int64_t segment) {
  for (int part = 0; part < scope_.size(); ++part) {
    if (part == scope_.rank) continue;
    const Range range = cuts.range(segment, part);
    copy_bytes(element(data, range.begin), segment_->published(part).bytes + cuts.place(part),
               static_cast<std::size_t>(range.count) * dtype_bytes(data.dtype));
  }
}

void ShmEngine::all_gather(const ConstBuffer& input, const Buffer& output,
                           const Deadline& deadline) {
  const std::size_t bytes = input.bytes();
  auto* out = static_cast<std::byte*>(output.data);
  const auto* in = static_cast<const std::byte*>(input.data);
  std::byte* own_place = out + bytes * static_cast<std::size_t>(scope_.rank);
  for (std::size_t at = 0; at == 0 || at < bytes; at += ShmHalf::kBytes) {
    const std::size_t n = std::min(ShmHalf::kBytes, bytes - at);
    copy_bytes(segment_->own().bytes, in + at, n);
    meet(deadline);
    for (int rank = 0; rank < scope_.size(); ++rank) {
      if (rank == scope_.rank) continue;
      copy_bytes(out + bytes * static_cast<std::size_t>(rank) + at, segment_->published(rank).bytes,
                 n);
    }
  }
  if (bytes > 0 && own_place != in) std::memmove(own_place, in, bytes);
  count_sent(bytes * others());
}

void ShmEngine::broadcast(const Buffer& data, const Deadline& deadline) {
  const std::size_t bytes = data.bytes();
  const bool root = scope_.rank == signature_.root;
  auto* memory = static_cast<std::byte*>(data.data);
  for (std::size_t at = 0; at == 0 || at < bytes; at += ShmHalf::kBytes) {
    const std::size_t n = std::min(ShmHalf::kBytes, bytes - at);
    if (root) copy_bytes(segment_->own().bytes, memory + at, n);
    meet(deadline);
    if (!root) copy_bytes(memory + at, segment_->published(signature_.root).bytes, n);
  }
  if (root) count_sent(bytes * others());
}

}  // namespace

std::unique_ptr<Engine> make_shm_engine(const GroupScope& scope) {
  return std::make_unique<ShmEngine>(scope);
}

}  // namespace trireme
